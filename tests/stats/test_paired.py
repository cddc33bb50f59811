"""Means, paired differences and corrected tests."""

import math

import numpy as np
import pytest

from fairhuman.stats.paired import holm, paired_difference, ratio


def mean(values, prompts, **options):
    return ratio(values, np.ones(len(values)), prompts, **options)


def compare(a, b, prompts):
    ones = np.ones(len(a))
    return paired_difference((a, ones), (b, ones), prompts, resamples=200)


def test_the_mean_counts_pictures_and_its_error_is_that_of_independent_prompts():
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = mean(values, range(400))
    assert found.value == pytest.approx(values.mean())
    assert found.standard_error == pytest.approx(values.std(ddof=1) / 20)
    assert (found.low, found.high) == pytest.approx((found.value - 0.2, found.value + 0.2), abs=0.03)
    assert (found.n, found.prompts) == (400, 400)


def test_pictures_of_one_prompt_are_not_independent():
    """Copies of a picture add nothing."""
    values = np.random.default_rng(1).normal(size=50)
    alone, copied = mean(values, range(50)), mean(np.repeat(values, 4), np.repeat(np.arange(50), 4))
    assert copied.standard_error == pytest.approx(alone.standard_error)
    assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))
    assert (copied.n, copied.prompts) == (200, 50)


def test_intervals_have_their_coverage():
    rng = np.random.default_rng(2)
    hits = 0
    for _ in range(300):
        means_p = rng.normal(size=40)
        prompts = rng.integers(0, 40, 120)
        found = mean(means_p[prompts] + rng.normal(size=120), prompts, resamples=300)
        hits += found.low <= 0 <= found.high
    assert 0.89 <= hits / 300 <= 0.99


def test_unknown_values_are_left_out_and_infinite_ones_refused():
    found = mean([1.0, math.nan, 3.0], ["a", "a", "b"])
    assert (found.value, found.n, found.prompts) == (2.0, 2, 2)
    assert math.isnan(mean([math.nan], ["a"]).value)
    assert mean([], []).n == 0
    with pytest.raises(ValueError, match=r"^values must be finite or NaN, got an infinity for image 1$"):
        mean([0.0, math.inf], [0, 1])
    with pytest.raises(ValueError, match=r"got 1 prompts and values of shapes \[\(2,\), \(2,\)\]"):
        mean([0.0, 1.0], [0])


def test_one_prompt_has_a_value_and_no_error():
    found = mean([1.0, 2.0], ["a", "a"])
    assert found.value == 1.5
    assert math.isnan(found.standard_error)


def test_pairing_removes_shared_variation():
    rng = np.random.default_rng(3)
    hard = rng.normal(0, 10, 100)
    a, b = hard + 0.3 + rng.normal(0, 0.5, 100), hard + rng.normal(0, 0.5, 100)
    found = compare(a, b, range(100))
    assert found.measured.value == pytest.approx((a - b).mean())
    assert found.measured.low > 0
    assert found.p < 0.01
    assert found.measured.standard_error < 0.1 < mean(a, range(100)).standard_error
    assert compare(b, a, range(100)).measured.value == pytest.approx(-found.measured.value)


def test_the_test_is_exact_for_few_prompts():
    """Five prompts that all gain: of 32 patterns of signs, two are as extreme."""
    assert compare([1, 2, 3, 4, 5], [0, 0, 0, 0, 0], range(5)).p == pytest.approx(2 / 32)
    assert compare([1.0, 1.0], [1.0, 1.0], [0, 1]).p == 1.0
    assert math.isnan(compare([], [], []).p)


def test_equal_pairs_are_told_from_a_difference_of_zero():
    equal = paired_difference(([0.9, 0.0], [1, 0]), ([0.9, 0.0], [1, 0]), "ab")
    assert (equal.equal, equal.p, equal.measured.low, equal.measured.high) == (True, 1.0, 0.0, 0.0)
    assert not compare([1.0, 2.0], [2.0, 1.0], [0, 1]).equal
    assert not compare([], [], []).equal


def test_the_test_is_right_where_nothing_differs():
    rng = np.random.default_rng(4)
    ps = [compare(rng.normal(size=30), rng.normal(size=30), range(30)).p for _ in range(200)]
    assert 0.01 <= np.mean(np.array(ps) < 0.05) <= 0.1


def test_a_ratio_weighs_pictures_by_their_bottoms():
    """Two hands in one picture count twice."""
    found = ratio([2.0, 0.0, 0.5, math.nan], [2, 0, 1, 1], "abcd")
    assert (found.value, found.n, found.prompts) == (2.5 / 3, 3, 3)
    assert math.isnan(ratio([0.0], [0], "a").value)


def test_a_difference_of_ratios_with_denominators_of_their_own():
    """One more false face raises neither pairing nor n; the error agrees with the bootstrap's spread."""
    rng = np.random.default_rng(5)
    counts_a, counts_b = rng.integers(0, 4, 300), rng.integers(0, 4, 300)
    tops_a, tops_b = counts_a * 0.9 + rng.normal(0, 0.1, 300), counts_b * 0.8 + rng.normal(0, 0.1, 300)
    found = paired_difference((tops_a, counts_a), (tops_b, counts_b), range(300))
    assert found.measured.value == pytest.approx(tops_a.sum() / counts_a.sum() - tops_b.sum() / counts_b.sum())
    assert found.measured.n == 300
    spread = (found.measured.high - found.measured.low) / (2 * 1.96)
    assert found.measured.standard_error == pytest.approx(spread, rel=0.15)
    assert found.p < 0.001


def test_prompts_with_nothing_found_give_no_information():
    """Of three prompts, one has a hand by the first method and two by the other."""
    a, b = ([0.9, 0.0, 0.0], [1, 0, 0]), ([0.8, 0.7, 0.0], [1, 1, 0])
    found = paired_difference(a, b, "xyz").measured
    assert (found.n, found.prompts, found.informing, found.independent) == (3, 3, 1, 1)
    assert ratio(*b, "xyz").independent == 2
    assert mean([1.0, 2.0], "xy").independent == 2


def test_holm_against_a_worked_example():
    """Four tests: 0.005 × 4, 0.01 × 3, 0.03 × 2, and the last no smaller than the one before."""
    assert holm([0.03, 0.005, 0.04, 0.01]) == pytest.approx([0.06, 0.02, 0.06, 0.03])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []
    corrected = holm([math.nan, 0.02])
    assert math.isnan(corrected[0])
    assert corrected[1] == 0.02
