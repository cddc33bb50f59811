"""Numbers have the digits that their interval allows."""

import math

import pytest

from fairhuman.report.text import (
    decimals,
    estimate_text,
    fine_percent,
    funnel_rows,
    listed,
    percent,
    plural,
    prompt_count,
)
from fairhuman.stats.estimate import Estimate


@pytest.mark.parametrize(
    ("value", "low", "high", "text"),
    [
        (0.83121, 0.78123, 0.87911, "0.83 [0.78, 0.88]"),
        (0.8, 0.65, 0.95, "0.80 [0.65, 0.95]"),
        (0.83121, 0.83001, 0.83199, "0.8312 [0.8300, 0.8320]"),
        (0.8, 0.3, 1.3, "0.8 [0.3, 1.3]"),
        (163.72, 120.1, 210.9, "164 [120, 211]"),
        (-0.0001, -0.04, 0.05, "0.00 [-0.04, 0.05]"),
        (0.25, 0.25, 0.25, "0.25"),
        (0.25, math.nan, math.nan, "0.25"),
        (1e-14, 0.0, 3e-14, "0"),
        (math.nan, math.nan, math.nan, "nothing to measure"),
    ],
)
def test_a_value_has_no_digit_that_its_interval_denies(value: float, low: float, high: float, text: str) -> None:
    assert estimate_text(Estimate(value, low, high, 8)) == text


def test_signs_and_shares() -> None:
    assert estimate_text(Estimate(0.021, -0.011, 0.052, 8), signed=True) == "+0.02 [-0.01, +0.05]"
    assert estimate_text(Estimate(-0.1234, -0.15, -0.1, 8), signed=True, percent=True) == "-12 % [-15, -10]"
    assert estimate_text(Estimate(-0.05, -0.05, -0.05, 8), "{:+.1f}", signed=True, percent=True) == "-5.0 %"
    assert estimate_text(Estimate(0.0, 0.0, 0.0, 8), "{:+.3g}", signed=True) == "0"
    assert estimate_text(Estimate(-0.02, -0.06, 0.001, 8), signed=True) == "-0.02 [-0.06, 0.00]"
    assert (fine_percent(0.02), fine_percent(0.0004), fine_percent(0.0)) == ("2.0 %", "0.04 %", "0 %")
    assert (percent(0.1234), percent(-0.0001, 1, signed=True), percent(math.nan)) == ("12 %", "+0.0 %", "-")


@pytest.mark.parametrize("width", [3e-5, 0.0011, 0.02, 0.29, 0.3, 0.5, 1.0, 2.9, 5.0])
def test_the_last_digit_is_a_small_part_of_the_interval(width: float) -> None:
    assert 0.0199 <= 10 ** -decimals(0.0, width) / width <= 0.201


def test_words_in_a_row() -> None:
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]
    assert (plural(1, "pair"), plural(8, "pair"), plural(1200, "pair")) == ("1 pair", "8 pairs", "1,200 pairs")


def test_equal_prompts_are_counted_once() -> None:
    assert prompt_count(["a", "b"]) == "2 prompts"
    assert prompt_count(["a", "b", "a", "a"]) == "4 pictures of 2 prompts"
    assert prompt_count(["a", None]) == "2 pictures"


def test_rows_of_a_funnel_say_what_each_stage_loses() -> None:
    stages = [("found", 1200), ("readable", 1200), ("shorter side", 150)]
    assert funnel_rows(stages) == [("found", "1,200", ""), ("readable", "1,200", ""), ("shorter side", "150", "-1,050")]
    assert funnel_rows([]) == []
