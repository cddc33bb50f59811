"""Settings without effect: refused where they are given, or dropped and named; resolved recipes aren't checked."""

from pathlib import Path

import pytest
import yaml

from fairhuman import config
from fairhuman.compare.settings import CompareRecipe
from fairhuman.errors import RecipeError
from fairhuman.train.effects import EFFECTS, conditions_of, failing
from fairhuman.train.levels import changes, void_settings
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import check_resumable, load_recipe, recipe_of_run
from fairhuman.utils.settings_reference import settings_of
from helpers.places import RECIPES

BEGUN = Path(__file__).parents[1] / "begun/training/run"
TRAIN = [path for path in sorted(RECIPES.rglob("*.yaml")) if {"data", "out", "steps"} <= config.read(path).keys()]
COMPARISON = {"data": "people", "steps": 1}


def written(folder: Path, text: str, name: str = "recipe.yaml") -> Path:
    path = folder / name
    path.write_text(f"data: people\nout: {folder / 'run'}\nsteps: 1\n{text}\n", encoding="utf-8")
    return path


def told(path: Path, *overrides: str) -> tuple[TrainRecipe, list[str]]:
    lines: list[str] = []
    return load_recipe(path, overrides, lines.append), lines


def comparison(**values: object) -> CompareRecipe:
    base = {"out": "c", "train": COMPARISON, "cells": {"LS": {"strategy": "ls"}, "MPD": {}}, "test": "others"}
    return config.build(CompareRecipe, {**base, **values}, origin="compare")


def test_the_table_names_settings() -> None:
    known = {entry.name for entry in settings_of(TrainRecipe)}
    assert EFFECTS.keys() <= known
    assert {decider for needs in EFFECTS.values() for need in needs for decider in need.deciders} <= known
    assert [str(need) for need in conditions_of("fairness.every")] == [
        "a strategy that balances gradients",
        "fairness.mode other than exact",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("strategy=mpd fairness.alpha=7", "fairness.alpha=7 has no effect with strategy=mpd; it needs strategy=alpha"),
        ("kind=full lora.rank=8", "lora.rank=8 has no effect with kind=full; it needs kind=lora"),
        ("fairness.alpha=7", "fairness.alpha=7 has no effect with strategy=mpd"),
        (
            "fairness.weights.face=0.3",
            "fairness.weights.face=0.3 has no effect with strategy=mpd; it needs strategy=ls",
        ),
        ("strategy=ls fairness.mode=exact", "it needs a strategy that balances gradients"),
        ("strategy=ls fairness.gradients=bf16", "it needs a strategy that balances gradients"),
        (
            "regions.names=[] fairness.gradients=bf16",
            r"has no effect with regions.names=.*it needs at least one region in regions.names, or objectives.bands",
        ),
        ("fairness.mode=exact fairness.every=5", "it needs fairness.mode other than exact"),
        (
            "accumulate=4 fairness.mode=split",
            "fairness.mode=split has no effect with accumulate=4; it needs accumulate=1, or mode exact or ema$",
        ),
        ("fairness.length=scalarized fairness.radius=2", "it needs fairness.length=radius or clip"),
        ("strategy=mpd fairness.measure_every=5", "it needs a strategy that weighs losses"),
        ("schedule.warmup_steps=5", "has no effect with schedule.name=constant"),
        ("optimizer.momentum=0.5", "has no effect with optimizer.name=adam; it needs optimizer.name=sgd"),
        ("regions.names=[] regions.normalize=image", "has no effect with regions.names=.*at least one region"),
        ("view.bucket_aspect=null view.bucket_step=64", "it needs view.bucket_aspect other than null"),
        ("validation.every=0 validation.count=9", "validation.count=9 has no effect with validation.every=0"),
        ("preview.count=0 preview.steps=5", r"has no effect with preview.count=0 and preview.prompts=\[\]"),
        ("lora.start=a lora.init=gaussian", "it needs lora.start=null"),
        ("kind=full full.text_encoders=true optimizer.name=sgd optimizer.betas=[0.1,0.2]", r"betas=\[0.1,0.2\] has no"),
    ],
)
def test_a_setting_without_effect_is_refused(tmp_path: Path, given: str, message: str) -> None:
    path = written(tmp_path, "")
    with pytest.raises(RecipeError, match=f"^the command line: .*{message}"):
        told(path, *given.split())
    lines = yaml.safe_dump(config.overridden({}, given.split()))
    with pytest.raises(RecipeError, match=f"recipe.yaml: .*{message}"):
        told(written(tmp_path, lines))


@pytest.mark.parametrize(
    "given",
    [
        "strategy=alpha fairness.alpha=7",
        "strategy=ls fairness.weights.face=0.3",
        "strategy=uw fairness.uw_learning_rate=0.1 fairness.measure_every=0",
        "accumulate=4 fairness.mode=ema fairness.every=4",
        "preview.count=0 preview.prompts=[one] preview.steps=5",
        "schedule.name=cosine schedule.warmup_steps=5",
        "kind=controlnet controlnet.conditions=[depth]",
    ],
)
def test_a_setting_with_an_effect_is_taken(tmp_path: Path, given: str) -> None:
    recipe, lines = told(written(tmp_path, ""), *given.split())
    assert not lines
    flat = config.flatten(config.overridden({}, given.split()))
    assert not flat.keys() & void_settings(recipe)


def test_what_a_higher_level_makes_void_is_named_and_dropped() -> None:
    recipe, lines = told(RECIPES / "lora-small.yaml", "kind=full", "strategy=ls")
    file = RECIPES / "lora-small.yaml"
    assert lines == [
        f"{file}: lora.rank=16, lora.targets=attention+conv have no effect with kind=full and are left out"
    ]
    assert recipe.lora == TrainRecipe.model_fields["lora"].default


def test_an_extended_file_is_a_lower_level(tmp_path: Path) -> None:
    base = written(tmp_path, "strategy: alpha\nfairness: {alpha: 4}", "base.yaml")
    recipe, lines = told(written(tmp_path, "extends: base.yaml\nstrategy: nash"))
    assert lines == [f"{base}: fairness.alpha=4 has no effect with strategy=nash and is left out"]
    assert recipe.fairness.alpha == 2.0
    written(tmp_path, "strategy: nash", "base.yaml")
    with pytest.raises(RecipeError, match=r"fairness.alpha=4 has no effect with strategy=nash"):
        told(written(tmp_path, "extends: base.yaml\nfairness: {alpha: 4}"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("kind=ful lora.rank=8", "kind: input should be"),
        ("kind=full lora.rnk=8", "unknown setting 'lora.rnk'; did you mean 'lora.rank'"),
        ("strategy=mdp fairness.alpha=7", "strategy: .*did you mean 'mpd'"),
        ("strategy=torchjd:FAMO", "strategy: FAMO is left out on purpose, as it needs the losses once more"),
        ("strategy=ls fairness.weights.faces=1", "^the command line: fairness.weights names 'faces', the objectives"),
        (
            "strategy=ls fairness.weights=[1,2,3]",
            r"fairness.weights: expected a weight .*, such as {global: 1, face: 0",
        ),
        ("strategy=torchjd:PCGrad", "^the command line: strategy torchjd:PCGrad draws at random"),
        ("strategy=[ls] fairness.ridge=1", "strategy: input should be a valid string"),
    ],
)
def test_other_mistakes_are_told_first(tmp_path: Path, given: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        told(written(tmp_path, ""), *given.split())


def test_a_library_user_is_warned(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="lora.rank=8 has no effect with kind=full and is left out"):
        load_recipe(written(tmp_path, "lora: {rank: 8}"), ["kind=full"])


def test_a_resolved_recipe_is_not_checked(tmp_path: Path) -> None:
    values = {"kind": "full", "data": "people", "out": str(tmp_path / "run"), "steps": 1, "lora": {"rank": 8}}
    earlier = config.build(TrainRecipe, values)
    config.save(earlier, tmp_path / "resolved.yaml")
    assert told(tmp_path / "resolved.yaml") == (earlier, [])
    assert told(tmp_path / "resolved.yaml", "kind=lora")[1] == []
    with pytest.raises(RecipeError, match=r"fairness.alpha=7 has no effect"):
        told(tmp_path / "resolved.yaml", "fairness.alpha=7")


def test_runs_of_earlier_versions_load_and_go_on(tmp_path: Path) -> None:
    """A run's own void settings stay, and count for nothing when it goes on."""
    assert told(BEGUN / "recipe.yaml")[1] == []
    values = {"data": "people", "out": str(tmp_path), "steps": 1, "strategy": "ls", "fairness": {"mode": "exact"}}
    earlier = config.build(TrainRecipe, values)
    config.save(earlier, tmp_path / "recipe.yaml")
    now = config.build(TrainRecipe, {**values, "fairness": {}})
    assert changes(earlier, now) == {}
    check_resumable(now, 1, None, 1)
    assert recipe_of_run(tmp_path) == earlier
    with pytest.raises(RecipeError, match=r"fairness.length"):
        check_resumable(config.build(TrainRecipe, {**values, "fairness": {"length": "clip"}}), 1, None, 1)


@pytest.mark.parametrize("path", TRAIN, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_no_shipped_recipe_has_a_setting_without_effect(path: Path) -> None:
    assert told(path)[1] == []


@pytest.mark.parametrize("path", sorted(RECIPES.glob("compare*.yaml")), ids=lambda path: path.stem)
def test_shipped_comparisons_share_what_some_cells_do_not_use(path: Path) -> None:
    notes = CompareRecipe.load(path).notes()
    if path.stem == "compare-replication":
        shared = "fairness.mode=exact has no effect in the cells LS, DWA, UW, RLW, SI, LS image, LS image x25"
        assert notes == [f"train: {shared} and is left out there"]
    else:
        assert notes == []


def test_levels_of_a_comparison(tmp_path: Path) -> None:
    shared = comparison(train={**COMPARISON, "fairness": {"mode": "exact"}})
    assert shared.notes() == ["train: fairness.mode=exact has no effect in cell LS and is left out there"]
    assert [shared.run(cell, 1, None, "test").fairness.mode for cell in shared.cells] == ["output", "exact"]
    with pytest.raises(RecipeError, match=r"cell 'LS': fairness.alpha=7 has no effect with strategy=ls"):
        comparison(cells={"LS": {"strategy": "ls", "fairness": {"alpha": 7}}}).notes()
    (tmp_path / "c.yaml").write_text("{out: c, train: {data: a, steps: 1}, cells: {LS: {strategy: ls}}, test: b}")
    assert CompareRecipe.load(tmp_path / "c.yaml").notes() == []
    with pytest.raises(RecipeError, match=r"fairness.alpha=7 has no effect with strategy=ls"):
        CompareRecipe.load(tmp_path / "c.yaml", ["train.fairness.alpha=7"]).notes()
    typed = CompareRecipe.load(tmp_path / "c.yaml", ["train.fairness.alpha=7", "cells.LS.strategy=alpha"])
    assert typed.run("LS", 1, None, "test").fairness.alpha == 7.0


def test_strategies_are_compared_at_one_length() -> None:
    clipped = {"strategy": "mpd", "fairness": {"length": "clip"}}
    cells = {"LS": {"strategy": "ls"}, "MPD": {"strategy": "mpd"}, "MPD clip": clipped}
    message = "'LS' has fairness.length=radius fairness.radius=1, 'MPD clip' has fairness.length=clip"
    with pytest.raises(RecipeError, match=message):
        comparison(cells=cells, against="LS")
    ablation = comparison(cells=cells, against={"LS": ["MPD"], "MPD": ["MPD clip"]})
    assert ablation.run("MPD clip", 1, None, "test").fairness.length == "clip"
    both = comparison(train={**COMPARISON, "fairness": {"length": "clip"}}, against="LS")
    assert {both.run(cell, 1, None, "test").fairness.length for cell in both.cells} == {"clip"}


def test_the_reference_names_what_a_setting_needs() -> None:
    entries = {entry.name: entry for entry in settings_of(TrainRecipe)}
    assert entries["lora"].effect == "kind=lora"
    assert entries["fairness.alpha"].effect == "strategy=alpha"
    assert (entries["lora.rank"].effect, entries["steps"].effect) == ("", "")
    assert failing("lora.rank", {"kind": "full"})
