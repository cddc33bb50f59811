"""Comparisons: what is run, how the learning rate is picked, what failures cost, what is concluded."""

import io
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fairhuman import config
from fairhuman.compare import run as comparison
from fairhuman.compare.analysis import at_a_price, contrasts, document, judge, verdict
from fairhuman.compare.losses import load_losses
from fairhuman.compare.page import write_comparison
from fairhuman.compare.runs import ComparisonRuns, choose_learning_rate, loss_changes, run_comparison, shared_seeds
from fairhuman.compare.settings import CompareRecipe
from fairhuman.config import differences
from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.stats.estimate import Estimate
from fairhuman.utils.digest import unsealed
from fairhuman.utils.display import Display
from fairhuman.utils.files import alone
from helpers.damage import flip
from helpers.figures import give_poses, write_figures

QUIET = Display()


def build(folder, **values):
    common = {
        "out": str(folder / "out"),
        "train": {"data": "train", "steps": 10, "resolution": 64},
        "cells": {"LS": {"strategy": "ls"}, "MPD": {"strategy": "mpd"}},
        "against": "LS",
        "seeds": [1, 2, 3],
        "test": "test",
        "people": {"train": {"count": 4, "seed": 1}, "test": {"count": 4, "seed": 2}},
    }
    return config.build(CompareRecipe, {**common, **values}, origin="compare")


def told(recipe, outcome):
    return document(recipe, outcome, contrasts(recipe, outcome))


def written(recipe, outcome):
    return write_comparison(recipe, outcome, contrasts(recipe, outcome))


def test_runs_of_a_seed_differ_in_their_cell_alone(tmp_path):
    recipe = build(tmp_path)
    ls, mpd = (recipe.run(cell, 1, None, "test") for cell in ("LS", "MPD"))
    assert set(differences(ls, mpd)) == {"strategy", "out"}
    assert set(differences(ls, recipe.run("LS", 2, None, "test"))) == {"seed", "out"}
    assert ls.validation.every == ls.steps == 10
    assert str(ls.data).endswith("out/people/train")
    assert str(ls.validation.data).endswith("out/people/test")


def test_what_each_cell_reads_of_the_data_is_told_before_the_start(tmp_path):
    write_figures(tmp_path / "posed", 4)
    give_poses(tmp_path / "posed")
    train = {"data": str(tmp_path / "posed"), "steps": 10, "resolution": 64, "kind": "controlnet"}
    cells = {name: {"controlnet": {"conditions": [name]}} for name in ("depth", "pose")}
    recipe = build(tmp_path, train=train, test=str(tmp_path / "posed"), cells=cells, against=None, people={})
    found = [one.text for one in comparison.start_findings(recipe, comparison.planned_runs(recipe))]
    assert any("controlnet.conditions has depth, but no record to train on has one" in text for text in found)


def test_a_slow_precision_is_told_once_however_many_runs_are_left(tmp_path, train, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": "x86_64"})
    recipe, display = build(tmp_path), Said()
    bf16 = recipe.model_copy(update={"train": {**recipe.train, "precision": "bf16"}})
    for _ in range(2):  # the second time nothing is left
        run_comparison(bf16, lambda *_: None, display)
        (line,) = display.lines
        assert "this CPU has no instructions for bf16" in line
    assert line in [one.line() for one in comparison.start_findings(bf16, comparison.planned_runs(bf16))]
    run_comparison(build(tmp_path / "fp32"), lambda *_: None, display)
    assert display.lines == [line]


def test_a_comparison_is_run_by_one_process(tmp_path):
    recipe = build(tmp_path)
    with (
        alone(recipe.out / ".lock", "busy"),
        pytest.raises(DataError, match=r"out: another comparison is writing here \(process \d+\); wait for it or give"),
    ):
        comparison.run_all(recipe, QUIET)
    assert [path.name for path in recipe.out.iterdir()] == [".lock"]


def test_tuning_never_sees_the_test_set(tmp_path):
    tuning = {"data": "tune", "learning_rates": [1e-4, 1e-3]}
    run = build(tmp_path, tuning=tuning).run("LS", 0, 1e-3, "tuning")
    assert str(run.validation.data) == "tune"
    with pytest.raises(RecipeError, match=r"tuning.data and test must differ, both are 'test': no tuning on the test"):
        build(tmp_path, tuning={**tuning, "data": "test"})


def test_cells_may_take_the_learning_rate_of_another(tmp_path, train):
    trained, _ = train
    cells = {"LS": {"strategy": "ls"}, "MPD": {"strategy": "mpd"}, "MPD soft": {"strategy": "mpd"}}
    tuning = {"data": "tune", "learning_rates": [1e-4, 1e-3], "same": {"MPD": ["MPD soft"]}}
    recipe = build(tmp_path, cells=cells, tuning=tuning)
    outcome = run_comparison(recipe, lambda *_: None, QUIET)
    assert outcome.picked == {"LS": 1e-4, "MPD": 1e-3, "MPD soft": 1e-3}
    assert list(outcome.tuned) == ["LS", "MPD"]
    assert len(trained) == 2 * 2 + 3 * 3
    page = written(recipe, outcome).read_text()
    assert re.findall(r"<h3>(?:LS|MPD): 0.*|Also used by [^<]*", page) == [
        "<h3>LS: 0.0001</h3>",
        "<h3>MPD: 0.001</h3>",
        "Also used by MPD soft.",
    ]


def test_cells_of_another_base_are_named_and_cost_their_comparison_alone(tmp_path, train):
    recipe = build(tmp_path, cells={"LS": {"strategy": "ls"}, "MPD": {"strategy": "mpd"}, "LS 2": {"strategy": "ls"}})
    outcome = run_comparison(recipe, lambda *_: None, QUIET)
    first = {name: (2 * errors, areas) for name, (errors, areas) in outcome.series["MPD"].first.items()}
    outcome.series["MPD"] = replace(outcome.series["MPD"], first=first)
    assert list(contrasts(recipe, outcome)["LS"]) == ["LS 2"]
    assert list(outcome.failed) == ["MPD compared with LS"]
    assert "What failed" in written(recipe, outcome).read_text()


def test_finished_runs_are_read_without_training_the_others(tmp_path, train):
    trained, broken = train
    tuning = {"data": "tune", "learning_rates": [1e-4, 1e-3], "same": {"MPD": ["MPD soft"]}}
    cells = {"LS": {"strategy": "ls"}, "MPD": {"strategy": "mpd"}, "MPD soft": {"strategy": "mpd"}}
    tuned, plain = (build(tmp_path, cells=cells, against=None, tuning=one) for one in (tuning, None))
    broken |= {"ls-seed-3", "mpd-seed-1", "mpd-seed-2"}
    run_comparison(plain, lambda *_: None, QUIET)
    assert [run.seed for run in trained] == [1, 1, 1, 2, 2, 2, 3, 3, 3], "all cells of a seed before the next seed"
    found = run_comparison(plain, lambda *_: pytest.fail("rendered"), QUIET, finished_only=True)
    assert found.seeds == {"LS": [1, 2], "MPD": [3], "MPD soft": [1, 2, 3]}
    assert found.unfinished == {"ls-seed-3", "mpd-seed-1", "mpd-seed-2"}
    assert contrasts(build(tmp_path), found) == {}, "LS and MPD share no seed"
    none = run_comparison(tuned, lambda *_: None, QUIET, finished_only=True)
    assert (none.series, none.picked) == ({}, {}), "no cell has a learning rate of its own yet"
    assert len(trained) == 9


@pytest.mark.parametrize(
    ("same", "message"),
    [
        ({"MPD": ["RLW"]}, r"tuning.same must name cells, which are LS, MPD; found 'RLW' like 'MPD'"),
        ({"RLW": ["MPD"]}, r"tuning.same must name cells, which are LS, MPD; found 'MPD' like 'RLW'"),
        ({"MPD": ["LS"], "LS": ["MPD"]}, r"tuning.same: 'MPD' has no learning rate of its own that 'LS' could use"),
    ],
)
def test_learning_rates_of_cells_without_one_are_refused(tmp_path, same, message):
    with pytest.raises(RecipeError, match=message):
        build(tmp_path, tuning={"data": "tune", "learning_rates": [1e-3], "same": same})


def test_cells_of_other_regions_are_refused(tmp_path):
    cells = {"MPD": {}, "faces": {"regions": {"names": ["face"]}}}
    message = r"regions.names is \[face,hand\] in 'MPD' and \[face\] in 'faces'; give all cells the same"
    for names in (("face", "hand"), None):
        train = {"data": "train", "steps": 10, **({"regions": {"names": names}} if names else {})}
        with pytest.raises(RecipeError, match=message):
            build(tmp_path, train=train, cells=cells, against=None)
    assert build(tmp_path, cells={"MPD": {"regions": {"names": ["face", "hand"]}}, "LS": {}}, against=None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"against": "RLW"}, r"against must name cells, which are LS, MPD; found 'RLW'"),
        ({"against": {"LS": ["RLW"]}}, r"against must name cells, which are LS, MPD; found 'RLW'"),
        ({"against": {"LS": ["MPD", "LS"]}}, r"against compares 'LS' with itself"),
        ({"seeds": [1, 1]}, r"seeds must differ, found \[1, 1\]"),
        ({"cells": {"a/b": {}}}, r"a cell's name must be .* found 'a/b'"),
        ({"cells": {"A b": {}, "a  b": {}}, "against": None}, r"names of cells must differ in more than spaces"),
    ],
)
def test_bad_recipes_are_refused(tmp_path, values, message):
    with pytest.raises(RecipeError, match=message):
        build(tmp_path, **values)


def test_settings_that_are_not_those_of_training_are_named(tmp_path):
    with pytest.raises(RecipeError, match=r"cell 'LS'.*strategi"):
        build(tmp_path, cells={"LS": {"strategi": "ls"}}).run("LS", 1, None, "test")
    with pytest.raises(RecipeError, match=r"compare: seed is set by the comparison; remove it from train and cells"):
        build(tmp_path, train={"data": "x", "seed": 3}).run("LS", 1, None, "test")


def test_the_rule_takes_the_best_rate_within_the_limit_else_the_one_that_spoils_least():
    tuned = {
        1e-4: {"global": 0.0, "face": -0.01, "hand": -0.02},
        3e-4: {"global": 0.005, "face": -0.02, "hand": -0.03},
        1e-3: {"global": 0.02, "face": -0.2, "hand": -0.2},
    }
    assert choose_learning_rate(tuned, 0.005) == 3e-4
    assert choose_learning_rate({1e-4: {**tuned[1e-3], "global": 0.01}, 1e-3: tuned[1e-3]}, 0.005) == 1e-4


def test_a_whole_comparison(tmp_path, train):
    rendered = []
    recipe = build(tmp_path, tuning={"data": "tune", "learning_rates": [1e-4, 1e-3]})
    outcome = run_comparison(recipe, lambda folder, people, _: rendered.append((folder.name, people.count)), QUIET)
    assert rendered == [("train", 4), ("test", 4)]
    assert outcome.picked == {"LS": 1e-4, "MPD": 1e-3}, "LS spoils the whole picture at the higher rate"
    assert outcome.seeds == {"LS": [1, 2, 3], "MPD": [1, 2, 3]}
    found = told(recipe, outcome)
    assert found["change"]["MPD"]["face"]["value"] == pytest.approx(-0.03, abs=0.005)
    face, whole = (found["difference"]["LS"]["MPD"][name] for name in ("face", "global"))
    assert face["verdict"] == "lower"
    assert whole["verdict"] == "lower", "small, and sure: the noise is paired"
    assert face["estimate"]["standard_error"] > 0
    assert face["joint"]["low"] < face["estimate"]["low"] < face["estimate"]["high"] < face["joint"]["high"]
    assert json.loads(json.dumps(found)) is not None


def test_people_are_rendered_only_where_a_run_is_left(tmp_path, train, monkeypatch):
    rendered = []
    monkeypatch.setattr(comparison, "render_people", lambda folder, *_: rendered.append(folder.name))
    trained, _ = train
    for seeds, names, count in (([1, 2], ["train", "test"], 4), ([1, 2], [], 4), ([1, 2, 3], ["train", "test"], 6)):
        rendered.clear()
        done = comparison.run_all(build(tmp_path, seeds=seeds), QUIET)
        assert (rendered, len(trained)) == (names, count)
        assert done.page.is_file()


def test_a_failed_run_costs_that_run_alone(tmp_path, train):
    _, broken = train
    broken.add("mpd-seed-2")
    recipe = build(tmp_path)
    outcome = run_comparison(recipe, lambda *_: None, QUIET)
    assert outcome.seeds == {"LS": [1, 2, 3], "MPD": [1, 3]}
    assert outcome.failed == {"mpd-seed-2": "mpd-seed-2 ended with exit code 1"}
    ls, mpd = shared_seeds(outcome, "LS", "MPD")
    assert len(ls.first["face"][0]) == len(mpd.first["face"][0]) == 2
    assert np.array_equal(ls.first["face"][0], mpd.first["face"][0])
    assert contrasts(recipe, outcome)["LS"]["MPD"]["face"].verdict == "lower"


def test_a_comparison_whose_runs_all_fail_says_why(tmp_path, train):
    _, broken = train
    broken.update(f"{cell}-seed-{seed}" for cell in ("ls", "mpd") for seed in (1, 2, 3))
    with pytest.raises(FairHumanError, match=r"all runs of the comparison failed. \w+-seed-\d ended with exit code 1"):
        run_comparison(build(tmp_path), lambda *_: None, QUIET)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(-0.03, -0.01, "lower"), (0.001, 0.1, "higher"), (-0.019, 0.019, "same"), (-0.03, 0.001, "undecided")],
)
def test_verdicts(low, high, expected):
    assert verdict(Estimate((low + high) / 2, low, high, 10), 0.02) == expected


@pytest.mark.parametrize(
    ("gain", "paid", "expected", "within"),
    [
        ((-0.3, -0.2), (-0.04, 0.04), "lower", False),
        ((-0.3, -0.2), (-0.5, -0.4), "lower", False),
        ((-0.3, -0.2), (0.01, 0.04), "lower", False),
        ((-0.3, -0.2), (-0.1, 0.2), "undecided", False),
        ((-0.3, -0.2), (0.2, 0.4), "moved", False),
        ((0.2, 0.3), (-0.04, 0.04), "higher", False),
        ((0.2, 0.3), (0.1, 0.2), "higher", False),
        ((0.2, 0.3), (-0.2, -0.1), "moved", False),
        ((0.01, 0.04), (-0.04, -0.01), "moved", True),
        ((-0.04, -0.01), (0.01, 0.04), "moved", True),
        ((0.2, 0.3), (-0.04, -0.01), "higher", False),
        ((-0.02, 0.03), (-0.04, 0.04), "same", True),
        ((-0.02, 0.03), (0.2, 0.4), "higher", False),
        ((-0.1, 0.03), (0.2, 0.4), "undecided", False),
        ((-0.1, 0.03), (-0.4, -0.2), "lower", False),
        ((0.01, 0.03), (-0.04, 0.04), "higher", True),
        ((-0.1, 0.1), (-0.04, 0.04), "undecided", False),
        ((-0.02, 0.03), (-0.04, 0.1), "undecided", False),
    ],
)
def test_a_loss_counts_only_at_the_same_price(gain, paid, expected, within):
    def number(low, high):
        return judge(lambda _: Estimate((low + high) / 2, low, high, 10), 0.05, 0.99)

    found = at_a_price(number(*gain), number(*paid))
    assert (found.verdict, found.within) == (expected, within)
    assert found.plain()["paid"]["margin"] == 0.05


def test_without_a_cell_to_compare_with_there_are_no_differences(tmp_path, train):
    recipe = build(tmp_path, against=None)
    assert contrasts(recipe, run_comparison(recipe, lambda *_: None, QUIET)) == {}
    assert contrasts(build(tmp_path), ComparisonRuns()) == {}


def test_cells_may_be_compared_with_several(tmp_path, train):
    cells = {"LS": {"strategy": "ls"}, "MPD": {"strategy": "mpd"}, "MPD x25": {"regions": {"scale": {"face": 25.0}}}}
    recipe = build(tmp_path, cells=cells, against={"LS": ["MPD"], "MPD": ["MPD x25"]})
    found = contrasts(recipe, run_comparison(recipe, lambda *_: None, QUIET))
    assert {against: list(others) for against, others in found.items()} == {"LS": ["MPD"], "MPD": ["MPD x25"]}
    assert found["MPD"]["MPD x25"]["face"].estimate.value == 0.0, "the runs of this test know the strategy alone"
    alone = contrasts(recipe.model_copy(update={"against": {"LS": ["MPD"]}}), run_comparison(recipe, print, QUIET))
    widths = [one["LS"]["MPD"]["face"].joint for one in (alone, found)]
    assert widths[0].high - widths[0].low < widths[1].high - widths[1].low, "more contrasts, wider intervals"


def test_margins_are_shares_of_what_the_reference_cell_changes(tmp_path, train):
    outcome = run_comparison(build(tmp_path), lambda *_: None, QUIET)
    effects = loss_changes(outcome.series["LS"])
    for values, share, price in (({}, 0.1, 0.001), ({"margin": 0.3, "global_margin": 0.02}, 0.3, 0.02)):
        recipe = build(tmp_path, **values)
        found = contrasts(recipe, outcome)["LS"]["MPD"]
        assert found["face"].margin == pytest.approx(share * abs(effects["face"]))
        assert found["global"].margin == price
    assert "margin in brackets, which is 30 % of what" in " ".join(written(recipe, outcome).read_text().split())


def test_losses_are_kept_apart_from_runs_and_enough_to_go_on(tmp_path, train):
    trained, _ = train
    recipe = build(tmp_path, results=str(tmp_path / "results"), tuning={"data": "tune", "learning_rates": [1e-3]})
    first = told(recipe, run_comparison(recipe, lambda *_: None, QUIET))
    assert len(trained) == 8
    shutil.rmtree(recipe.out)
    again = build(tmp_path / "elsewhere", results=str(tmp_path / "results"), tuning=recipe.tuning.model_dump())
    assert told(again, run_comparison(again, lambda *_: None, QUIET)) == first
    assert len(trained) == 8, "nothing is run twice, wherever runs lie"
    more = build(tmp_path, **{**again.model_dump(mode="json"), "seeds": [1, 2, 3, 4]})
    run_comparison(more, lambda *_: None, QUIET)
    assert len(trained) == 10
    page = written(more, run_comparison(more, lambda *_: None, QUIET))
    assert page == tmp_path / "results" / "report.html"
    assert "The runs" not in page.read_text(), "runs that don't lie beside the page aren't linked"


def test_losses_of_other_settings_or_people_are_not_taken(tmp_path, train):
    trained, _ = train
    values = {"results": str(tmp_path / "results"), "seeds": [1]}
    run_comparison(build(tmp_path / "a", **values), lambda *_: None, QUIET)
    people = {"train": {"count": 4, "seed": 1}, "test": {"count": 4, "seed": 3}}
    run_comparison(build(tmp_path / "b", **values, people=people), lambda *_: None, QUIET)
    assert len(trained) == 4, "other people"
    longer = {"data": "train", "steps": 11, "resolution": 64}
    run_comparison(build(tmp_path / "c", **values, people=people, train=longer), lambda *_: None, QUIET)
    assert len(trained) == 6, "more steps"
    faster = {**longer, "source": {"workers": 2}, "preview": {"count": 0}}
    run_comparison(build(tmp_path / "d", **values, people=people, train=faster), lambda *_: None, QUIET)
    assert len(trained) == 6, "how it is reached changes nothing"


def test_losses_older_than_a_setting_are_those_of_its_default(tmp_path, train):
    trained, _ = train
    recipe = build(tmp_path, seeds=[1])
    run_comparison(recipe, lambda *_: None, QUIET)
    path = tmp_path / "out" / "losses" / "test" / "ls-seed-1.npz"
    arrays = arrays_of(path)
    depends_on = json.loads(str(arrays["depends_on"]))
    assert depends_on.pop("noise.offset") == 0.0
    np.savez(path, **{**arrays, "depends_on": json.dumps(depends_on)})
    run_comparison(recipe, lambda *_: None, QUIET)
    assert len(trained) == 2
    run_comparison(build(tmp_path, seeds=[1], cells={"LS": {"noise": {"offset": 0.1}}}, against=None), print, QUIET)
    assert len(trained) == 3
    np.savez(path, **{**arrays, "depends_on": json.dumps({**depends_on, "gone": 1})})
    run_comparison(recipe, lambda *_: None, QUIET)
    assert len(trained) == 4, "a setting that is no more"
    np.savez(path, **{**arrays, "depends_on": json.dumps({**depends_on, "gone": None})})
    run_comparison(recipe, lambda *_: None, QUIET)
    assert len(trained) == 4, "and wasn't set"


def arrays_of(path):
    with np.load(io.BytesIO(unsealed(path))) as file:
        return dict(file)


class Said(Display):
    def __init__(self):
        self.lines = []

    def say(self, text):
        self.lines.append(text)


def test_damaged_losses_lose_no_objective_and_older_ones_are_read_unchecked(tmp_path, train):
    recipe = build(tmp_path, seeds=[1], cells={"LS": {"strategy": "ls"}}, against=None)
    run_comparison(recipe, lambda *_: None, QUIET)
    run, path = recipe.run("LS", 1, None, "test"), tmp_path / "out" / "losses" / "test" / "ls-seed-1.npz"
    sound, arrays, before = path.read_bytes(), arrays_of(path), load_losses(recipe, run)
    for at in np.linspace(0, len(sound) - 1, 60).astype(int):
        flip(path, at)
        with pytest.raises(DataError, match=r"ls-seed-1.npz: can't be read; delete it to repeat the run: is damaged"):
            load_losses(recipe, run)
        path.write_bytes(sound)
    np.savez(path, **arrays)
    older = Said()
    run_comparison(recipe, lambda *_: None, older)
    assert [line for line in older.lines if "unchecked" in line] == [
        "an earlier version stored losses, without digests: they are read unchecked"
    ]
    assert load_losses(recipe, run)[1].errors["face"].tolist() == before[1].errors["face"].tolist()
    np.savez(path, **{name: array for name, array in arrays.items() if name != "last face"})
    with pytest.raises(DataError, match=r"expected the same losses of \d+ samples before and after, found .*face"):
        load_losses(recipe, run)
    np.savez_compressed(path, **arrays)
    path.write_bytes(path.read_bytes().replace(b"\x08\x00", b"\x63\x00"))  # a method of compression that isn't one
    with pytest.raises(DataError, match=r"can't be read; delete it"):
        load_losses(recipe, run)


def test_a_broken_file_of_losses_is_named(tmp_path, train):
    recipe = build(tmp_path)
    run_comparison(recipe, lambda *_: None, QUIET)
    path = tmp_path / "out" / "losses" / "test" / "ls-seed-2.npz"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DataError, match=r"ls-seed-2.npz: can't be read; delete it to repeat the run"):
        run_comparison(recipe, lambda *_: None, QUIET)


def test_the_page_and_the_numbers_are_written(tmp_path, train):
    _, broken = train
    broken.add("mpd-0.001-seed-2")
    recipe = build(tmp_path / "größe", tuning={"data": "tune", "learning_rates": [1e-4, 1e-3]})
    path = written(recipe, run_comparison(recipe, lambda *_: None, QUIET))
    page = path.read_text()
    for text in ("Compared with LS", "mpd-0.001-seed-2 ended with exit code 1", "undecided", "0.001", "/größe/out"):
        assert text in page
    assert "Reports of the runs" not in page, "the runs of this test write no report"
    results = json.loads(path.with_name("results.json").read_text())
    assert results["seeds"] == {"LS": [1, 2, 3], "MPD": [1, 3]}
    assert results["learning rate"]["LS"]["picked"] == 1e-4
