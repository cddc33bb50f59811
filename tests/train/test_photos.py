"""Recipes on 20 real photos: from a random start, then a LoRA on top; ControlNet, adapter and MoLE after a build."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman import config
from fairhuman.report.training import write_training_report
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from helpers.places import RECIPES
from helpers.runs import read_lines

Typed = Callable[..., tuple[int, str, str]]
CLOSEUPS = ("min_side=16", "size=128", "max_enlarge=4")  # as the recipes say


@pytest.fixture
def photos(shared: Path, tmp_path: Path) -> Path:
    """The first 20 photos that have both faces and hands, as an imagefolder of their own."""
    source, folder = shared / "data" / "ccp", tmp_path / "photos"
    (folder / "images").mkdir(parents=True)
    rows = [json.loads(line) for line in (source / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    chosen = [row for row in rows if row["faces"] and row["hands"]][:20]
    for row in chosen:
        row.pop("split")
        shutil.copy(source / row["file_name"], folder / row["file_name"])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, chosen)), encoding="utf-8")
    return folder


@pytest.mark.slow
def test_photos_from_a_random_start_to_a_fair_lora(photos: Path, tmp_path: Path) -> None:
    base_run, lora_run = tmp_path / "base", tmp_path / "lora"
    small = ["resolution=64", "validation.share=0.2", "preview.steps=2", "preview.count=1", f"data={photos}"]
    base = [*small, f"out={base_run}", "steps=25", "batch_size=4", "validation.every=25", "ema.decay=0.5"]
    base += ["model=small-untrained", "precision=fp32", "schedule.warmup_steps=5", "preview.every=0"]
    train(config.load(TrainRecipe, RECIPES / "photos.yaml", base))
    first, last = read_lines(base_run / "validation.jsonl")
    for name in ("global", "face", "hand"):
        before, after = first["objectives"][name], last["objectives"][name]  # type: ignore[index]
        assert sum(before["area"]) > 0, name
        assert sum(after["error"]) < 0.95 * sum(before["error"]), name

    lora = [*small, f"out={lora_run}", f"model={base_run / 'model'}", "steps=4", "batch_size=2", "validation.every=4"]
    train(config.load(TrainRecipe, RECIPES / "photos-lora.yaml", lora))
    rows = read_lines(lora_run / "metrics.jsonl")
    assert len(rows) == 4
    covered = [row["coverage/hand"] for row in rows] + [row["coverage/face"] for row in rows]
    assert sum(covered) > 2  # type: ignore[arg-type]
    assert all(row["weight/global"] is not None for row in rows)
    page = write_training_report(lora_run).read_text(encoding="utf-8")
    assert page.count("data:image/") > 5
    assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.slow
def test_photos_with_poses_train_control_and_mole(photos: Path, tmp_path: Path, typed: Typed) -> None:
    """As a user does it: build with conditions, cut close-ups, train; the poses are the photos' own 33 landmarks."""

    def done(*arguments: object) -> str:
        code, said, error = typed(*arguments)
        assert code == 0, error
        return said

    people, closeups = tmp_path / "people", tmp_path / "closeups"
    said = done("data", "build", photos, people, "min_side=128", "condition={}", "--workers", 0)
    assert "20 kept" in said
    for part in ("face", "hand"):
        done("data", "export", people, closeups / part, "--format", "parquet", "--closeups", part, *CLOSEUPS)
    runs = {
        "controlnet-small": ("controlnet", people, []),
        "t2i-adapter-small": ("t2i_adapter", people, []),
        "mole-small-face": ("mole", closeups / "face", []),
        "mole-small-hand": ("mole", closeups / "hand", []),
        "mole-small-gates": (
            "mole",
            people,
            [f"mole.start_{part}={tmp_path / f'mole-small-{part}' / 'mole'}" for part in ("face", "hand")],
        ),
    }
    short = ["resolution=64", "steps=3", "batch_size=2", "validation.share=0.2", "validation.every=3"]
    short += ["preview.count=1", "preview.steps=2"]
    for name, (kind, data, further) in runs.items():
        out = tmp_path / name
        done("train", RECIPES / f"{name}.yaml", f"data={data}", f"out={out}", *short, *further)
        rows = read_lines(out / "metrics.jsonl")
        assert len(rows) == 3
        assert all(math.isfinite(row["loss/global"]) for row in rows)  # type: ignore[arg-type]
        assert list((out / kind).glob("*.safetensors"))
        if kind != "mole":
            assert all(row["condition_known/pose"] == 1.0 for row in rows), "every photo has a pose"
            assert (out / "report.html").read_text(encoding="utf-8").count('alt="pose"') == 2
