"""The design: each thing equally often, over many shapes of study."""

from collections import Counter
from collections.abc import Hashable, Iterable
from itertools import combinations, pairwise, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairhuman.errors import RecipeError
from fairhuman.study.balance import equitable_colouring
from fairhuman.study.design import item_orders, make_trials
from fairhuman.study.study import StudyItem, StudySettings, Trial


def checks(count: int, shown: int) -> list[StudyItem]:
    names = ["sharp", "blurred", "pixelated", "both"][:shown]
    return [StudyItem(f"check {n}", {name: f"{n}{name}.jpg" for name in names}, {}, "sharp") for n in range(count)]


def trials(
    methods: int, shown: int, items: int, participants: int, seen: int, check: int = 0, seed: int = 0
) -> tuple[tuple[Trial, ...], ...]:
    values = {"items": items, "participants": participants, "per_participant": seen, "shown": shown, "checks": check}
    study = StudySettings.model_validate({**values, "seed": seed})
    return make_trials(study, [f"m{number}" for number in range(methods)], checks(check, shown))


def spread(found: Iterable[Hashable], possible: Iterable[Hashable]) -> int:
    counts = Counter(found)
    numbers = [counts[one] for one in possible]
    assert sum(numbers) == counts.total(), "nothing else occurs"
    return max(numbers) - min(numbers)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[int, int, int, int, int, int, int]:
    methods = draw(st.integers(2, 5))
    shown = draw(st.integers(2, min(4, methods)))
    items, participants = draw(st.integers(1, 14)), draw(st.integers(1, 14))
    seen = draw(st.integers(1, items))
    return methods, shown, items, participants, seen, draw(st.integers(0, 4)), draw(st.integers(0, 3))


@settings(max_examples=150, deadline=None)
@given(shapes())
def test_everything_comes_equally_often(shape: tuple[int, int, int, int, int, int, int]) -> None:
    methods, shown, items, participants, seen, *_ = shape
    rows = trials(*shape)
    names = [f"m{number}" for number in range(methods)]
    real = [[trial for trial in row if trial.item < items] for row in rows]
    flat = [trial for row in real for trial in row]
    every_place = [(name, place) for name in names for place in range(shown)]
    every_set = list(combinations(names, shown))

    def sets(some: list[Trial]) -> list[tuple[str, ...]]:
        return [tuple(sorted(trial.shown)) for trial in some]

    def places(some: list[Trial]) -> list[tuple[str, int]]:
        return [(name, place) for trial in some for place, name in enumerate(trial.shown)]

    assert len(rows) == participants
    for row in real:
        assert len({trial.item for trial in row}) == len(row) == seen, "nobody sees an item twice"
        assert spread(sets(row), every_set) <= 1
        for name in names:
            assert spread([p for p in places(row) if p[0] == name], [(name, k) for k in range(shown)]) <= 1
    for item in range(items):
        assert spread(sets([trial for trial in flat if trial.item == item]), every_set) <= 1
    order = [(trial.item, place) for row in real for place, trial in enumerate(row)]
    assert spread((trial.item for trial in flat), range(items)) <= 1
    assert spread(order, [(item, place) for item in range(items) for place in range(seen)]) <= 1
    assert spread(sets(flat), every_set) <= 1
    for name in names:
        assert spread([p for p in places(flat) if p[0] == name], [(name, k) for k in range(shown)]) <= 1
    if len(flat) * shown % len(every_place) == 0 and len(flat) % len(every_set) == 0:
        assert spread(places(flat), every_place) == 0, "where the numbers allow, exactly"


@settings(max_examples=60, deadline=None)
@given(shapes())
def test_attention_checks_are_seen_once_each_with_the_right_picture_on_all_sides(
    shape: tuple[int, int, int, int, int, int, int],
) -> None:
    _, shown, items, _, seen, check, _ = shape
    rows = trials(*shape)
    sides = []
    for row in rows:
        assert sorted(trial.item for trial in row if trial.item >= items) == list(range(items, items + check))
        found = [(trial, place) for place, trial in enumerate(row) if trial.item >= items]
        assert seen < check or all(place > 0 for _, place in found), "nobody begins with one"
        own = [trial.shown.index("sharp") for trial, _ in found]
        assert all(sorted(trial.shown) == sorted(checks(1, shown)[0].pictures) for trial, _ in found)
        assert spread(own, range(shown)) <= 1
        sides += own
    assert spread(sides, range(shown)) <= 1


@pytest.mark.parametrize("shape", [(2, 2, 20, 10, 20), (2, 2, 13, 7, 9), (2, 2, 100, 50, 100)])
def test_of_two_methods_sides_are_even_for_each_participant_and_each_item(
    shape: tuple[int, int, int, int, int],
) -> None:
    rows = trials(*shape)
    for row in rows:
        assert spread((trial.shown for trial in row), permutations(["m0", "m1"])) <= 1
    for item in range(shape[2]):
        shown = [trial.shown for row in rows for trial in row if trial.item == item]
        assert spread(shown, permutations(["m0", "m1"])) <= 1


def test_of_more_methods_sides_are_nearly_even_with_each_item() -> None:
    """Chance alone would give spreads of about 15 here."""
    flat = [trial for row in trials(3, 2, 60, 50, 60) for trial in row]
    for item in range(60):
        for name in ("m0", "m1", "m2"):
            places = [trial.shown.index(name) for trial in flat if trial.item == item and name in trial.shown]
            assert spread(places, range(2)) <= 5


def test_three_of_four_methods_spread_an_odd_number_of_sets_over_the_pairs() -> None:
    """Of 6 trials, two sets of three come once more; any two of them share a pair."""
    flat = [trial for row in trials(4, 3, 6, 1, 6) for trial in row]
    pairs = [pair for trial in flat for pair in combinations(sorted(trial.shown), 2)]
    assert spread(pairs, combinations(["m0", "m1", "m2", "m3"], 2)) == 2


def test_no_two_items_keep_following_each_other() -> None:
    orders = item_orders(40, 20, 20, np.random.default_rng(0))
    follow = Counter(pair for row in orders for pair in pairwise(row))
    assert set(follow.values()) == {2}, "each of 380 pairs in order twice over 40 participants"


def test_the_seed_decides() -> None:
    assert trials(3, 2, 10, 6, 8, 2) == trials(3, 2, 10, 6, 8, 2)
    assert trials(3, 2, 10, 6, 8, 2) != trials(3, 2, 10, 6, 8, 2, seed=1)


def test_checks_are_in_every_stretch_of_a_session() -> None:
    for row in trials(2, 2, 30, 8, 30, 3):
        places = [place for place, trial in enumerate(row) if trial.item >= 30]
        assert places[0] <= 11 < places[1] <= 22 < places[2]


def test_fewer_methods_than_are_shown_are_refused() -> None:
    with pytest.raises(RecipeError, match=r"shown must be at most the number of methods \(m0, m1\); found 3"):
        trials(2, 3, 4, 2, 4)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 3)), max_size=40))
def test_colours_are_shared_out_evenly_in_both_families(edges: list[tuple[int, int, int]]) -> None:
    colours = [colour for _, _, colour in edges]
    found = equitable_colouring(
        colours, [("all", left) for left, _, _ in edges], [(right,) for _, right, _ in edges], [0] * len(edges)
    )
    possible = sorted(set(colours))
    for side in (0, 1):
        for group in range(5):
            of_group = [colour for colour, edge in zip(found, edges, strict=True) if edge[side] == group]
            assert not of_group or spread(of_group, possible) <= 1
    assert not found or spread(found, possible) <= 1
