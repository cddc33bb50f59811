"""Joint draws of several methods: the same numbers as one at a time, less noise in differences, honest intervals."""

import numpy as np
import pytest

from fairhuman.stats.bootstrap import change_over_seeds
from fairhuman.stats.estimate import Estimate
from fairhuman.stats.fronts import hypervolume
from fairhuman.stats.joint import joint_changes

REFERENCE = (0.005, 0.0)
TRUE = np.array([[-0.001, -0.010], [0.0, -0.015], [0.001, -0.020], [0.003, -0.022]])


def measured(true_pk: np.ndarray, seed: int, s: int = 5, n: int = 80) -> tuple[np.ndarray, np.ndarray]:
    """Errors and areas of methods that share most of the noise of seeds and pictures."""
    generator = np.random.default_rng(seed)
    p, k = true_pk.shape
    shape = (p, s, n, k)
    first = generator.gamma(2.0, 1.0, (1, s, n, k)) * np.ones(shape)
    noise = generator.normal(0, 0.02, (1, 1, n, k)) + generator.normal(0, 0.001, (1, s, 1, k))
    noise = noise + generator.normal(0, 0.005, (p, 1, n, k)) + generator.normal(0, 3e-4, (p, s, 1, k))
    last = first * (1 + true_pk[:, None, None] + noise)
    return tuple(np.stack([each, np.ones(shape)], axis=-1) for each in (first, last))


def test_a_single_change_has_the_interval_of_change_over_seeds() -> None:
    first, last = measured(TRUE, 0)
    joint = joint_changes(first, last, resamples=8000)
    mine = joint.estimate(lambda c: c[..., 2, 1])
    known = change_over_seeds(
        (first[2, :, :, 1, 0], first[2, :, :, 1, 1]), (last[2, :, :, 1, 0], last[2, :, :, 1, 1]), resamples=8000
    )
    assert joint.value_pk[2, 1] == pytest.approx(known.value)
    assert [mine.value, mine.low, mine.high] == pytest.approx([known.value, known.low, known.high], abs=2e-4)
    assert mine.n == 80


def test_a_difference_is_paired() -> None:
    joint = joint_changes(*measured(TRUE, 1), resamples=2000)
    alone, pair = joint.estimate(lambda c: c[..., 2, 1]), joint.estimate(lambda c: c[..., 2, 1] - c[..., 1, 1])
    assert pair.high - pair.low < 0.6 * (alone.high - alone.low)
    same = joint.estimate(lambda c: c[..., 2, 1] - c[..., 2, 1])
    assert (same.low, same.value, same.high) == (0.0, 0.0, 0.0)


def test_the_interval_of_a_difference_of_fronts_covers_the_truth() -> None:
    true = np.concatenate([TRUE, TRUE[1:3]])

    def more(c: np.ndarray) -> np.ndarray:
        return hypervolume(c[..., 4:, :], REFERENCE) - hypervolume(c[..., :4, :], REFERENCE)

    found = [joint_changes(*measured(true, seed), resamples=600).estimate(more) for seed in range(60)]
    truth = float(more(true))
    hits = sum(one.low <= truth <= one.high for one in found)
    assert hits >= 54, hits
    assert abs(np.mean([one.value for one in found]) - truth) < 0.2 * (found[0].high - found[0].low)


def unequal(repeats: int) -> tuple[list[Estimate], list[Estimate], list[float]]:
    """Hypervolumes of nine equally good points minus that of one more of them, that of equally many, and the raw ones;
    the truth is 0.
    """
    true = np.tile([[0.0, -0.004]], (10, 1))

    def more(c: np.ndarray) -> np.ndarray:
        return hypervolume(c[..., 1:, :], REFERENCE) - hypervolume(c[..., :1, :], REFERENCE)

    def even(c: np.ndarray) -> np.ndarray:
        return hypervolume(c[..., 1:2, :], REFERENCE) - hypervolume(c[..., :1, :], REFERENCE)

    joints = [joint_changes(*measured(true, seed, n=40), resamples=500) for seed in range(repeats)]
    raw = [float(more(joint.value_pk)) for joint in joints]
    return [joint.estimate(more) for joint in joints], [joint.estimate(even) for joint in joints], raw


@pytest.mark.parametrize("repeats", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_the_bias_of_the_best_of_many_is_reduced_and_equally_many_have_none(repeats: int) -> None:
    many, even, raw = unequal(repeats)
    volume = 0.005 * 0.004
    assert np.mean(raw) > 0.1 * volume, "nine points beat an equally good one by noise alone"
    corrected = np.mean([one.value for one in many])
    assert 0.0 < corrected < 0.75 * np.mean(raw), (corrected / volume, np.mean(raw) / volume)
    values = np.array([one.value for one in even])
    assert abs(values.mean()) < 4 * values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 0.5 * corrected
    hits = sum(one.low <= 0.0 <= one.high for one in even)
    assert hits >= 0.95 * repeats - 2 * (0.95 * 0.05 * repeats) ** 0.5, f"{hits} of {repeats}"


def test_a_statistic_with_a_least_value_is_never_estimated_below_it() -> None:
    true = np.tile([[0.0, 0.0]], (9, 1))
    found = [
        joint_changes(*measured(true, seed), resamples=500).estimate(lambda c: hypervolume(c, REFERENCE), least=0.0)
        for seed in range(10)
    ]
    assert min(one.low for one in found) >= 0.0
    assert all(one.low <= one.value <= one.high for one in found)


def test_a_band_is_that_of_each_limit_by_itself() -> None:
    joint = joint_changes(*measured(TRUE, 4), resamples=2000)
    low_l, median_l, high_l = joint.band(lambda c: c[..., 1])
    for row in range(len(TRUE)):
        alone = joint.band(lambda c, row=row: c[..., row : row + 1, 1])
        assert [low_l[row], median_l[row], high_l[row]] == pytest.approx([float(one[0]) for one in alone])
        interval = joint.estimate(lambda c, row=row: c[..., row, 1])
        assert [low_l[row], high_l[row]] == pytest.approx([interval.low, interval.high], abs=3e-4)
    assert (low_l < median_l).all()
    assert (median_l < high_l).all()


def test_draws_without_a_region_are_left_out_and_told() -> None:
    first, last = measured(TRUE, 5, n=20)
    for table in (first, last):
        table[:, :, 2:, 1] = 0.0
    joint = joint_changes(first, last, resamples=1000)
    assert joint.lost == pytest.approx((18 / 20) ** 20, abs=0.05)
    found = joint.estimate(lambda c: 1 / (1 / c[..., 1, 1]))
    assert np.isfinite([found.low, found.high]).all()
    infinite = joint.estimate(lambda c: np.where(np.isfinite(c[..., 1, 1]), c[..., 1, 1], np.inf))
    assert [infinite.low, infinite.high] == pytest.approx([found.low, found.high], abs=1e-12)


def test_samples_without_a_region_count_for_the_other_losses_alone() -> None:
    first, last = measured(TRUE, 2)
    for table in (first, last):
        table[:, :, ::2, 1] = 0.0
    joint = joint_changes(first, last, resamples=500)
    kept = joint_changes(first[:, :, 1::2], last[:, :, 1::2], resamples=500)
    assert joint.value_pk[:, 1] == pytest.approx(kept.value_pk[:, 1])
    assert np.isfinite(joint.estimate(lambda c: c[..., 0, 1]).low)


def test_wrong_input_is_refused() -> None:
    first, last = measured(TRUE, 3)
    with pytest.raises(ValueError, match=r"expected errors and areas \[P, S, N, K, 2\] twice"):
        joint_changes(first, last[:2])
    with pytest.raises(ValueError, match="areas must be"):
        joint_changes(first, np.concatenate([last[..., :1], -last[..., 1:]], axis=-1))
    with pytest.raises(ValueError, match=r"level must lie between 0 and 1, got 1.0"):
        joint_changes(first, last, resamples=100).estimate(lambda c: c[..., 0, 0], level=1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "numbers"), [(3, 4), (5, 8), (8, 6)])
@pytest.mark.parametrize("of_samples", [1e-4, 1e-2])
def test_joint_intervals_of_few_seeds_cover(seeds: int, numbers: int, of_samples: float) -> None:
    generator, repeats, miss = np.random.default_rng(1), 1500, 0.05 / numbers
    missed = 0
    for _ in range(repeats):
        shape = (2, seeds, 40, 1)
        first = generator.gamma(2.0, 1.0, (1, *shape[1:])) * np.ones(shape)
        noise = generator.normal(0, of_samples, (2, 1, 40, 1)) + generator.normal(0, 1e-3, (2, seeds, 1, 1))
        tables = (np.stack([each, np.ones(shape)], axis=-1) for each in (first, first * (1 + noise)))
        found = joint_changes(*tables, resamples=1000).estimate(lambda c: c[..., 0, 0] - c[..., 1, 0], 1 - miss)
        missed += not found.low <= 0.0 <= found.high
    assert missed <= repeats * miss + 2 * (repeats * miss) ** 0.5, f"{missed} of {repeats}"
