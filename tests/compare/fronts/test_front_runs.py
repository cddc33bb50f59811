"""Comparisons in two stages: what is trained on what, what stays untouched until the choice, and what is told."""

import json

import pytest

from fairhuman import config
from fairhuman.compare.fronts.choose import Point
from fairhuman.compare.fronts.page import write_fronts
from fairhuman.compare.fronts.run import recipe_of_points, run_fronts
from fairhuman.compare.run import missing_data, planned_runs, run_all
from fairhuman.compare.settings import CompareRecipe
from fairhuman.errors import DataError, RecipeError
from fairhuman.utils.display import Display

QUIET = Display()
RECIPES = config.SHIPPED
FRONT = {
    "families": {"fixed": ["fixed 1", "fixed 0.3"]},
    "rival": "fixed",
    "untuned": {"cell": "MPD", "learning_rate": 1e-3},
    "at_most": 5,
    "reference": 0.02,
}


def build(folder, front=FRONT, **values):
    common = {
        "out": str(folder / "out"),
        "train": {"data": "train", "steps": 10, "resolution": 64},
        "cells": {"fixed 1": {"strategy": "ls"}, "fixed 0.3": {"strategy": "si"}, "MPD": {"strategy": "mpd"}},
        "seeds": [1, 2, 3],
        "tuning": {"data": "tune", "learning_rates": [3e-4, 1e-3]},
        "test": "test",
        "people": {name: {"count": 4, "seed": seed} for seed, name in enumerate(("train", "tune", "test"), 1)},
        "front": front,
    }
    return config.build(CompareRecipe, {**common, **values}, origin="compare")


def run(recipe):
    return run_fronts(recipe, recipe.front, recipe.tuning, lambda *_: None, QUIET)


def test_a_whole_comparison_in_two_stages(tmp_path, train):
    trained, _ = train
    recipe = build(tmp_path)
    found = run(recipe)
    tuning, tested = trained[:6], trained[6:]
    assert {one.seed for one in tuning} == {0}
    assert {one.validation.data.name for one in tuning} == {"tune"}
    assert {one.validation.data.name for one in tested} == {"test"}
    assert {one.seed for one in tested} == {1, 2, 3}
    assert len(tested) == 3 * len(found.choice.why) == 12
    chosen = json.loads((tmp_path / "out" / "chosen.json").read_text())
    assert chosen["points"][0] == {"cell": "MPD", "rate": 1e-3, "why": "untuned"}
    against = found.fronts.against["equal steps"]["MPD"]
    assert against.verdict == "higher", "MPD gains three percent at no price"
    assert found.fronts.anchors[""]["regions"].verdict == "lower"
    assert found.fronts.cost.runs is None, "no fixed weighting is as good without raising the global loss"
    page = write_fronts(recipe, recipe.front, found).read_text()
    for text in ("Fronts compared with that of fixed, at equal steps: MPD: better", "fixed 0.3, 0.001", "neighbour"):
        assert text in page
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["hypervolume against rival"]["equal steps"]["MPD"]["verdict"] == "higher"
    run(recipe)
    assert len(trained) == 18, "nothing is run twice"


def test_a_cell_added_later_is_tested_beside_the_choice(tmp_path, train):
    trained, _ = train
    run(build(tmp_path))
    before = len(trained)
    cells = {**build(tmp_path).cells, "new": {"strategy": "mpd", "lora": {"rank": 2}}}
    found = run(build(tmp_path, cells=cells))
    assert len(trained) - before == 2 + 3 * sum(point.cell == "new" for point in found.choice.why)
    assert "new" in found.fronts.against["equal steps"]


def test_worlds_train_both_points_without_tuning(tmp_path, train):
    trained, broken = train
    sources = [{"path": "train", "regions": ["face"]}, {"path": "more"}]
    worlds = {"rank 2": {"train": {"lora": {"rank": 2}}}, "partly": {"train": {"data": sources}, "test": "other"}}
    people = {name: {"count": 4, "seed": s} for s, name in enumerate(("train", "tune", "test", "more", "other"), 1)}
    broken.update(f"partly-mpd-0.001-seed-{seed}" for seed in (1, 2, 3))
    recipe = build(tmp_path, {**FRONT, "worlds": worlds}, people=people)
    found = run(recipe)
    ranked = [one for one in trained if one.lora.rank == 2]
    assert {(one.strategy, one.seed) for one in ranked} >= {("mpd", 1), ("mpd", 3)}
    assert len(ranked) == 6
    partly = [one for one in trained if one.out.name.startswith("partly")]
    assert {one.validation.data.name for one in partly} == {"other"}
    assert [source.path for source in partly[0].sources] == [recipe.data("train"), recipe.data("more")]
    assert found.fronts.anchors["rank 2"]["regions"].verdict == "lower"
    assert found.fronts.anchors["partly"] == {}, "one of the two failed there"
    assert "partly-mpd-0.001-seed-1" in found.outcome.failed
    assert missing_data(recipe, planned_runs(recipe)) == []


def test_a_point_without_all_seeds_is_left_out_and_the_compared_ones_must_be_whole(tmp_path, train):
    _, broken = train
    broken.add("fixed-0.3-0.001-seed-2")
    found = run(build(tmp_path))
    assert [point.name for point in found.fronts.left_out] == ["fixed 0.3, 0.001"]
    broken.add("mpd-0.001-seed-2")
    with pytest.raises(DataError, match=r"MPD, 0.001: not all of its test runs finished"):
        run(build(tmp_path / "b"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tuning": None}, r"front chooses points on tuning data: give tuning.data"),
        ({"against": "MPD"}, r"remove tuning.same, against and grid"),
        ({"seeds": [0, 1]}, r"tuning.seed 0 must not be one of seeds"),
        ({"front": {**FRONT, "families": {"fixed": ["LS"]}}}, r"front.families must name cells, .* found 'LS'"),
        ({"front": {**FRONT, "families": {"a": ["MPD"], "b": ["MPD"]}}}, r"one family, found 'MPD' twice"),
        ({"front": {**FRONT, "rival": "LS"}}, r"front.rival must be one of the families fixed, MPD; found 'LS'"),
        ({"front": {**FRONT, "untuned": {"cell": "MPD", "learning_rate": 1.0}}}, r"found 'MPD' at 1"),
        ({"cells": {"fixed 1": {}, "fixed 0.3": {}, "MPD": {"fairness": {"length": "clip"}}}}, r"at one length"),
        ({"people": {"train": {"count": 4, "seed": 1}, "test": {"count": 4, "seed": 1}}}, r"both have the seed 1"),
    ],
)
def test_unfair_recipes_are_refused(tmp_path, values, message):
    with pytest.raises(RecipeError, match=message):
        build(tmp_path, **values)


def test_points_are_cells_with_their_learning_rate(tmp_path):
    own = recipe_of_points(build(tmp_path), [Point("MPD", 1e-3), Point("fixed 1", 3e-4)])
    assert list(own.cells) == ["MPD, 0.001", "fixed 1, 0.0003"]
    assert own.run("MPD, 0.001", 2, None, "test").learning_rate == 1e-3
    assert own.tuning is None


@pytest.mark.slow
def test_the_quick_recipe_in_truth(tmp_path):
    recipe = config.load(
        CompareRecipe, RECIPES / "evidence-quick.yaml", [f"out={tmp_path}", "seeds=[1]", "train.steps=2"]
    )
    values = recipe.model_dump()
    values["cells"] = {name: values["cells"][name] for name in ("fixed 0.15 0.1", "MPD output")}
    values["front"] |= {"families": {"fixed weights": ["fixed 0.15 0.1"]}, "worlds": {}}
    values["tuning"]["learning_rates"] = [1e-3]
    done = run_all(config.build(CompareRecipe, values), QUIET)
    assert done.failed == {}
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["points"]) == {"MPD output, 0.001", "fixed 0.15 0.1, 0.001"}
    assert results["untuned against tuned rival"][""]["hand"]["verdict"] in ("lower", "higher", "same", "undecided")
    assert "Fronts" in done.page.read_text()
