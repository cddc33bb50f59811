"""Changes over seeds: exact where nothing is random, with intervals that cover a truth over seeds and samples."""

import numpy as np
import pytest

from fairhuman.stats.bootstrap import change_over_seeds, relative_change

RUNS = 200
Pair = tuple[np.ndarray, np.ndarray]


def simulated(generator: np.random.Generator, seeds: int, of_seeds: float, of_samples: float) -> tuple[Pair, Pair]:
    """A true change of -0.1, which varies from seed to seed and from sample to sample."""
    n = 60
    areas_sn = np.tile(generator.gamma(9.0, 1.0, n), (seeds, 1))
    first_sn = areas_sn * generator.gamma(9.0, 1 / 9, n) * generator.gamma(400.0, 1 / 400, (seeds, n))
    change_sn = -0.1 + of_seeds * generator.normal(size=(seeds, 1)) + of_samples * generator.normal(size=n)
    return (first_sn, areas_sn), (first_sn * (1 + change_sn), areas_sn)


def test_no_change_is_zero_and_a_constant_one_has_no_width() -> None:
    areas_sn = np.random.default_rng(0).random((3, 20)) + 0.1
    first = (2.0 * areas_sn, areas_sn)
    none, half = change_over_seeds(first, first), change_over_seeds(first, (areas_sn, areas_sn))
    assert (none.value, none.n) == (0.0, 20)
    assert (none.low, none.high) == pytest.approx((0.0, 0.0), abs=1e-12)  # BLAS sums equal columns unequally
    assert (half.value, half.low, half.high) == pytest.approx((-0.5, -0.5, -0.5))


def test_the_value_is_the_mean_of_the_seeds_changes() -> None:
    generator = np.random.default_rng(1)
    first, last = simulated(generator, 4, 0.05, 0.05)
    each = [relative_change((first[0][s], first[1][s]), (last[0][s], last[1][s]), resamples=2).value for s in range(4)]
    assert change_over_seeds(first, last).value == pytest.approx(np.mean(each))


def test_one_seed_is_the_bootstrap_over_samples() -> None:
    first, last = simulated(np.random.default_rng(2), 1, 0.0, 0.1)
    crossed = change_over_seeds(first, last, resamples=8000)
    plain = relative_change((first[0][0], first[1][0]), (last[0][0], last[1][0]), resamples=8000)
    assert crossed.value == pytest.approx(plain.value)
    # stretched by t with 59 degrees of freedom over z: 2.001 / 1.960
    assert crossed.high - crossed.low == pytest.approx(1.021 * (plain.high - plain.low), rel=0.04)


def test_a_difference_is_paired_and_in_units_of_the_first_loss() -> None:
    generator = np.random.default_rng(3)
    first, last = simulated(generator, 5, 0.05, 0.05)
    better = (last[0] - 0.02 * first[0], last[1])
    difference = change_over_seeds(first, better, last)
    assert (difference.value, difference.low, difference.high) == pytest.approx((-0.02, -0.02, -0.02))
    loose = change_over_seeds(first, better)
    assert loose.high - loose.low > 0.01


@pytest.mark.parametrize(("of_seeds", "of_samples"), [(0.02, 0.0), (0.0, 0.1), (0.01, 0.1)])
def test_the_interval_covers_the_truth_with_five_seeds(of_seeds: float, of_samples: float) -> None:
    generator = np.random.default_rng(4)
    hits = 0
    for seed in range(RUNS):
        estimate = change_over_seeds(*simulated(generator, 5, of_seeds, of_samples), seed=seed, resamples=400)
        hits += estimate.low <= -0.1 <= estimate.high
    assert 0.91 <= hits / RUNS <= 0.995


def test_a_joint_interval_misses_as_rarely_as_it_says_with_three_seeds() -> None:
    """24 comparisons at 95 % together: 1 in 480 may miss. Ends that are extreme draws missed four times as often."""
    generator, areas_sn = np.random.default_rng(8), np.ones((3, 4))
    missed = 0
    for _ in range(4000):
        last = (np.broadcast_to(0.9 + 0.05 * generator.normal(size=(3, 1)), (3, 4)), areas_sn)
        interval = change_over_seeds((areas_sn, areas_sn), last, level=1 - 0.05 / 24, resamples=300)
        missed += not interval.low <= -0.1 <= interval.high
    assert 2 <= missed <= 16


def test_the_standard_error_is_the_spread_of_the_value_over_repetitions() -> None:
    generator = np.random.default_rng(6)
    found = [change_over_seeds(*simulated(generator, 5, 0.02, 0.1), resamples=400) for _ in range(RUNS)]
    spread = np.std([one.value for one in found], ddof=1)
    # the crossed bootstrap is on average too wide, never too narrow
    assert spread < 1.1 * np.sqrt(np.mean([one.standard_error**2 for one in found])) < 1.4 * spread


def test_samples_without_the_region_say_nothing() -> None:
    first, last = simulated(np.random.default_rng(5), 3, 0.02, 0.05)
    padded = [tuple(np.concatenate([part, np.zeros((3, 4))], axis=1) for part in pair) for pair in (first, last)]
    assert change_over_seeds(*padded) == change_over_seeds(first, last)  # type: ignore[arg-type]


def test_nothing_to_estimate_is_nan_and_bad_input_is_named() -> None:
    nothing, ones = np.zeros((2, 3)), np.ones((2, 3))
    assert np.isnan(change_over_seeds((nothing, nothing), (nothing, nothing)).value)
    assert np.isnan(change_over_seeds((ones, ones), (np.nan * ones, ones)).value)
    with pytest.raises(ValueError, match="the same shape"):
        change_over_seeds((ones, ones), (ones[:1], ones[:1]))
    with pytest.raises(ValueError, match="areas must be ≥ 0, got -1"):
        change_over_seeds((ones, ones), (ones, -ones))
    with pytest.raises(ValueError, match="level"):
        change_over_seeds((ones, ones), (ones, ones), level=95)
