"""The grid and the costs of a comparison, made by its own command."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from PIL import Image

from fairhuman import config
from fairhuman.compare import jobs
from fairhuman.compare.paper.cost_page import read_costs
from fairhuman.compare.paper.settings import CostSettings
from fairhuman.compare.pictures import _write_prompts, expected_boxes
from fairhuman.compare.settings import CompareRecipe
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError, RecipeError
from fairhuman.generate.sample import save_png
from helpers import warm
from helpers.figures import write_figures

Typed = Callable[..., tuple[int, str, str]]
PEOPLE = {"count": 3, "size": 64}
VALUES = {
    "people": {name: {**PEOPLE, "seed": seed} for seed, name in enumerate(("train", "test", "shown"))},
    "train": {
        "kind": "controlnet",
        "model": "small-untrained",
        "data": "train",
        "steps": 1,
        "resolution": 64,
        "preview": {"count": 0},
        "controlnet": {"conditions": ["pose"]},
    },
    "cells": {"LS": {"strategy": "ls"}, "MPD": {"strategy": "mpd"}},
    "against": "LS",
    "seeds": [1],
    "test": "test",
    "grid": {"data": "shown", "steps": 1, "guidance": 1.0, "zoom_on": "expected"},
    "cost": {"model": "small-untrained", "rank": 2, "size": 64, "steps": 1, "repeats": 1},
}


def test_a_comparison_with_pictures_and_costs(tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "subprocess", warm)
    file, out = tmp_path / "compare.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump({**VALUES, "out": str(out)}))
    code, said, wrong = typed("compare", file)
    assert code == 0, said + wrong
    pictures = sorted((out / "samples").rglob("*.png"))
    assert len(pictures) == 3 * 3, "of the base, LS and MPD"
    with Image.open(next(path for path in pictures if path.parent.name.startswith("mpd"))) as picture:
        assert "asked_pose" in picture.text  # type: ignore[attr-defined]
    page, grid = (out / "report.html").read_text(), (out / "grid" / "grid.html").read_text()
    assert all(f'<th scope="col">{name}</th>' in grid for name in ("pose", "base", "LS", "MPD"))
    assert 'href="grid/grid.html"' in page
    assert 'alt="MPD: face"' in grid, "close-ups where the boxes are"
    assert "LoRA, fused" in page
    assert "Not shown" not in page
    first = {path: path.stat().st_mtime_ns for path in (*pictures, out / "costs" / "costs.json")}
    shutil.rmtree(out / "runs" / "test" / "mpd-seed-1")
    assert typed("compare", file)[0] == 0
    assert {path: path.stat().st_mtime_ns for path in first} == first, "what is there is kept"
    assert "Not shown, because the run failed or its folder was deleted: MPD." in (out / "report.html").read_text()


def test_a_grid_zooms_on_what_is_in_it(tmp_path: Path) -> None:
    grid = {"data": "shown", "zoom_on": "RLW"}
    with pytest.raises(RecipeError, match=r"grid.zoom_on must be one of base, expected, LS, MPD; found 'RLW'"):
        config.build(CompareRecipe, {**VALUES, "out": str(tmp_path), "grid": grid}, origin="compare")
    cells = {"base": {}, "LS": {}}
    with pytest.raises(RecipeError, match="a cell can't be named 'base'"):
        config.build(CompareRecipe, {**VALUES, "out": str(tmp_path), "cells": cells}, origin="compare")


def test_a_grid_of_nothing_is_refused_before_anything_is_trained(tmp_path: Path, typed: Typed) -> None:
    file = tmp_path / "compare.yaml"
    grid = {**VALUES["grid"], "data": str(tmp_path / "none")}  # type: ignore[dict-item]
    file.write_text(yaml.safe_dump({**VALUES, "out": str(tmp_path / "out"), "grid": grid}))
    assert f"grid.data: {tmp_path / 'none'}: there is no such file or folder" in typed("compare", file)[2]
    assert not (tmp_path / "out").exists()


def test_costs_are_kept_as_long_as_their_settings_hold(tmp_path: Path) -> None:
    settings = CostSettings(rank=4)
    assert read_costs(settings, tmp_path) is None
    file = tmp_path / "costs.json"
    file.write_text(json.dumps({"settings": settings.model_dump(mode="json"), "measured": {}}))
    assert read_costs(settings, tmp_path) is not None
    assert read_costs(CostSettings(rank=8), tmp_path) is None
    file.write_text("[]")
    with pytest.raises(DataError, match=r"costs.json: can't be read; delete it to measure again"):
        read_costs(settings, tmp_path)


@pytest.mark.parametrize(
    ("captions", "message"),
    [(["a hat"] * 65, "a grid takes at most 64 records, found 65"), (["a hat", " "], "1 of 2 have none")],
)
def test_a_grid_has_a_prompt_a_row_and_few_rows(tmp_path: Path, captions: list[str], message: str) -> None:
    lines = []
    for number, caption in enumerate(captions):
        Image.new("RGB", (16, 16)).save(tmp_path / f"{number}.png")
        lines.append(json.dumps({"file_name": f"{number}.png", "caption": caption}))
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    records = read_source(tmp_path, (), SourceSettings(), LoadReport())
    with pytest.raises(DataError, match=message):
        _write_prompts(records, tmp_path, tmp_path / "prompts.txt")


def test_close_ups_are_placed_by_the_boxes_that_are_there(tmp_path: Path) -> None:
    write_figures(tmp_path / "data", 1, 64)
    metadata = tmp_path / "data" / "metadata.jsonl"
    row = json.loads(metadata.read_text())
    del row["hands"]
    metadata.write_text(json.dumps(row))
    (tmp_path / "drawn").mkdir()
    texts = {"prompt": row["caption"], "prompt_index": "0", "picture_index": "0"}
    save_png(Image.new("RGB", (128, 128)), tmp_path / "drawn" / "00000-00.png", texts)
    [found] = expected_boxes({"a": tmp_path / "drawn"}, tmp_path / "data")
    [face] = found["face"]
    assert [face.x0, face.y0, face.x1, face.y1] == pytest.approx([2 * end for end in row["faces"][0]])
    assert found["hand"] == []
