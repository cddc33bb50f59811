"""The choice of points: from tuning results alone, in the order that is written down, and kept once tests exist."""

import json

import pytest

from fairhuman.compare.fronts.choose import COMPUTE, STEPS, Point, Tuned, anchors, budgets, choose, keep_choice
from fairhuman.compare.fronts.settings import FrontSettings
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
    assert anchors(front(), results()) == (Point("MPD", 3e-4), Point("fixed 0.1", 3e-4))
    dear = {**CELLS, "MPD": ((-0.05, -0.2), (-0.5, -0.9), (0.04, -1.2))}
    assert anchors(front(), results(dear))[1] == Point("fixed 0.1", 1e-4), "none is as cheap: the cheapest"


def test_points_are_chosen_in_the_stated_order():
    choice = choose(front(), results())
    assert list(choice.why)[:2] == [Point("MPD", 3e-4), Point("fixed 0.1", 3e-4)]
    assert choice.why[Point("MPD", 1e-3)] == "front at equal steps"
    assert choice.why[Point("fixed 0.1", 1e-3)] == "front at equal compute", "MPD, exact, costs twice"
    assert choice.why[Point("bad", 1e-4)] == "best of bad"
    assert choice.why[Point("fixed 1", 3e-4)].startswith(("front", "neighbour")), choice.why
    reasons = [why.split()[0] for why in choice.why.values()]
    assert choice.why[Point("bad", 1e-3)] == "front of bad", "where there is room, for its family's own front"
    assert list(choice.why).index(Point("bad", 1e-3)) > max(i for i, why in enumerate(reasons) if why == "neighbour")
    few = choose(front(at_most=4), results())
    assert list(few.why) == list(choice.why)[:4]
    assert choose(front(), dict(reversed(results().items()))).why.keys() == choice.why.keys(), "order changes nothing"


def test_an_exact_step_counts_twice():
    found = budgets(results(), results()[Point("fixed 1", 1e-3)])
    assert {point.cell for point in found[STEPS]} == set(CELLS)
    assert {point.cell for point in found[COMPUTE]} == set(CELLS) - {"MPD"}


def test_margins_are_parts_of_the_effect_and_edges_are_named():
    choice = choose(front(), results())
    assert choice.margins["face"] == pytest.approx(0.1 * 0.02), "fixed 1 at the highest rate gains 2 %"
    assert choice.margins["global"] == pytest.approx(0.1 * max(abs(results()[p].place[0]) for p in choice.why))
    assert choice.margins["hypervolume"] > 0
    assert Point("MPD", 1e-3) in choice.edges
    assert Point("fixed 0.1", 3e-4) not in choice.edges


def test_a_choice_stands_once_results_on_test_data_exist(tmp_path):
    file = tmp_path / "chosen.json"
    first = keep_choice(file, front(), results(), tested=False)
    assert keep_choice(file, front(), results(), tested=True) == first
    moved = results({**CELLS, "bad": ((-1.0, -3.0),) * 3})
    assert keep_choice(tmp_path / "other.json", front(), moved, tested=True).why.keys() != first.why.keys()
    with pytest.raises(DataError, match=r"the tuning result of bad, 0.0001 isn't what it was when points were chosen"):
        keep_choice(file, front(), moved, tested=True)
    with pytest.raises(DataError, match=r"chosen with other settings of `front` than now"):
        keep_choice(file, front(reference=0.01), results(), tested=True)
    keep_choice(file, front(reference=0.01), moved, tested=False)
    assert json.loads(file.read_text())["settings"]["reference"] == 0.01, "before the test, a choice is free"


def test_cells_added_later_join_without_changing_the_choice(tmp_path):
    file = tmp_path / "chosen.json"
    first = keep_choice(file, front(), results(), tested=False)
    more = results({**CELLS, "new": ((-0.1, -0.5), (-0.05, -1.5), (0.0, -2.5))})
    both = keep_choice(file, front(), more, tested=True)
    added = set(both.why) - set(first.why)
    assert added == {Point("new", rate) for rate in RATES}
    assert both.margins == first.margins
    assert both.rival == first.rival
    assert keep_choice(file, front(), more, tested=True) == both
    assert keep_choice(file, front(), results(), tested=True) == first, "without the cell, its points wait in the file"
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
