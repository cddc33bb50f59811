"""Participants who are left out, and what else than pictures moves answers."""

import math

import numpy as np
import pytest

from fairhuman.errors import RecipeError
from fairhuman.study.answers import Vote, Votes
from fairhuman.study.bias import answer_times, place_balance, place_shares
from fairhuman.study.exclusion import excluded_line, judge_participants, keep_votes
from fairhuman.study.power import PowerSettings, find_participants, power, power_summary
from fairhuman.study.study import ExclusionSettings
from helpers.simulated_votes import vote


def session(participant: str, *, checks: int = 2, failed: int = 0, seconds: float = 3.0, left: int = 5) -> list[Vote]:
    """Ten votes on AB, of which `left` are for the left picture, and attention checks."""
    votes = [
        vote(participant, "AB", "A" if trial < left else "B", trial, trial=trial, seconds=seconds)
        for trial in range(10)
    ]
    return votes + [
        vote(participant, "xy", "y" if n < failed else "x", f"c{n}", trial=10 + n, seconds=seconds, better="x")
        for n in range(checks)
    ]


def test_each_rule_leaves_out_whom_it_names() -> None:
    votes = [
        *session("good", failed=1, left=9),
        *session("careless", failed=2),
        *session("fast", seconds=0.4),
        *session("lefty", left=10),
        *session("brief")[:4],
    ]
    found = {one.participant: one for one in judge_participants(Votes(votes, expected=12), ExclusionSettings())}
    assert {name: len(one.reasons) for name, one in found.items()} == {
        "good": 0,
        "careless": 1,
        "fast": 1,
        "lefty": 1,
        "brief": 2,
    }
    assert found["careless"].reasons == ("2 of 2 attention checks failed, at most 1 allowed",)
    assert found["fast"].reasons == ("median answer time 0.4 s, at least 1 s required",)
    assert found["lefty"].reasons == ("100 % of answers for one position, at most 95 % allowed",)
    assert found["brief"].reasons[1] == "33 % of the questions answered, at least 50 % required"
    assert {one.participant for one in keep_votes(votes, list(found.values()))} == {"good"}
    line = excluded_line(list(found.values())) or ""
    assert line.startswith("4 of 5 participants are excluded by the study's rules (")
    assert "1 answered too little" in line
    assert "1 answered too fast" in line
    assert excluded_line([found["careless"], found["lefty"]]) == (
        "all 2 participants are excluded by the study's rules (1 failed checks, 1 chose one position)"
    )
    assert excluded_line([found["good"]]) is None


def test_a_tie_fails_a_check_and_two_questions_about_one_check_fail_it_once() -> None:
    votes = [
        vote(0, "xy", None, "c", trial=0, better="x"),
        vote(0, "xy", "y", "c", trial=0, question="regional", better="x"),
    ]
    assert judge_participants(Votes(votes), ExclusionSettings())[0].failed == 1


def test_what_isnt_known_breaks_no_rule() -> None:
    votes = [vote(0, "AB", "A", trial=0, seconds=math.nan), vote(0, "BA", "A", trial=1, seconds=math.nan)]
    (one,) = judge_participants(Votes(votes), ExclusionSettings(max_same_side=0.9))
    assert (one.reasons, one.checks, one.share) == ((), 0, 1.0)
    assert math.isnan(one.seconds)
    assert judge_participants(Votes([]), ExclusionSettings()) == []


def test_a_habit_of_the_left_is_seen() -> None:
    chosen = [None, *([0] * 44), *([1] * 5)]
    votes = [
        vote(person, shown, None if place is None else shown[place], item)
        for person in range(4)
        for item, place in enumerate(chosen)
        for shown in ("AB" if item % 2 else "BA",)
    ]
    left, right = place_shares(votes)
    assert left.n == 4 * 49
    assert left.value == pytest.approx(44 / 49)
    assert right.value == pytest.approx(5 / 49)
    assert 0.5 < left.low < left.value < left.high < 1
    assert place_shares([]) == []
    assert math.isnan(place_shares([vote(0, "AB", None)])[0].value)


def test_exact_intervals_of_a_place() -> None:
    """0 of 10: the upper end of Clopper and Pearson is 1 - (α/2)^(1/10)."""
    assert place_shares([vote(0, "AB", "B", n) for n in range(10)])[0].high == pytest.approx(1 - 0.025**0.1)


def test_balance_is_tested_against_lots() -> None:
    even = [vote(0, "AB" if n % 2 else "BA", None, n) for n in range(60)]
    assert place_balance(even, ["A", "B"]).counts == {"A": (30, 30), "B": (30, 30)}
    assert place_balance(even, ["A", "B"]).statistic == 0
    assert place_balance(even, ["A", "B"]).p == 1
    uneven = [vote(0, "AB" if n % 4 else "BA", None, n) for n in range(60)]
    assert place_balance(uneven, ["A", "B"]).statistic == pytest.approx(2 * (15**2 + 15**2) / 30)
    assert place_balance(uneven, ["A", "B"]).p < 0.01
    assert place_balance([*even, vote(0, "ABC", None, 99)], ["A", "B", "C", "D"]).counts["C"] == (0, 0, 1)
    assert math.isnan(place_balance([], ["A", "B"]).p)


def test_lots_are_fair() -> None:
    """Sides drawn by lot give every p equally often."""
    generator = np.random.default_rng(0)
    found = [
        place_balance([vote(0, "".join(generator.permutation(list("ABC"))), None, n) for n in range(30)], list("ABC")).p
        for _ in range(60)
    ]
    assert 0.35 < np.mean(found) < 0.65
    assert sum(p < 0.1 for p in found) <= 14, "6 are expected, 15 come in 1 of 1,000"


def test_times_by_hand() -> None:
    found = answer_times([vote(0, "AB", None, n, seconds=float(n)) for n in range(101)])
    assert found.percentiles == (5, 25, 50, 75, 95)
    assert math.isnan(answer_times([vote(0, "AB", None, seconds=math.nan)]).percentiles[2])


def test_no_difference_is_rarely_seen_and_a_large_one_nearly_always() -> None:
    tiny = PowerSettings(difference=1e-6, items=30, simulations=1000)
    assert power(tiny, 20).chance < 0.05, "one side of a 95 % interval: 2.5 % and its noise"
    large = PowerSettings(difference=0.5, items=30, simulations=200)
    assert power(large, 20).chance > 0.98


def test_power_is_the_one_of_a_t_test_where_people_and_items_dont_differ_and_each_is_asked_once() -> None:
    """100 people, an item each, no ties, score 0.65: the normal approximation gives Φ((0.15 - 1.98 s) / s) = 0.88."""
    settings = PowerSettings(
        difference=0.3, items=100, per_participant=1, ties=0.0, people_spread=0.0, items_spread=0.0, simulations=2000
    )
    assert power(settings, 100).chance == pytest.approx(0.88, abs=0.04)


def test_the_fewest_participants_are_found() -> None:
    settings = PowerSettings(difference=0.3, items=30, simulations=300)
    participants, tried = find_participants(settings)
    chances = {one.participants: one.chance for one in tried}
    assert chances[participants] >= 0.8
    assert chances.get(participants - 1, 0.0) < 0.8
    assert f"{participants} participants with 30 of 30 items each" in power_summary(settings, participants, tried)
    assert all(one.error == pytest.approx(math.sqrt(one.chance * (1 - one.chance) / 300)) for one in tried)


def test_what_cant_be_seen_is_said() -> None:
    with pytest.raises(RecipeError, match=r"most: 10 participants give a power of .*, not 80 %"):
        find_participants(PowerSettings(difference=0.02, items=20, simulations=100, most=10))
    with pytest.raises(ValueError, match="difference must be less than 1 - ties"):
        PowerSettings(difference=0.8, ties=0.3)
