"""`fairhuman grid` with models that draw, close-ups where they are expected, rows picked by hand."""

from collections.abc import Callable, Sequence
from pathlib import Path
from signal import SIGTERM

import pytest
from PIL import Image

from fairhuman import config
from fairhuman.compare import drawing, jobs, pictures
from fairhuman.compare.drawing import GridInputs, draw_models, make_grid
from fairhuman.compare.jobs import Command
from fairhuman.compare.runs import ComparisonRuns
from fairhuman.compare.settings import CompareRecipe, DrawSettings
from fairhuman.errors import DataError, RecipeError
from fairhuman.models.mole import MoleModel
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import MoleSettings
from fairhuman.models.spec import ModelSpec
from fairhuman.utils.display import Display
from fairhuman.utils.files import digest
from helpers import warm
from helpers.figures import write_figures

Typed = Callable[..., tuple[int, str, str]]
GRID_OF_0_1 = "164a25e06f53"  # digest of the settings before they had a batch size
SHORT = ("resolution=32", "steps=1", "guidance=1")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two prompts and two people of theirs."""
    monkeypatch.setattr(jobs, "subprocess", warm)
    write_figures(tmp_path / "people", 2, 64, seed=2)
    (tmp_path / "prompts.txt").write_text("a hat\n\na red shirt\n", encoding="utf-8")
    return tmp_path


def test_models_draw_the_same_prompts_once_and_stand_beside_folders(place: Path, typed: Typed) -> None:
    MoleModel(load_pipeline("small-untrained"), MoleSettings(stage="face", rank=2), seed=0).save(place / "mole")
    models = ("--method", "base=small-untrained", "--method", f"MoLE=small-untrained+{place / 'mole'}")
    common = ("--prompts", place / "prompts.txt", *SHORT)
    code, said, errors = typed("grid", place / "grid", *models, *common)
    assert code == 0, said + errors
    pictures = sorted((place / "grid" / "samples").rglob("*.png"))
    assert [path.name for path in pictures] == ["00000-00.png", "00001-00.png"] * 2
    with Image.open(pictures[2]) as picture:
        texts = picture.text  # type: ignore[attr-defined]
    assert (texts["prompt"], texts["steps"], "mole" in texts) == ("a hat", "1", True)
    page = (place / "grid" / "grid.html").read_text()
    assert all(f'alt="{name}: a red shirt"' in page for name in ("base", "MoLE"))
    assert "Same seed for base, MoLE: 0." in page
    first = {path: path.stat().st_mtime_ns for path in pictures}
    expected = ("--zoom-on", "expected", "--data", place / "people", "--row", 1)
    code, said, errors = typed(
        "grid", place / "grid", *models, "--method", f"old={pictures[0].parent}", *common, *expected
    )
    assert code == 0, said + errors
    assert {path: path.stat().st_mtime_ns for path in sorted((place / "grid").rglob("0*.png"))} == first, "kept"
    page = (place / "grid" / "grid.html").read_text()
    assert "Rows 1 of 2 (the first is 0), picked by hand." in page
    assert 'alt="old: face"' in page, "a close-up where the box is"
    assert "of the expected boxes" in page


def test_pictures_of_replaced_weights_are_drawn_again(place: Path, typed: Typed) -> None:
    def drawn(seed: int) -> list[bytes]:
        MoleModel(load_pipeline("small-untrained"), MoleSettings(stage="face", rank=2), seed=seed).save(place / "mole")
        method = ("--method", f"MoLE=small-untrained+{place / 'mole'}")
        code, said, errors = typed("grid", place / "grid", *method, "--prompts", place / "prompts.txt", *SHORT)
        assert code == 0, said + errors
        return [path.read_bytes() for path in sorted((place / "grid" / "samples").rglob("*.png"))]

    first, second = drawn(0), drawn(1)
    assert len(first) == len(second) == 2
    assert not set(first) & set(second)
    assert drawn(1) == second


def test_pictures_of_earlier_grids_are_found_with_any_batch_size(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[Command] = []
    monkeypatch.setattr(drawing, "run_jobs", lambda given, *_: commands.extend(given) or SIGTERM)
    monkeypatch.setattr(pictures, "run_jobs", lambda given, *_: commands.extend(given) or SIGTERM)
    models = {"base": ModelSpec.parse("small")}
    draw_models(models, ["a hat"], DrawSettings(), place / "grid", Display())
    draw_models(models, ["a hat"], DrawSettings(batch_size=1), place / "grid", Display())
    data = str(place / "people")
    for more in ({}, {"batch_size": 1}):
        values = {"out": str(place / "out"), "train": {"steps": 1, "data": data}, "cells": {"LS": {}}, "test": data}
        recipe = config.build(CompareRecipe, values | {"grid": {"data": data} | more}, origin="compare")
        pictures.draw_grid(recipe, recipe.grid, ComparisonRuns(picked={"LS": None}), Display())
    assert [one.arguments[one.arguments.index("--batch-size") + 1] for one in commands] == ["4", "1", "4", "1"]
    earlier = f'{{"data":"{data}","steps":30,"guidance":null,"seed":0,"zoom_on":null}}{data}'
    folders = [Path(one.arguments[1]).parent.name for one in commands]
    assert folders == [GRID_OF_0_1] * 2 + [digest(earlier)[:12]] * 2


def test_of_many_prompts_some_are_shown(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing, "run_jobs", lambda *_: SIGTERM)
    (place / "prompts.txt").write_text("\n".join(f"person {number}" for number in range(65)))

    def drawn(rows: Sequence[int] | None = None, count: int | None = None) -> Path | int:
        inputs = GridInputs({"base": "small"}, place / "prompts.txt", rows=rows, count=count)
        return make_grid(inputs, DrawSettings(), place / "grid", Display())

    with pytest.raises(DataError, match="at most 64 rows, found 65 prompts; choose some with --count or --row"):
        drawn()
    with pytest.raises(RecipeError, match=r"rows must be different numbers from 0 to 64, at least one, found \[65\]"):
        drawn(rows=[65])
    assert (drawn(count=2), drawn(rows=[64])) == (SIGTERM, SIGTERM), "drawing began"


def test_what_does_not_go_together_is_said_before_anything_is_drawn(place: Path, typed: Typed) -> None:
    def wrong(*options: object) -> str:
        code, _, errors = typed("grid", place / "grid", *options)
        assert code != 0
        return errors

    model, prompts = ("--method", "base=small"), ("--prompts", place / "prompts.txt")
    folder = ("--method", f"people={place / 'people'}")
    assert "found none at small; a model needs --prompts FILE" in wrong(*model)
    assert "none is a model that could sample" in wrong(*folder, *prompts)
    assert "expected 'small'" in wrong("--method", "base=smal", *prompts)
    assert "LoRA" in wrong("--method", f"base=small+{place / 'none'}", *prompts)
    assert "--zoom-on expected and --data go together" in wrong(*folder, "--zoom-on", "expected")
    assert "--zoom-on expected and --data go together" in wrong(*folder, "--data", place / "people")
    assert "--zoom-on must be expected or one of people, found 'other'" in wrong(*folder, "--zoom-on", "other")
    assert "none: there is no such file" in wrong(*folder, "--zoom-on", "expected", "--data", place / "none")
    assert "unknown setting 'step'" in wrong(*model, *prompts, "step=3")
    assert "rows and count both choose rows" in wrong(
        "--method", f"people={place / 'people' / 'images'}", "--row", 1, "--count", 1
    )
    assert not (place / "grid").exists()
