"""Pooled ratios: exact for constant data, with intervals of the stated coverage."""

import numpy as np
import pytest

from fairhuman.stats.bootstrap import pooled_ratio, ratio_difference, relative_change

RUNS = 300


def simulated(generator: np.random.Generator, n: int = 80) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Areas, errors before and after: true ratios 2.0 and 1.8; a sample's difficulty is shared."""
    areas = generator.gamma(3.0, 1.0, n)
    difficulty = generator.gamma(4.0, 0.25, n)
    before = areas * 2.0 * difficulty
    after = areas * 1.8 * difficulty * generator.gamma(400.0, 1 / 400.0, n)
    return areas, before, after


def test_pooled_ratio_is_a_ratio_of_sums_not_a_mean_of_ratios() -> None:
    assert pooled_ratio([1.0, 9.0], [1.0, 3.0]).value == pytest.approx(2.5)


def test_constant_data_have_an_interval_of_no_width() -> None:
    estimate = pooled_ratio([3.0] * 20, [4.0] * 20)
    assert (estimate.value, estimate.low, estimate.high, estimate.n) == (0.75, 0.75, 0.75, 20)
    change = relative_change(([3.0] * 20, [4.0] * 20), ([1.5] * 20, [4.0] * 20))
    assert (change.value, change.low, change.high, change.n) == (-0.5, -0.5, -0.5, 20)


def test_change_divides_each_evaluation_by_its_own_area() -> None:
    change = relative_change(([2.0] * 5, [1.0] * 5), ([3.0] * 5, [2.0] * 5))
    assert (change.value, change.low, change.high) == (-0.25, -0.25, -0.25)


def test_no_change_is_exactly_zero() -> None:
    errors, areas = np.random.default_rng(0).random((2, 50)) + 0.1
    change = relative_change((errors, areas), (errors, areas))
    assert (change.value, change.low, change.high) == (0.0, 0.0, 0.0)


def test_interval_of_the_ratio_covers_the_truth() -> None:
    generator = np.random.default_rng(1)
    hits = 0
    for seed in range(RUNS):
        areas, before, _ = simulated(generator)
        estimate = pooled_ratio(before, areas, seed=seed, resamples=500)
        hits += estimate.low <= 2.0 <= estimate.high
    assert 0.90 <= hits / RUNS <= 0.98


def test_paired_interval_covers_the_truth_and_is_far_narrower_than_an_unpaired_one() -> None:
    generator = np.random.default_rng(2)
    hits, widths, unpaired = 0, [], []
    for seed in range(RUNS):
        areas, before, after = simulated(generator)
        change = relative_change((before, areas), (after, areas), seed=seed, resamples=500)
        hits += change.low <= -0.1 <= change.high
        widths.append(change.high - change.low)
        shuffled = generator.permutation(len(areas))
        loose = relative_change((before, areas), (after[shuffled], areas[shuffled]), seed=seed, resamples=500)
        unpaired.append(loose.high - loose.low)
    assert 0.90 <= hits / RUNS <= 0.98
    assert np.mean(widths) < 0.2 * np.mean(unpaired)


def test_the_standard_error_is_the_spread_of_the_value_over_repetitions() -> None:
    generator = np.random.default_rng(4)
    found = []
    for seed in range(RUNS):
        areas, before, after = simulated(generator)
        found.append(relative_change((before, areas), (after, areas), seed=seed, resamples=500))
    errors = [one.standard_error for one in found]
    assert np.mean(errors) == pytest.approx(np.std([one.value for one in found], ddof=1), rel=0.15)
    widths = [one.high - one.low for one in found]
    assert np.mean(widths) == pytest.approx(2 * 1.96 * np.mean(errors), rel=0.05)
    assert pooled_ratio([3.0], [2.0]).plain() == {"value": 1.5, "low": 1.5, "high": 1.5, "n": 1, "standard_error": None}


def test_samples_without_the_region_change_nothing() -> None:
    with_absent = pooled_ratio([1.0, 0.0, 3.0, 0.0], [1.0, 0.0, 2.0, 0.0], seed=3)
    assert with_absent == pooled_ratio([1.0, 3.0], [1.0, 2.0], seed=3)
    assert with_absent.n == 2


def test_the_seed_decides_and_blocks_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    errors, areas = np.random.default_rng(4).random((2, 40)) + 0.1
    whole = pooled_ratio(errors, areas, seed=5)
    assert whole == pooled_ratio(errors, areas, seed=5)
    assert whole != pooled_ratio(errors, areas, seed=6)
    monkeypatch.setattr("fairhuman.stats.bootstrap.CELLS_PER_BLOCK", 1000)
    in_blocks = pooled_ratio(errors, areas, seed=5)
    assert in_blocks.low == pytest.approx(whole.low)
    assert in_blocks.high == pytest.approx(whole.high)


def test_draws_without_an_area_are_left_out_and_give_no_nan() -> None:
    """One sample of eight has the region: a third of the draws miss it."""
    areas = np.array([2.0, 0, 0, 0, 0, 0, 0, 0])
    same = ratio_difference((0.9 * areas, areas), (0.9 * areas, areas))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)
    assert same.standard_error == 0.0
    areas[1] = 1.0
    found = ratio_difference((0.9 * areas, areas), (areas * np.array([0.5] + [0.7] * 7), areas))
    assert found.value == pytest.approx((1.0 + 0.7) / 3 - 0.9)
    assert (found.low, found.high) == pytest.approx((-0.4, -0.2)), "only one of the two was drawn"


def test_nothing_to_estimate_is_nan_and_bad_input_is_named() -> None:
    assert np.isnan(pooled_ratio([0.0, 0.0], [0.0, 0.0]).value)
    assert np.isnan(pooled_ratio([np.nan, 1.0], [1.0, 1.0]).value)
    with pytest.raises(ValueError, match="same samples, got 1 and 2"):
        relative_change(([1.0], [1.0]), ([1.0, 2.0], [1.0, 1.0]))
    with pytest.raises(ValueError, match="areas must be ≥ 0, got -1"):
        pooled_ratio([1.0], [-1.0])
    with pytest.raises(ValueError, match="equally long"):
        pooled_ratio([1.0, 2.0], [1.0])
    with pytest.raises(ValueError, match="level"):
        pooled_ratio([1.0], [1.0], level=95)
