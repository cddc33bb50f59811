"""The commands that measure and compare, as a user types them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman.cli.options import named_places
from fairhuman.errors import RecipeError
from fairhuman.evaluate.metrics.held_out_losses import ModelSpec
from fairhuman.models.mole import MoleModel
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import MoleSettings
from helpers.figures import write_figures
from helpers.places import RECIPES
from helpers.tiny_pictures import noise

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Folders `a` and `b` of three pictures each, and a file of three prompts."""
    for name, spread in (("a", 40), ("b", 80)):
        (tmp_path / name).mkdir()
        for number in range(3):
            noise(64, 48, spread, seed=spread + number).convert("RGB").save(tmp_path / name / f"{number}.png")
    (tmp_path / "prompts.txt").write_text("one\ntwo\nthree\n")
    return tmp_path


def test_pictures_are_measured_against_each_other(pictures: Path, typed: Typed) -> None:
    common = ("--prompts", pictures / "prompts.txt", "--reference", pictures / "a", "--cache", pictures / "cache")
    code, said, _ = typed(
        "evaluate", pictures / "a", "--method", f"B={pictures / 'b'}", *common, "metrics=[efficientnet]"
    )
    assert code == 0
    assert f"report: {pictures / 'a-evaluation' / 'report.html'}" in said
    found = json.loads((pictures / "a-evaluation" / "metrics.json").read_text())
    assert [(one["method"], one["value"] > 0.1) for one in found["metrics"]] == [("a", False), ("B", True)]
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    shown = {row[0]: row[1:] for row in cells if len(row) == 3}
    assert {method: name for method, (name, _) in shown.items()} == {
        one["method"]: one["name"] for one in found["metrics"]
    }
    assert shown["a"][1] == "0", "the same pictures as the reference: a distance without an interval"
    assert re.fullmatch(r"\d+ \[\d+, \d+\]", shown["B"][1]), "no digit beyond its interval"
    assert "B against a: whole picture" in said
    code, said, _ = typed("evaluate", pictures / "c", *common, "--dry-run", "metrics=[fid]")
    assert code == 0
    assert "- fid" in said
    assert f"prompts: {pictures / 'prompts.txt'}, 3 of them" in said
    assert f"reference: {pictures / 'a'}, read as folder" in said
    assert f"c: {pictures / 'c'}, doesn't exist yet" in said


@pytest.mark.parametrize("option", ["--prompts", "--reference"])
def test_a_dry_run_looks_for_prompts_and_reference(pictures: Path, typed: Typed, option: str) -> None:
    code, said, errors = typed("evaluate", pictures / "a", option, pictures / "none", "--dry-run")
    assert (code, "would write" in said) == (1, False)
    assert f"{pictures / 'none'}: " in errors


def test_bad_input_is_named(pictures: Path, typed: Typed) -> None:
    assert "metrics" in typed("evaluate", pictures / "a", "metrics=[fidd]")[2]
    code, _, errors = typed("evaluate", f"a={pictures / 'a'}", f"b={pictures / 'b'}")
    assert code == 2
    assert f"unknown setting 'b'; another folder to compare is --method b={pictures / 'b'}" in errors
    assert "unknown setting 'b'; known are metrics" in typed("evaluate", pictures / "a", "b=3")[2]
    assert "there is no such file or folder" in typed("evaluate", pictures / "c", "--cache", pictures / "cache")[2]
    assert "two are named 'a'" in typed("grid", pictures / "out", *["--method", pictures / "a"] * 2)[2]
    assert "no method: give --method" in typed("grid", pictures / "out")[2]
    assert "no model: give --model" in typed("losses", pictures / "a")[2]
    assert "no such recipe" in typed("compare", pictures / "none.yaml")[2]


def test_what_is_left_out_and_why_is_said(pictures: Path, typed: Typed) -> None:
    (pictures / "a" / "3.png").write_bytes(b"not a picture")
    code, said, _ = typed("evaluate", pictures / "a", "--cache", pictures / "cache", "metrics=[fid]")
    assert code == 0
    assert "a: skipped: not a picture (1)" in said
    assert "no FID and KID: they need a --reference" in said


def test_a_grid_of_two_methods(pictures: Path, typed: Typed) -> None:
    methods = ("--method", pictures / "a", "--method", f"other={pictures / 'b'}")
    code, said, _ = typed("grid", pictures / "grid", *methods, "--count", 2)
    assert code == 0
    assert f"grid: {pictures / 'grid' / 'grid.html'}" in said
    assert (pictures / "grid" / "grid.png").is_file()


def test_losses_of_the_small_model(tmp_path: Path, typed: Typed) -> None:
    write_figures(tmp_path / "people", 2, 64, seed=2)
    options = ("resolution=64", "timesteps=[0.2,0.8]", "--out", tmp_path / "losses.json")
    code, said, errors = typed(
        "losses", tmp_path / "people", "--model", "base=small", "--model", "same=small", *options
    )
    assert code == 0, errors
    assert "change against base" in said
    assert "p, corrected" in said
    found = json.loads((tmp_path / "losses.json").read_text())
    lines = {(one["model"], one["objective"]): one for one in found["losses"]}
    assert lines["same", "global"]["change"]["value"] == 0.0, "the same model on the same noise"
    assert (lines["same", "global"]["p"], lines["same", "global"]["p_holm"]) == (1.0, 1.0)
    assert lines["base", "global"]["p"] is lines["base", "global"]["change"] is None
    assert lines["base", "global"]["loss"]["standard_error"] > 0
    assert lines["base", "global"]["loss"]["value"] == lines["same", "global"]["loss"]["value"] > 0
    assert len(found["samples"]["base"]["keys"]) == 2
    assert (
        "resolution must be a multiple of 16"
        in typed("losses", tmp_path / "people", "--model", "small", "resolution=72")[2]
    )


def test_losses_of_a_mole(tmp_path: Path, typed: Typed) -> None:
    write_figures(tmp_path / "people", 2, 64, seed=2)
    model = MoleModel(load_pipeline("small"), MoleSettings(stage="face", rank=2), seed=0)
    model.save(tmp_path / "new")
    for parameter in model.trainable_parameters():
        parameter.data += 0.05
    model.save(tmp_path / "trained")
    models = [f"{name}=small+{tmp_path / name}" for name in ("new", "trained")]
    options = ["resolution=64", "timesteps=[0.4]", "--out", tmp_path / "losses.json", "--model", "base=small"]
    code, _, errors = typed("losses", tmp_path / "people", *options, "--model", models[0], "--model", models[1])
    assert code == 0, errors
    found = json.loads((tmp_path / "losses.json").read_text())["losses"]
    changes = {one["model"]: one["change"]["value"] for one in found if one["objective"] == "global" and one["change"]}
    assert changes["new"] == 0.0
    assert abs(changes["trained"]) > 1e-3
    code, _, errors = typed("losses", tmp_path / "people", *options, "--model", f"{models[0]}@0.5")
    assert (code, "a MoLE takes no weight" in errors) == (2, True), errors


def test_models_are_named_with_their_lora(tmp_path: Path) -> None:
    assert ModelSpec.parse("small") == ModelSpec("small", None, 1.0)
    assert ModelSpec.parse("owner/name+runs/a/lora@0.3") == ModelSpec("owner/name", Path("runs/a/lora"), 0.3)
    (tmp_path / "photos+more").mkdir()
    model = str(tmp_path / "photos+more/model.safetensors")
    Path(model).touch()
    assert ModelSpec.parse(model) == ModelSpec(model)
    assert ModelSpec.parse(f"{model}+a+b/lora@0.3") == ModelSpec(model, Path("a+b/lora"), 0.3)
    for text in ("", "small+", "small+@0.3", "small+a@b"):
        with pytest.raises(RecipeError, match="expected MODEL"):
            ModelSpec.parse(text)


def test_places_have_one_name_each() -> None:
    assert named_places(["x/a", "B=x/b", "C=m+l@0.3"]) == {"a": "x/a", "B": "x/b", "C": "m+l@0.3"}
    for text in ("=x", "a=", ""):
        with pytest.raises(RecipeError, match="expected FOLDER or NAME=FOLDER"):
            named_places([text])


def test_costs_and_the_paper_sheet(tmp_path: Path, typed: Typed) -> None:
    shape = ("model=small-untrained", "size=64", "steps=1", "repeats=1", "rank=2")
    assert typed("cost", tmp_path / "costs", *shape, "--dry-run")[:1] == (0,)
    assert not (tmp_path / "costs").exists()
    code, said, _ = typed("cost", tmp_path / "costs", *shape)
    assert code == 0
    assert f"report: {tmp_path / 'costs' / 'report.html'}" in said
    costs = ("--costs", tmp_path / "costs" / "costs.json")
    words = [f"costs.{name}=small" for name in ("model", "data", "scale", "metrics")]
    code, said, _ = typed("paper", tmp_path / "paper", *costs, *words)
    assert code == 0
    assert f"paper sheet: {tmp_path / 'paper' / 'paper.html'}" in said
    code, _, errors = typed("paper", tmp_path / "other", *costs)
    assert code == 2
    assert "describe the set-up of these numbers" in errors
    code, _, errors = typed("paper", tmp_path / "other")
    assert (code, "no results given" in errors, (tmp_path / "other").exists()) == (2, True, False)
    code, _, errors = typed("cost", tmp_path / "costs", "rank=0")
    assert code == 2
    assert "rank" in errors


def test_a_dry_run_of_a_comparison_says_which_data_are_missing(tmp_path: Path, typed: Typed) -> None:
    (tmp_path / "there").mkdir()
    recipe = tmp_path / "compare.yaml"
    recipe.write_text(
        f"out: {tmp_path / 'out'}\n"
        f"train: {{data: {tmp_path / 'none'}, steps: 1}}\n"
        f"cells: {{LS: {{}}, there: {{data: {tmp_path / 'there'}}}, "
        "made: {data: people, base: {quantize: int8}}}\n"
        "people: {people: {count: 2, seed: 1}}\n"
        f"tuning: {{data: {tmp_path / 'tuning'}, learning_rates: [1.0e-3]}}\n"
        f"test: {tmp_path / 'test'}\n"
        f"grid: {{data: {tmp_path / 'test'}}}\n"
    )
    code, said, _ = typed("compare", recipe, "--dry-run")
    assert code == 1
    told = [line for line in said.splitlines() if line.endswith("doesn't exist yet")]
    assert told == [f"missing data: {tmp_path / name}: doesn't exist yet" for name in ("none", "test", "tuning")]
    assert said.count("ok      model: small, which ships with fairhuman") == 1
    for name in ("none", "there", "test", "tuning"):
        (tmp_path / name).mkdir(exist_ok=True)
    code, said, _ = typed("compare", recipe, "--dry-run")
    assert (code, f"missing data: no picture in {tmp_path / 'there'}" in said) == (1, True)
    for number, name in enumerate(("none", "there", "test", "tuning")):
        write_figures(tmp_path / name, 2, 64, seed=number)
    code, said, _ = typed("compare", recipe, "--dry-run")
    assert code == 0, said
    assert f"ok      data: {tmp_path / 'there'}: 2 pictures to train on, 2 held out" in said
    assert "pictures: 8\n" in said  # 2 prompts, the base and three cells
    assert "hours on one CPU core: training" in said
    assert "disk: about" in said


COMPARISONS = [
    pytest.param(path, id=path.name, marks=[pytest.mark.slow] if path.name == "compare-sdxl.yaml" else [])
    for path in sorted(RECIPES.glob("compare*.yaml"))  # that of SDXL's size computes its memory first
]


@pytest.mark.parametrize("recipe", COMPARISONS)
def test_dry_runs_of_the_comparisons_of_the_repository(
    recipe: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    full_size = recipe.name == "compare-sdxl.yaml"
    code, said, errors = typed("compare", recipe, "--dry-run")
    assert code == full_size, errors
    assert "to find learning rates" in said
    assert ("missing data: people-test: doesn't exist yet" in said) == full_size
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "runs"), [("quick", "8 runs"), ("small", "155 runs")])
def test_dry_runs_of_the_evidence_tell_runs_and_hours(
    name: str, runs: str, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, said, errors = typed("compare", RECIPES / f"evidence-{name}.yaml", "--dry-run")
    assert code == 0, errors
    assert f"{runs} on tuning data, at most" in said
    assert "2 at once, each on one CPU core (estimated)" in said
    assert not list(tmp_path.iterdir())
