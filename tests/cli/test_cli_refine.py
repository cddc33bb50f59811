import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from fairhuman.models.architecture import build_small
from fairhuman.models.control import ControlModel
from fairhuman.models.controlnet import ControlNet
from fairhuman.models.lora import LoraModel
from fairhuman.models.settings import LoraSettings
from fairhuman.refine import painter
from fairhuman.refine.inpaint import Inpainter
from fairhuman.synth.body import Body
from fairhuman.synth.render import render

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 80, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "noise.png")
    return folder


def test_a_dry_run_shows_the_settings_and_writes_nothing(typed: Typed, images: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "refine.yaml"
    recipe.write_text("attempts: 7\nlora_weight: 0.3\n", encoding="utf-8")
    out = tmp_path / "out"
    code, shown, _ = typed(
        "refine", images, "--out", out, "--recipe", recipe, "--seed", 4, "strength=0.25", "--dry-run"
    )
    assert code == 0
    for line in ("attempts: 7", "lora_weight: 0.3", "seed: 4", "strength: 0.25", "would refine 1 of 1 pictures"):
        assert line in shown
    assert not out.exists()


def test_the_precision_is_by_default_what_the_machine_draws_in(
    typed: Typed, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ("refine", images, "--out", tmp_path / "out", "--dry-run")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "false")
    for gpu, precision in ((False, "fp32"), (True, "fp16")):
        monkeypatch.setattr("torch.cuda.is_available", lambda gpu=gpu: gpu)
        assert f"precision: {precision}\n" in typed(*asked)[1]
    assert "precision: bf16\n" in typed(*asked, "--precision", "bf16")[1]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["strenght=0.2"], 2, "unknown setting 'strenght'; did you mean 'strength'"),
        (["strength=0.01"], 2, "steps * strength"),
        (["--lora", "NONE"], 1, "LoRA 'NONE'"),
        (["--controlnet", "depth=NONE"], 1, "control 'NONE'"),
        (["hand_depth=NONE.onnx"], 1, "NONE.onnx: expected an ONNX file"),
        (["--model", "NONE"], 1, "model 'NONE'"),
        (["steps=2000"], 2, "steps"),
        (["--prompts", "NONE.txt"], 1, "NONE.txt"),
        (["--controlnet", "edges=NONE"], 2, "CONDITIONS are pose or depth"),
        (
            ["depth.model=NONE", "--controlnet", "depth=owner/name"],
            1,
            "depth.model 'NONE' on 'auto': expected a hub id",
        ),
        (["depth.model=images"], 1, "the folder has no config.json"),
        (["depth.model=owner/name"], 2, "depth.model: no control network follows depth; add one"),
        (
            ["depth.model=owner/name", "--controlnet", "pose"],
            2,
            "depth.model: no control network follows depth; add one",
        ),
        (["hand_depth=empty.onnx", "--controlnet", "pose"], 2, "hand_depth: no control network follows depth; add one"),
        (["parts=[foot]"], 2, "parts.0: input should be 'face' or 'hand', found 'foot'\n"),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(
    typed: Typed,
    images: Path,
    tmp_path: Path,
    options: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = build_small(0)
    ControlModel(small, ControlNet.new(small, ("pose",), 0)).save(tmp_path / "pose")
    (tmp_path / "empty.onnx").touch()
    monkeypatch.chdir(tmp_path)
    found, _, errors = typed("refine", images, "--out", tmp_path / "out", *options, "--dry-run")
    assert found == code
    assert message in errors
    assert "at least 1 item" not in errors
    assert not (tmp_path / "out").exists()


def test_a_picture_of_nobody_is_copied_by_the_real_detectors(typed: Typed, images: Path, tmp_path: Path) -> None:
    code, shown, errors = typed("refine", images, "--out", tmp_path / "out", "--model", "small-untrained")
    assert code == 0, errors
    assert "1 picture: 0 refined, copied unchanged: 1 without a face or hand" in shown
    assert (tmp_path / "out" / "noise.png").read_bytes() == (images / "noise.png").read_bytes()
    assert (tmp_path / "out" / "report.html").is_file()


@pytest.mark.slow
def test_a_face_is_redrawn_with_a_lora_and_under_a_controlnet(
    typed: Typed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = build_small(0)
    control = ControlModel(small, ControlNet.new(small, ("pose", "depth"), seed=1))
    lora = LoraModel(build_small(0), LoraSettings(rank=2), seed=1)
    with torch.no_grad():
        for parameter in (*control.trainable_parameters(), *lora.trainable_parameters()):
            parameter += 0.05
    control.save(tmp_path / "net")
    lora.save(tmp_path / "lora")
    (tmp_path / "people").mkdir()
    Image.fromarray(render(Body(), 404, 0, 256).image).save(tmp_path / "people" / "one.png")
    drawn: list[bytes] = []

    class Watched(Inpainter):
        def __call__(self, *asked: Any) -> Image.Image:
            made = super().__call__(*asked)
            drawn.append(made.tobytes())
            return made

    monkeypatch.setattr(painter, "Inpainter", Watched)
    of_face = ("--model", "small-untrained", "parts=[face]", "poor_face=1", "steps=2", "attempts=1")
    net, weights = ("--controlnet", tmp_path / "net"), ("--lora", tmp_path / "lora")
    for name, options in {"both": (*net, *weights), "guided": net}.items():
        code, _, errors = typed("refine", tmp_path / "people", "--out", tmp_path / name, *of_face, *options)
        assert code == 0, errors
    assert len(set(drawn)) == 2, "the LoRA takes part"
    [face] = json.loads((tmp_path / "both" / "refined.jsonl").read_text())["parts"]
    assert (face["kind"], len(face["attempts"]), face["without"]) == ("face", 1, ["depth"])
