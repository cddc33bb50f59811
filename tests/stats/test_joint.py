"""Joint draws of several methods: the same numbers as one at a time, less noise in differences, honest intervals."""

import numpy as np
import pytest

from fairhuman.stats.bootstrap import change_over_seeds
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
    with pytest.raises(ValueError, match=r"leave ten of 100 draws, got 0.95"):
        joint_changes(first, last, resamples=100).estimate(lambda c: c[..., 0, 0])
