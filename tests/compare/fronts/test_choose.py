"""The choice of points: from tuning results alone, in the order that is written down, and kept once tests exist."""

import json

import pytest

from fairhuman.compare.fronts.choose import Tuned, budgets, choose, keep_choice, untuned_and_rival
from fairhuman.compare.fronts.settings import COMPUTE, STEPS, FrontSettings, Point
from fairhuman.errors import DataError

RATES = (1e-4, 3e-4, 1e-3)
CELLS = {  # price and gain in percent at each rate
    "fixed 1": ((0.02, -0.3), (0.40, -1.5), (0.90, -2.0)),
    "fixed 0.3": ((-0.02, -0.3), (0.10, -1.2), (0.30, -1.7)),
    "fixed 0.1": ((-0.05, -0.2), (-0.02, -0.8), (0.03, -1.1)),
    "MPD": ((-0.05, -0.2), (-0.01, -0.9), (0.02, -1.2)),
    "bad": ((0.3, -0.1), (0.4, -0.2), (0.9, -0.3)),
}


def results(cells=CELLS, exact=("MPD",)):
    return {
        Point(cell, rate): Tuned(
            {"global": x / 100, "face": y / 100, "hand": y / 100}, 100, 200 if cell in exact else 100
        )
        for cell, places in cells.items()
        for rate, (x, y) in zip(RATES, places, strict=True)
    }


def front(**values):
    families = {"fixed weights": ["fixed 1", "fixed 0.3", "fixed 0.1"]}
    untuned = {"cell": "MPD", "learning_rate": 3e-4}
    return FrontSettings.model_validate({"families": families, "rival": "fixed weights", "untuned": untuned, **values})


def test_the_tuned_rival_pays_no_more_than_the_untuned_point():
    assert untuned_and_rival(front(), results()) == (Point("MPD", 3e-4), Point("fixed 0.1", 3e-4))
    dear = {**CELLS, "MPD": ((-0.05, -0.2), (-0.5, -0.9), (0.04, -1.2))}
    assert untuned_and_rival(front(), results(dear))[1] == Point("fixed 0.1", 1e-4), "none is as cheap: the cheapest"


def test_points_are_chosen_in_the_stated_order():
    choice = choose(front(), results())
    assert list(choice.why)[:2] == [Point("MPD", 3e-4), Point("fixed 0.1", 3e-4)]
    assert choice.why[Point("MPD", 1e-3)] == "hypervolume of MPD at equal steps"
    assert choice.why[Point("fixed 0.1", 1e-3)] == "hypervolume of fixed weights at equal steps"
    assert choice.why[Point("bad", 1e-4)] == "hypervolume of bad at equal steps"
    few = choose(front(at_most=4), results())
    assert list(few.why) == list(choice.why)[:4]
    assert choose(front(), dict(reversed(results().items()))).why.keys() == choice.why.keys(), "order changes nothing"


def test_judged_families_come_first_with_as_many_points_each():
    judged = [{"family": "MPD", "budget": STEPS, "verdict": "same"}]
    choice = choose(front(predictions=judged, each=2), results())
    own = choice.compared[STEPS]
    assert {family: len(points) for family, points in own.items()} == {"fixed weights": 2, "MPD": 2, "bad": 2}
    assert own["fixed weights"] == [Point("fixed 0.1", 1e-3), Point("fixed 0.3", 1e-3)], "each adds the most"
    reasons = list(choice.why.values())
    assert choice.why[Point("bad", 3e-4)] == "best of bad at equal steps"
    hypervolumes = [at for at, why in enumerate(reasons) if why.endswith("at equal steps") and "bad" not in why]
    assert max(hypervolumes) < reasons.index("best of bad at equal steps")


def test_edges_are_those_of_a_row():
    rows = {"fixed weights": [["fixed 1", "fixed 0.3"], ["fixed 0.1"]]}
    choice = choose(front(families=rows), results())
    assert choice.edges[Point("fixed 0.3", 1e-3)] == "learning rate and weights"
    assert choice.edges[Point("fixed 0.1", 1e-3)] == "learning rate", "a row of one has no end"


def test_an_exact_step_counts_twice():
    found = budgets(results(), results()[Point("fixed 1", 1e-3)])
    assert {point.cell for point in found[STEPS]} == set(CELLS)
    assert {point.cell for point in found[COMPUTE]} == set(CELLS) - {"MPD"}


def test_margins_are_parts_of_the_effect_and_edges_are_named():
    choice = choose(front(), results())
    assert choice.margins["face"] == pytest.approx(0.1 * 0.008), "fixed 0.1 at 3e-4, the tuned rival, gains 0.8 %"
    assert choice.margins["global"] == 0.001, "of the base's loss, as training hardly changes it"
    # the front of fixed weights, up to +0.5 %, in %²: a step of width x gain for each of its points
    steps = [(0.03, 0.2), (0.05, 0.8), (0.07, 1.1), (0.2, 1.2), (0.2, 1.7)]
    assert choice.margins["hypervolume"] == pytest.approx(0.1 * 1e-4 * sum(x * y for x, y in steps))
    assert Point("MPD", 1e-3) in choice.edges
    assert choice.edges[Point("fixed 0.1", 3e-4)] == "weights", "not of the learning rate"


def test_a_choice_stands_once_results_on_test_data_exist(tmp_path):
    file = tmp_path / "chosen.json"
    first = keep_choice(file, front(), results(), tested=False)
    assert keep_choice(file, front(), results(), tested=True) == first
    moved = results({**CELLS, "bad": ((-1.0, -3.0),) * 3})
    with pytest.raises(DataError, match=r"other.json: is missing, and results on test data exist"):
        keep_choice(tmp_path / "other.json", front(), moved, tested=True)
    assert not (tmp_path / "other.json").exists()
    with pytest.raises(DataError, match=r"the tuning result of bad, 0.0001 isn't what it was when points were chosen"):
        keep_choice(file, front(), moved, tested=True)
    with pytest.raises(DataError, match=r"other settings than now: front.reference was 0.005, is 0.01"):
        keep_choice(file, front(reference=0.01), results(), tested=True)
    keep_choice(file, front(reference=0.01), moved, tested=False)
    assert json.loads(file.read_text())["settings"]["front.reference"] == 0.01, "before the test, a choice is free"


def test_what_verdicts_hang_on_stays_once_results_on_test_data_exist(tmp_path):
    file, rest = tmp_path / "chosen.json", {"seeds": [1, 2]}
    keep_choice(file, front(), results(), False, rest)
    with pytest.raises(DataError, match=r"seeds was \[1, 2\], is \[1, 2, 3\]"):
        keep_choice(file, front(), results(), True, {"seeds": [1, 2, 3]})
    moved = front(families={"fixed weights": ["fixed 1", "fixed 0.3", "fixed 0.1", "bad"]})
    with pytest.raises(DataError, match=r"'bad' was of the family 'bad', is of 'fixed weights'"):
        keep_choice(file, moved, results(), True, rest)
    wider = front(families={"fixed weights": ["fixed 1", "fixed 0.3", "fixed 0.1", "new"]})
    with pytest.raises(DataError, match=r"'new' was added after the choice, so it can't join the family 'fixed weigh"):
        keep_choice(file, wider, results({**CELLS, "new": CELLS["MPD"]}), True, rest)


def test_people_for_cells_that_join_later_may_be_added(tmp_path):
    file, rest = tmp_path / "chosen.json", {"people": {"train": {"seed": 1}, "test": {"seed": 2}}}
    first = keep_choice(file, front(), results(), False, rest)
    more = {"people": {**rest["people"], "steer": {"seed": 3}}}
    assert keep_choice(file, front(), results(), True, more) == first
    assert keep_choice(file, front(), results(), True, rest) == first, "and left out again"
    with pytest.raises(DataError, match=r"people was .*'seed': 2.*, is .*'seed': 4"):
        keep_choice(file, front(), results(), True, {"people": {**rest["people"], "test": {"seed": 4}}})


def test_worlds_without_a_prediction_may_be_added_and_left_out(tmp_path):
    file, judged = tmp_path / "chosen.json", [{"world": "rank 2", "verdict": "same"}]
    rank, painted = {"train": {"lora": {"rank": 2}}}, {"train": {"regions": {"mask": {"painted": False}}}}

    def of(**worlds):
        return front(worlds=worlds, predictions=judged)

    first = keep_choice(file, of(**{"rank 2": rank, "boxes": painted}), results(), False)
    photos = {"train": {"data": "photos"}, "test": "others"}
    assert keep_choice(file, of(**{"rank 2": rank, "boxes": painted, "photos": photos}), results(), True) == first
    assert keep_choice(file, of(**{"rank 2": rank}), results(), True) == first
    for other in ({"rank 2": painted}, {"rank 2": rank, "boxes": rank}):
        with pytest.raises(DataError, match=r"front.worlds was .*, is .*; results on test data exist"):
            keep_choice(file, of(**other), results(), True)


def test_a_point_that_finishes_after_the_choice_takes_no_part(tmp_path):
    file, late = tmp_path / "chosen.json", Point("MPD", 1e-3)
    without = {point: one for point, one in results().items() if point != late}
    first = keep_choice(file, front(), without, False, failed=[late])
    assert json.loads(file.read_text())["failed"] == [{"cell": "MPD", "rate": 1e-3}]
    then = keep_choice(file, front(), results(), True)
    assert then == first
    assert then.failed == (late,)


def test_cells_of_a_judged_family_may_not_go_once_results_on_test_data_exist(tmp_path):
    file, judged = tmp_path / "chosen.json", [{"family": "MPD", "verdict": "same"}]
    first = keep_choice(file, front(predictions=judged), results(), False)
    for cell, family in (("fixed 0.3", "fixed weights"), ("MPD", "MPD")):
        less = {point: one for point, one in results().items() if point.cell != cell}
        with pytest.raises(DataError, match=rf"{cell!r} of the family {family!r}, which is judged, is gone"):
            keep_choice(file, front(predictions=judged), less, True)
    less = {point: one for point, one in results().items() if point.cell != "bad"}
    assert keep_choice(file, front(predictions=judged), less, True).compared == first.compared, "not judged"


def test_a_cell_that_failed_isnt_gone(tmp_path):
    file, judged = tmp_path / "chosen.json", front(predictions=[{"family": "MPD", "verdict": "same"}])
    failed = [point for point in results() if point.cell == "fixed 1"]
    others = {point: one for point, one in results().items() if point not in failed}
    first = keep_choice(file, judged, others, False, failed=failed)
    assert keep_choice(file, judged, others, True, failed=failed) == first


def test_cells_added_later_are_tested_also_beyond_both_budgets(tmp_path):
    file = tmp_path / "chosen.json"
    first = keep_choice(file, front(each=2), results(), tested=False)
    more = results({**CELLS, "dear": CELLS["MPD"]})
    more = {p: Tuned(one.changes, 50, 300) if p.cell == "dear" else one for p, one in more.items()}
    both = keep_choice(file, front(each=2), more, tested=True)
    assert {both.why[point] for point in set(both.why) - set(first.why)} == {
        "of a family added later, within no budget"
    }
    assert len(both.why) == len(first.why) + 2
    assert both.compared == first.compared


def test_cells_added_later_join_without_changing_the_choice(tmp_path):
    file = tmp_path / "chosen.json"
    first = keep_choice(file, front(), results(), tested=False)
    more = results({**CELLS, "new": ((-0.1, -0.5), (-0.05, -1.5), (0.0, -2.5))})
    both = keep_choice(file, front(), more, tested=True)
    added = set(both.why) - set(first.why)
    assert added == {Point("new", rate) for rate in RATES}
    assert both.margins == first.margins
    assert both.rival == first.rival
    assert len(both.compared[STEPS].pop("new")) == 3
    both.compared[COMPUTE].pop("new")
    assert both.compared == first.compared
    both = keep_choice(file, front(), more, tested=True)
    assert keep_choice(file, front(), more, tested=True) == both
    assert keep_choice(file, front(), results(), tested=True).why == first.why, (
        "without the cell, its points wait in the file"
    )
    assert keep_choice(file, front(), more, tested=True) == both


def test_what_is_missing_is_named(tmp_path):
    without = {point: one for point, one in results().items() if point.cell != "MPD"}
    with pytest.raises(DataError, match=r"front.untuned: the tuning run of MPD, 0.0003 failed"):
        choose(front(), without)
    with pytest.raises(DataError, match=r"all tuning runs of fixed weights failed"):
        choose(front(), {point: one for point, one in results().items() if not point.cell.startswith("fixed")})
    (tmp_path / "chosen.json").write_text("{}")
    with pytest.raises(DataError, match=r"chosen.json: can't be read as a choice of points"):
        keep_choice(tmp_path / "chosen.json", front(), results(), tested=True)


@pytest.mark.parametrize(
    "change",
    [
        lambda found: found["margins"].update(face=1.0),
        lambda found: found.update(rival=found["points"][0]),
        lambda found: found["points"].pop(),
        lambda found: found["tuned"]["bad, 0.001"].update(face=0.5),
    ],
)
def test_a_changed_choice_is_noticed_and_one_of_an_earlier_version_is_said_to_be_unchecked(tmp_path, change):
    file = tmp_path / "chosen.json"
    first = keep_choice(file, front(), results(), tested=False)
    written = file.read_text()
    change(found := json.loads(written))
    file.write_text(json.dumps(found))
    with pytest.raises(DataError, match=r"chosen.json: can't be read as a choice of points: .*it was changed: sha256"):
        keep_choice(file, front(), results(), tested=True)
    older = json.loads(written)
    del older["sha256"]
    file.write_text(json.dumps(older))
    said = []
    assert keep_choice(file, front(), results(), tested=True, say=said.append) == first
    assert said == [f"{file}: has no digest, as an earlier version wrote it; it is used unchecked"]
    assert file.read_text() == written


@pytest.mark.parametrize(
    "change",
    [
        {"compared": {STEPS: {}}},
        {"compared": {STEPS: {"bad": [{"cell": "bad", "rate": 9.0}]}, COMPUTE: {}}},
        {"margins": {"face": float("nan")}},
        {"tuned": {"bad, 0.001": {"face": "x"}}},
        {"settings": 5},
        {"points": [{"cell": "MPD", "rate": None, "why": ""}]},
    ],
)
def test_a_choice_with_values_of_another_kind_is_named(tmp_path, change):
    file = tmp_path / "chosen.json"
    keep_choice(file, front(), results(), tested=False)
    older = {name: value for name, value in json.loads(file.read_text()).items() if name != "sha256"}
    file.write_text(json.dumps({**older, **change}))
    with pytest.raises(DataError, match=r"chosen.json: can't be read as a choice of points"):
        keep_choice(file, front(), results(), tested=True)
