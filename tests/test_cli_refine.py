from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

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
    for line in ("attempts: 7", "lora_weight: 0.3", "seed: 4", "strength: 0.25", "1 of 1 pictures to look at"):
        assert line in shown
    assert not out.exists()


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
    ],
)
def test_what_is_wrong_is_said_before_anything_is_loaded(
    typed: Typed, images: Path, tmp_path: Path, options: list[str], code: int, message: str
) -> None:
    found, _, errors = typed("refine", images, "--out", tmp_path / "out", *options)
    assert found == code
    assert message in errors
    assert not (tmp_path / "out").exists()


def test_a_picture_of_nobody_is_copied_by_the_real_detectors(typed: Typed, images: Path, tmp_path: Path) -> None:
    code, shown, errors = typed("refine", images, "--out", tmp_path / "out", "--model", "small-untrained")
    assert code == 0, errors
    assert "1 no parts" in shown
    assert (tmp_path / "out" / "noise.png").read_bytes() == (images / "noise.png").read_bytes()
    assert (tmp_path / "out" / "report.html").is_file()
