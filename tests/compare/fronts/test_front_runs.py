"""Comparisons in two stages: what is trained on what, what stays untouched until the choice, and what is told."""

import json
import shutil

import pytest

from fairhuman import config
from fairhuman.compare.fronts import samples
from fairhuman.compare.fronts.analysis import joint_level, numbers_judged
from fairhuman.compare.fronts.page import write_fronts
from fairhuman.compare.fronts.run import recipe_of_points, run_fronts
from fairhuman.compare.fronts.settings import Point
from fairhuman.compare.losses import store_losses
from fairhuman.compare.run import missing_data, planned_runs, run_all
from fairhuman.compare.runs import cost, exact_steps, spent
from fairhuman.compare.settings import CompareRecipe
from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.train.recipe import TrainRecipe
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


def run(recipe, so_far=lambda _: None):
    return run_fronts(recipe, recipe.front, recipe.tuning, lambda *_: None, QUIET, so_far)


def test_a_whole_comparison_in_two_stages(tmp_path, train):
    trained, _ = train
    recipe = build(tmp_path)
    found = run(recipe)
    tuning, tested = trained[:6], trained[6:]
    assert {one.seed for one in tuning} == {0}
    assert {one.validation.data.name for one in tuning} == {"tune"}
    assert {one.validation.data.name for one in tested} == {"test"}
    assert {one.seed for one in tested} == {1, 2, 3}
    assert len(tested) == 3 * len(found.choice.why) == 15
    chosen = json.loads((tmp_path / "out" / "chosen.json").read_text())
    assert chosen["points"][0] == {"cell": "MPD", "rate": 1e-3, "why": "untuned"}
    against = found.fronts.judged["equal steps", "MPD"]
    assert against.verdict == "higher", "MPD gains three percent at no price"
    assert against.joint.low < against.estimate.low
    assert found.fronts.judged["", "regions"].verdict == "lower"
    searches = found.fronts.cost.searches
    assert [len(one.best_n) for one in searches.values()] == [2, 4, 2]
    assert searches["fixed, all learning rates"].runs == (None, None, None), "none is as good and as cheap"
    assert searches["MPD, all learning rates"].runs[0] is None, "its other learning rate is worse"
    page = write_fronts(recipe, recipe.front, found).read_text()
    for text in (
        "Fronts compared with that of fixed, at equal steps: MPD: better",
        "fixed 0.3, 0.001",
        "hypervolume of fixed at equal",
    ):
        assert text in page
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    judged = {tuple(one["of"]): one["verdict"] for one in results["judged"]}
    assert judged["equal steps", "MPD"] == "higher"
    assert results["draws left out"] == 0.0
    run(recipe)
    assert len(trained) == 21, "nothing is run twice"


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
    assert found.fronts.judged["rank 2", "regions"].verdict == "lower"
    effect = found.fronts.points[found.choice.rival]["regions"].value  # the same there: seeds alone decide
    assert found.fronts.judged["rank 2", "regions"].margin == pytest.approx(0.1 * abs(effect), rel=0.01)
    assert found.fronts.beside["partly"] == {}, "one of the two failed there"
    assert ("partly", "regions") not in found.fronts.judged
    assert "partly-mpd-0.001-seed-1" in found.outcome.failed
    assert missing_data(recipe, planned_runs(recipe)) == []


def test_what_the_test_found_is_written_before_the_other_worlds(tmp_path, train):
    trained, _ = train
    worlds = {"rank 2": {"train": {"lora": {"rank": 2}}}, "rank 3": {"train": {"lora": {"rank": 3}}}}
    predicted = [{"world": world, "verdict": "worse"} for world in ("", "rank 2")]
    recipe = build(tmp_path, {**FRONT, "worlds": worlds, "samples": {"data": "test"}, "predictions": predicted})
    early = []

    def so_far(found):
        early.append((found.to_come, len(trained)))
        early.append(found.fronts.judged["", "regions"])
        page = write_fronts(recipe, recipe.front, found).read_text()
        assert "rank 3 and pictures" in page
        assert json.loads((tmp_path / "out" / "results.json").read_text())["to come"][-1] == "pictures"

    found = run(recipe, so_far)
    (to_come, done), judged = early
    assert to_come == ["rank 2", "rank 3", "pictures"]
    assert not any(one.lora.rank in (2, 3) for one in trained[:done])
    assert not found.to_come
    assert found.fronts.judged["", "regions"] == judged, "a world that joins changes nothing of it"
    early.clear()
    next((tmp_path / "out" / "losses" / "test").glob("rank-3*")).unlink()
    run(recipe, so_far)
    assert early[0][0] == ["rank 3", "pictures"]
    early.clear()
    run(recipe, so_far)
    assert early == [], "all worlds are there"


def test_a_point_without_all_seeds_is_left_out_and_the_compared_ones_must_be_whole(tmp_path, train):
    _, broken = train
    broken.add("fixed-0.3-0.001-seed-2")
    found = run(build(tmp_path))
    assert [point.name for point in found.fronts.left_out] == ["fixed 0.3, 0.001"]
    assert ("equal steps", "MPD") not in found.fronts.judged, "three points aren't the four that were chosen"
    assert ("", "regions") in found.fronts.judged
    broken.add("mpd-0.001-seed-2")
    with pytest.raises(DataError, match=r"MPD, 0.001: not all of its test runs finished"):
        run(build(tmp_path / "b"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"tuning": None}, r"front chooses points on tuning data: give tuning.data"),
        ({"against": "MPD"}, r"remove tuning.same, against, grid"),
        ({"seeds": [0, 1]}, r"tuning.seed 0 must not be one of seeds"),
        ({"front": {**FRONT, "families": {"fixed": ["LS"]}}}, r"front.families must name cells, .* found 'LS'"),
        ({"front": {**FRONT, "families": {"a": ["MPD"], "b": ["MPD"]}}}, r"one family, found 'MPD' twice"),
        ({"front": {**FRONT, "rival": "LS"}}, r"front.rival must be one of the families fixed, MPD; found 'LS'"),
        ({"front": {**FRONT, "untuned": {"cell": "MPD", "learning_rate": 1.0}}}, r"one of .*0.0003, 0.001; found 1"),
        (
            {"front": {**FRONT, "untuned": {"cell": "A", "learning_rate": 1e-3}}},
            r"untuned.cell must be one of .* found 'A'",
        ),
        ({"test": "train"}, r"training data 'train' and test 'train' overlap"),
        (
            {"tuning": {"data": "train", "learning_rates": [1e-3]}},
            r"training data 'train' and tuning.data 'train' overlap",
        ),
        (
            {"front": {**FRONT, "worlds": {"a": {"test": "tune"}}}},
            r"tuning.data 'tune' and front.worlds.a.test 'tune' ov",
        ),
        (
            {"front": {**FRONT, "worlds": {"a": {"train": {"data": "test"}}}}},
            r"training data 'test' and test 'test' ov",
        ),
        ({"train": {"data": "a/b", "steps": 10}, "test": "a"}, r"training data 'a/b' and test 'a' overlap"),
        (
            {"front": {**FRONT, "samples": {"data": "tune"}}},
            r"tuning.data 'tune' and front.samples.data 'tune' overlap",
        ),
        (
            {"front": {**FRONT, "families": {"MPD": ["fixed 1"], "fixed": ["fixed 0.3"]}}},
            r"'MPD' is a cell that isn't in",
        ),
        (
            {"cells": {"fixed 1": {}, "fixed 0.3": {}, "MPD": {}, "x" * 55: {}}},
            r"cells: points are named .* 63 characters",
        ),
        ({"margin": 0.02}, r"front tests points, .* own: remove tuning.same, against, grid, margin and glo"),
        ({"front": {**FRONT, "worlds": {"photos (CC)": {}}}}, r"front.worlds: points are named after world, cell and"),
        ({"front": {**FRONT, "worlds": {"Rank 2": {}, "rank-2": {}}}}, r"'Rank 2, .*' and 'rank-2, .*'"),
        ({"front": {**FRONT, "predictions": [{"family": "MPD", "verdict": "same"}]}}, r"'MPD' has 1, 'fixed' 2"),
        (
            {"front": {**FRONT, "predictions": [{"world": "x", "verdict": "same"}]}},
            r"world must be one of .* found 'x'",
        ),
        (
            {"front": {**FRONT, "predictions": [{"loss": "global", "verdict": "same"}]}},
            r"loss must be a region or regions",
        ),
        ({"cells": {"fixed 1": {}, "fixed 0.3": {}, "MPD": {"fairness": {"length": "clip"}}}}, r"at one length"),
        ({"people": {"train": {"count": 4, "seed": 1}, "test": {"count": 4, "seed": 1}}}, r"both have the seed 1"),
    ],
)
def test_unfair_recipes_are_refused(tmp_path, values, message):
    with pytest.raises(RecipeError, match=message):
        build(tmp_path, **values)


def test_a_cell_is_steered_by_people_of_its_own(tmp_path):
    def steered(data):
        steer = {"at_most": 0.001, **({"data": data} if data else {})}
        cells = {"fixed 1": {"strategy": "ls"}, "fixed 0.3": {"strategy": "si"}, "MPD": {"strategy": "mpd"}}
        people = {name: {"count": 4, "seed": seed} for seed, name in enumerate(("train", "tune", "test", "own"), 1)}
        return build(tmp_path, cells={**cells, "steered": {"steer": steer}}, people=people)

    recipe = steered("own")
    assert recipe.run("steered", 1, 1e-3, "test").steer.data == recipe.data("own")
    assert recipe.run("MPD", 1, 1e-3, "test").steer.data is None
    assert not missing_data(recipe, planned_runs(recipe))
    with pytest.raises(RecipeError, match=r"cell 'steered': steer.data must be a data set of its own.*; found null"):
        steered(None).run("steered", 1, 1e-3, "test")
    for data, role in (("train", "training data"), ("tune", "tuning.data"), ("test", "test")):
        with pytest.raises(RecipeError, match=rf"{role} '{data}' and steer.data '{data}' overlap"):
            steered(data)
    missing = steered("elsewhere")
    assert [path.name for path in missing_data(missing, planned_runs(missing))] == ["elsewhere"]


def test_predictions_name_what_is_judged_and_are_told_as_hit_or_miss(tmp_path, train):
    worlds = {"rank 2": {"train": {"lora": {"rank": 2}}}}
    predictions = [{"loss": "face", "verdict": "better"}, {"world": "rank 2", "verdict": "same"}]
    recipe = build(tmp_path, {**FRONT, "worlds": worlds, "predictions": predictions})
    found = run(recipe)
    assert list(found.fronts.judged) == [("", "face"), ("rank 2", "regions")], "these alone"
    assert [came for _, came in found.fronts.predictions] == ["confirmed", "refuted"]
    page = write_fronts(recipe, recipe.front, found).read_text()
    for text in ("<td>confirmed</td>", "<td>refuted</td>", "not judged"):
        assert text in page


def test_a_world_overrules_cells_and_must_change_something(tmp_path):
    worlds = {"rank 2": {"train": {"lora": {"rank": 2}}}, "image": {"train": {"regions": {"normalize": "image"}}}}
    cells = {"fixed 1": {"strategy": "ls", "lora": {"rank": 4}}, "fixed 0.3": {"strategy": "si"}}
    cells["MPD"] = {"strategy": "mpd", "regions": {"normalize": "image"}}
    recipe = build(tmp_path, {**FRONT, "worlds": worlds}, cells=cells)
    there = recipe_of_points(recipe, [Point("fixed 1", 1e-3)], "rank 2")
    assert there.run("rank 2, fixed 1, 0.001", 1, None, "test").lora.rank == 2
    with pytest.raises(
        RecipeError, match=r"front.worlds.image: MPD, 0.001 is trained and measured there exactly as in"
    ):
        recipe_of_points(recipe, [Point("MPD", 1e-3)], "image")


def with_image(folder, rival, untuned):
    """A comparison in whose world losses are normalised by image, as they are for one of both points already."""
    image = {"regions": {"normalize": "image"}}
    cells = {name: {"strategy": "si", **(image if rival else {})} for name in ("fixed 1", "fixed 0.3")}
    cells["MPD"] = {"strategy": "mpd", **(image if untuned else {})}
    predictions = [{"world": "image", "verdict": "moved along the front"}, {"verdict": ["same", "better"]}]
    return build(folder, {**FRONT, "worlds": {"image": {"train": image}}, "predictions": predictions}, cells=cells)


def test_a_world_that_leaves_the_untuned_point_as_it_is_is_told_before_the_test(tmp_path, train):
    trained, _ = train
    with pytest.raises(RecipeError, match=r"front.worlds.image: MPD.* is trained and measured there exactly as in"):
        run(with_image(tmp_path, rival=False, untuned=True))
    assert {one.validation.data.name for one in trained} == {"tune"}


def test_a_world_that_leaves_the_rival_as_the_search_found_it_is_left_out(tmp_path, train):
    trained, _ = train
    recipe = with_image(tmp_path, rival=True, untuned=False)
    found = run(recipe)
    assert found.unchanged == {"image": [found.choice.rival]}
    assert not found.outcome.failed
    assert not any(one.out.name.startswith("image") for one in trained), "one point alone says nothing"
    assert [came for _, came in found.fronts.predictions] == ["open", "confirmed"]
    assert f"left out: the world changes nothing for {found.choice.rival.name}" in text_of(recipe, found)


def text_of(recipe, found):
    """The page, without the places where words may break."""
    return write_fronts(recipe, recipe.front, found).read_text().replace("<wbr>", "")


def test_further_points_are_tested_and_trained_in_every_world_without_a_verdict(tmp_path, train):
    trained, _ = train
    worlds = {"rank 2": {"train": {"lora": {"rank": 2}}}, "image": {"train": {"regions": {"normalize": "image"}}}}
    cells = {"fixed 1": {"strategy": "ls"}, "fixed 0.3": {"strategy": "si", "regions": {"normalize": "image"}}}
    cells["MPD"] = {"strategy": "mpd"}
    also = [{"cell": "fixed 1", "learning_rate": 3e-4}]
    before = run(build(tmp_path, {**FRONT, "worlds": worlds, "at_most": 3}, cells=cells))
    recipe = build(tmp_path, {**FRONT, "worlds": worlds, "at_most": 3, "also": also}, cells=cells)
    trained.clear()
    found = run(recipe)
    point = Point("fixed 1", 3e-4)
    assert {one.out.name.partition("-seed")[0] for one in trained} == {
        "fixed-1-0.0003", "rank-2-fixed-1-0.0003", "image-fixed-1-0.0003", "image-mpd-0.001"
    }, "the choice stands, and what is there isn't trained again"  # fmt: skip
    assert found.choice.rival.cell == "fixed 0.3"
    assert found.fronts.judged == before.fronts.judged
    assert list(found.fronts.also[point]) == ["", "rank 2", "image"]
    assert found.fronts.also[point]["image"]["regions"].value < 0
    assert found.fronts.beside["image"] == {}
    assert list(found.fronts.elsewhere) == ["rank 2", "image"]
    there = {one.cell: changes["face"].value for one, changes in found.fronts.elsewhere["rank 2"].items()}
    assert set(there) == {"MPD", "fixed 0.3", "fixed 1"}
    assert there["MPD"] - there["fixed 1"] == pytest.approx(found.fronts.also[point]["rank 2"]["face"].value)
    assert "Changes in the other worlds" in text_of(recipe, found)
    assert set(found.costs) == set(found.fronts.points) >= {point}
    assert found.costs[point] == 1
    assert "Minus fixed 1, 0.0003, not judged" in text_of(recipe, found)


def test_a_test_run_that_has_begun_locks_the_choice(tmp_path, train):
    run(build(tmp_path))
    (tmp_path / "out" / "chosen.json").unlink()
    shutil.rmtree(tmp_path / "out" / "losses" / "test")
    with pytest.raises(DataError, match=r"chosen.json: "):
        run(build(tmp_path))


def test_a_run_costs_the_exact_steps_that_it_took(tmp_path, train):
    cells = {
        "fixed 1": {"strategy": "ls"},
        "fixed 0.3": {"strategy": "si"},
        "MPD": {"strategy": "mpd", "fairness": {"mode": "exact"}},
        "output": {"strategy": "mpd", "fairness": {"mode": "output"}, "steps": 130},
        "pairwise": {
            "strategy": "mpd",
            "fairness": {"mode": "exact", "pairwise": True},
            "gradient_checkpointing": True,
        },
    }
    recipe = build(tmp_path, cells=cells)
    runs = {cell: recipe.run(cell, 1, 1e-3, "tuning") for cell in cells}
    assert {cell: cost(one, exact_steps(one)) for cell, one in runs.items()} == pytest.approx(
        {"fixed 1": 10, "fixed 0.3": 10, "MPD": 20, "output": 150, "pairwise": 10 * 11 / 3}
    )
    run(recipe)
    one = recipe.run("output", 0, 1e-3, "tuning")
    assert spent(recipe, one) == 150, "by the settings where the exact steps weren't stored"
    with (one.out / "metrics.jsonl").open("w") as file:
        file.writelines(json.dumps({"step": step, "exact": step < 30}) + "\n" for step in range(130))
    store_losses(recipe, one)
    assert spent(recipe, one) == 160


@pytest.mark.parametrize("mode", ["split", "tail"])
def test_a_trial_before_the_network_is_cut_is_exact(mode):
    run = TrainRecipe(data=".", out=".", steps=210, fairness={"mode": mode})
    assert exact_steps(run) == 32 + 1


def test_points_are_cells_with_their_learning_rate(tmp_path):
    own = recipe_of_points(build(tmp_path), [Point("MPD", 1e-3), Point("fixed 1", 3e-4)])
    assert list(own.cells) == ["MPD, 0.001", "fixed 1, 0.0003"]
    assert own.run("MPD, 0.001", 2, None, "test").learning_rate == 1e-3
    assert own.tuning is None


def test_pictures_that_fail_are_told_and_the_fronts_are_written(tmp_path, train, monkeypatch):
    trained_again = []

    def run_jobs(jobs, display, at_once, ended):
        trained_again.extend(job.name for job in jobs)
        ended(jobs[0], FairHumanError("no memory"))

    monkeypatch.setattr(samples, "run_jobs", run_jobs)
    recipe = build(tmp_path, {**FRONT, "samples": {"data": "test"}})
    found = run(recipe)
    early = []
    drawn = samples.draw_samples(recipe, recipe.front, recipe.front.samples, found, QUIET, early.append)
    assert [one.to_come for one in early] == [["pictures"]]
    assert trained_again[:2] == ["mpd-0.001-seed-1", "mpd-0.001-seed-2"], "their weights are gone"
    assert len(trained_again) == 6
    assert drawn.failed["mpd-0.001-seed-1"] == "no memory"
    page = write_fronts(recipe, recipe.front, found, drawn).read_text()
    assert "no memory" in page
    assert "Pictures at both points" not in page
    assert found.fronts.judged["", "regions"].verdict == "lower"


def test_the_same_points_at_both_budgets_are_one_number(tmp_path):
    front = build(tmp_path).front
    own, others, rival = [Point("MPD", 1e-3)], [Point("MPD", 3e-4)], [Point("fixed 1", 1e-3)]
    found = {"equal steps": {"fixed": rival, "MPD": own}, "equal compute": {"fixed": rival, "MPD": own}}
    assert numbers_judged(front, found) == [("equal steps", "MPD"), ("", "regions")]
    assert joint_level([("equal steps", "MPD"), ("", "regions")]) == pytest.approx(1 - 0.05 / 3), "a loss has a price"
    found["equal compute"] = {"fixed": rival, "MPD": others}
    assert numbers_judged(front, found) == [("equal steps", "MPD"), ("equal compute", "MPD"), ("", "regions")]


@pytest.mark.slow
def test_the_quick_recipe_in_truth(tmp_path):
    recipe = config.load(
        CompareRecipe, RECIPES / "evidence-quick.yaml", [f"out={tmp_path}", "seeds=[1]", "train.steps=2"]
    )
    values = recipe.model_dump()
    values["cells"] = {name: values["cells"][name] for name in ("fixed 0.15 0.1", "MPD output")}
    values["front"] |= {"families": {"fixed weights": ["fixed 0.15 0.1"]}, "worlds": {}}
    values["front"]["predictions"] = [one for one in values["front"]["predictions"] if not one["world"]]
    values["tuning"]["learning_rates"] = [1e-3]
    done = run_all(config.build(CompareRecipe, values), QUIET)
    assert done.failed == {}
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["points"]) == {"MPD output, 0.001", "fixed 0.15 0.1, 0.001"}
    assert results["judged"][0]["of"] == ["", "regions"]
    assert results["judged"][0]["verdict"] in ("lower", "higher", "same", "undecided")
    page = done.page.read_text()
    assert "Fronts" in page
    assert "Pictures at both points" in page
    measured = {one["method"]: one for one in results["samples"] if one["metric"] == "strict face confidence"}
    assert set(measured) == {"base", "MPD output, 0.001", "fixed 0.15 0.1, 0.001"}
    assert measured["fixed 0.15 0.1, 0.001"]["difference"] is None, "the others are compared with it"
