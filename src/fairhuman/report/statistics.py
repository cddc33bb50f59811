"""Held-out losses with honest error bars: pooled ratios and their bootstrap intervals over samples.

A held-out loss is pooled, L = Σ_n e_n / Σ_n a_n, with e_n the summed error and a_n the area of sample n: the
loss of the `area` normalisation, not a mean of ratios. Samples without the region (a_n = 0) say nothing about
it and are left out.

The interval is the percentile bootstrap (Efron, Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13)
over whole samples: each of `resamples` draws takes n samples with replacement and forms the ratio of sums.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
CELLS_A_BLOCK = 4_000_000  # counts in memory at once: 32 MB


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, its interval and the number of samples behind it; NaN where there is nothing to estimate."""

    value: float
    low: float
    high: float
    n: int


def pooled_ratio(
    errors_n: Sequence[float] | Array,
    areas_n: Sequence[float] | Array,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Σ errors / Σ areas over samples, with its bootstrap interval.

    Raises:
        ValueError: the lengths differ, an area is negative, or `level` is outside (0, 1).
    """
    errors_n, areas_n = _checked(errors_n, areas_n)
    taken = areas_n > 0
    table_nc = np.stack([errors_n[taken], areas_n[taken]], axis=1)

    def ratio(sums_bc: Array) -> Array:
        return np.asarray(sums_bc[:, 0] / sums_bc[:, 1])

    return _bootstrap(table_nc, ratio, resamples, level, seed)


def relative_change(
    first: tuple[Sequence[float] | Array, Sequence[float] | Array],
    last: tuple[Sequence[float] | Array, Sequence[float] | Array],
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """L_last / L_first - 1, each L a pooled ratio (errors, areas) of the *same* samples, noise and timesteps.

    Both evaluations are resampled together, so what they share (a hard sample, a large timestep) cancels.
    Only samples that have the region in both count.

    Raises:
        ValueError: the two evaluations have different numbers of samples, or as in `pooled_ratio`.
    """
    errors0_n, areas0_n = _checked(*first)
    errors1_n, areas1_n = _checked(*last)
    if len(errors0_n) != len(errors1_n):
        raise ValueError(f"a paired change needs the same samples: {len(errors0_n)} against {len(errors1_n)}")
    taken = (areas0_n > 0) & (areas1_n > 0)
    table_nc = np.stack([errors0_n, areas0_n, errors1_n, areas1_n], axis=1)[taken]

    def change(sums_bc: Array) -> Array:
        # (e1 a0 - e0 a1) / (e0 a1) instead of a ratio of ratios minus one: exactly 0 where nothing changed
        before_b, after_b = sums_bc[:, 0] * sums_bc[:, 3], sums_bc[:, 2] * sums_bc[:, 1]
        return np.asarray((after_b - before_b) / before_b)

    return _bootstrap(table_nc, change, resamples, level, seed)


def _checked(errors: Sequence[float] | Array, areas: Sequence[float] | Array) -> tuple[Array, Array]:
    errors_n, areas_n = np.asarray(errors, dtype=np.float64), np.asarray(areas, dtype=np.float64)
    if errors_n.ndim != 1 or errors_n.shape != areas_n.shape:
        raise ValueError(f"errors and areas must be lists of one length, got {errors_n.shape}, {areas_n.shape}")
    if (areas_n < 0).any():
        raise ValueError(f"areas must be ≥ 0, got {areas_n.min()}")
    return errors_n, areas_n


def _bootstrap(
    table_nc: Array, statistic: Callable[[Array], Array], resamples: int, level: float, seed: int
) -> Estimate:
    """The statistic of the column sums of `table_nc`, and its percentile interval over resampled rows."""
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")
    n = len(table_nc)
    if n == 0 or not np.isfinite(table_nc).all():
        return Estimate(np.nan, np.nan, np.nan, n)
    generator = np.random.default_rng(seed)
    values: list[Array] = []
    block = max(1, CELLS_A_BLOCK // n)
    with np.errstate(divide="ignore", invalid="ignore"):  # a loss of exactly zero has no relative change: NaN
        value = float(statistic(table_nc.sum(axis=0, keepdims=True))[0])
        for start in range(0, resamples, block):
            counts_bn = generator.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - start))
            values.append(statistic(counts_bn @ table_nc))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(values), [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n)
