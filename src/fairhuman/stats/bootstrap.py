"""Pooled ratios such as held-out losses, and their bootstrap intervals over samples.

A held-out loss is pooled, L = Σ_n e_n / Σ_n a_n, with e_n the summed error and a_n the area of sample n: the
loss of the `area` normalisation, not a mean of ratios. Samples without the region (a_n = 0) carry no information
about it and are left out.

The standard error and the percentile interval are those of the bootstrap (Efron, Tibshirani, An Introduction to the
Bootstrap, 1993, ch. 6 and 13) over whole samples: each of `resamples` draws takes n samples with replacement and forms
the ratio of sums. A draw for which the statistic is undefined, such as one without any area, is left out.
If several seeds were evaluated on the same samples, seeds and samples are both resampled (`change_over_seeds`).
"""

from collections.abc import Callable, Iterator, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from fairhuman.stats.estimate import Estimate

Array = NDArray[np.float64]
PERCENTILES = 0.95  # up to this level an interval over seeds is of the draws' percentiles
CELLS_PER_BLOCK = 4_000_000  # resampling counts held in memory at once: 32 MB


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
    seed: int = 0,
) -> Estimate:
    """L_last / L_first - 1, each L a pooled ratio (errors, areas) of the *same* samples, noise and timesteps.

    Both evaluations are resampled together, so shared effects (a hard sample, a large timestep) cancel.
    Only samples that have the region in both evaluations are used.

    Raises:
        ValueError: the two evaluations have different numbers of samples, or as in `pooled_ratio`.
    """
    table_nc = _paired_table(first, last)
    table_nc = table_nc[(table_nc[:, 1] > 0) & (table_nc[:, 3] > 0)]

    def change(sums_bc: Array) -> Array:
        # (e1 a0 - e0 a1) / (e0 a1) instead of a ratio of ratios minus one: exactly 0 if nothing changed
        before_b, after_b = sums_bc[:, 0] * sums_bc[:, 3], sums_bc[:, 2] * sums_bc[:, 1]
        return np.asarray((after_b - before_b) / before_b)

    return _bootstrap(table_nc, change, resamples, seed=seed)


def ratio_difference(
    first: tuple[Sequence[float] | Array, Sequence[float] | Array],
    last: tuple[Sequence[float] | Array, Sequence[float] | Array],
    *,
    resamples: int = 2000,
) -> Estimate:
    """r_last - r_first, each a pooled ratio of the *same* samples, which are resampled together.

    All samples are used, including those that contribute 0 to a denominator.

    Raises:
        ValueError: as in `relative_change`.
    """

    def difference(sums_bc: Array) -> Array:
        return np.asarray(sums_bc[:, 2] / sums_bc[:, 3] - sums_bc[:, 0] / sums_bc[:, 1])

    return _bootstrap(_paired_table(first, last), difference, resamples)


def change_over_seeds(
    first: tuple[Array, Array],
    last: tuple[Array, Array],
    against: tuple[Array, Array] | None = None,
    *,
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean over S seeds of (L_last - L_against) / L_first; `against` defaults to `first`.

    Each argument holds errors and areas [S, N] of the same N samples in the same order; noise and timesteps are the
    same within a seed. Each L is the pooled ratio of one seed's row. Without `against` this is the mean relative
    change; with it, the difference of two methods that started from the same first losses.

    Seeds and samples are crossed, so each draw resamples the samples (the same ones for all seeds) and, independently,
    the seeds (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007: intervals are not too short on
    average). Each draw takes S - 1 of the S seeds, which makes the variance between seeds unbiased (Rao, Wu, JASA
    83(401), 1988). As S is small, the percentile interval is stretched about the value by t_ν / z, with
    Welch-Satterthwaite's ν = (v_S + v_N)² / (v_S² / (S - 1) + v_N² / (N - 1)) from the variances of the mean over
    seeds, v_S due to seeds and v_N due to samples. Above 95 %, as of joint intervals, the extreme draws of a few seeds
    are one seed repeated and say little: there the interval is value ± t_ν s, with the standard deviation s of the
    draws. With one seed the interval does not cover other seeds.

    Raises:
        ValueError: the shapes differ, an area is negative, or `level` is outside (0, 1).
    """
    table_snc = _seed_table(first, last, first if against is None else against)
    return _over_seeds(table_snc[:, (table_snc[:, :, 1::2] > 0).all(axis=(0, 2))], resamples, level, seed)


def ratio_over_seeds(own: tuple[Array, Array], against: tuple[Array, Array] | None = None) -> Estimate:
    """Mean over S seeds of r_own - r_against, each a pooled ratio of one seed's row; without `against`, of r_own.

    Each argument holds numerators and denominators [S, N] of the same N samples; a denominator may be 0. Intervals are
    those of `change_over_seeds`.

    Raises:
        ValueError: as in `change_over_seeds`.
    """
    ones = np.ones_like(np.asarray(own[0], dtype=np.float64))
    other = (np.zeros_like(ones), ones) if against is None else against
    return _over_seeds(_seed_table((ones, ones), own, other))


def _over_seeds(table_snc: Array, resamples: int = 2000, level: float = 0.95, seed: int = 0) -> Estimate:
    """See `change_over_seeds`; draws without a denominator are left out."""
    s, n = table_snc.shape[:2]
    _check_level(level)
    if s == 0 or n == 0 or not np.isfinite(table_snc).all():
        return Estimate(np.nan, np.nan, np.nan, n)
    generator = np.random.default_rng(seed)
    changes_s, changes_bs = _changes_by_seed(table_snc, resamples, generator)
    known_b = np.isfinite(changes_bs).all(axis=1)
    if not (np.isfinite(changes_s).all() and known_b.any()):
        return Estimate(np.nan, np.nan, np.nan, n)
    weights_bs = seed_weights(generator, s, resamples)
    tail = (1 - level) / 2
    means_b = (weights_bs * changes_bs).sum(axis=1)[known_b]
    value = float(changes_s.mean())
    of_seeds = float(changes_s.var(ddof=1)) / s if s > 1 else 0.0
    of_samples = float(changes_bs[known_b].mean(axis=1).var())
    if level > PERCENTILES:
        half = t_quantile(of_seeds, of_samples, s, n, tail) * float(means_b.std())
        return Estimate(value, value - half, value + half, n, _spread(means_b, n))
    factor = stretch(of_seeds, of_samples, s, n, tail)
    low, high = (float(value + factor * (end - value)) for end in np.quantile(means_b, [tail, 1 - tail]))
    return Estimate(value, low, high, n, _spread(means_b, n))


def _changes_by_seed(table_snc: Array, resamples: int, generator: np.random.Generator) -> tuple[Array, Array]:
    """Return the relative change of each seed [S], and those of `resamples` draws of samples [B, S]."""

    def changes(sums_bsc: Array) -> Array:
        losses_bsk = sums_bsc[..., ::2] / sums_bsc[..., 1::2]
        return np.asarray((losses_bsk[..., 1] - losses_bsk[..., 2]) / losses_bsk[..., 0])

    n = table_snc.shape[1]
    drawn: list[Array] = []
    with np.errstate(divide="ignore", invalid="ignore"):
        changes_s = changes(table_snc.sum(axis=1))
        for counts_bn in sample_counts(generator, n, resamples, n):
            drawn.append(changes(np.einsum("bn,snc->bsc", counts_bn, table_snc, optimize=True)))
    return changes_s, np.concatenate(drawn)


def sample_counts(generator: np.random.Generator, n: int, resamples: int, columns: int) -> Iterator[Array]:
    """How often each of N samples is drawn, [B, N], in blocks of draws with `columns` numbers a draw in memory."""
    block = max(1, CELLS_PER_BLOCK // columns)
    for start in range(0, resamples, block):
        yield np.asarray(generator.multinomial(n, np.full(n, 1 / n), size=min(block, resamples - start)), np.float64)


def seed_weights(generator: np.random.Generator, s: int, resamples: int) -> Array:
    """Weights of the seeds in draws that take S - 1 of S seeds, [B, S]; a single seed has weight 1."""
    picked = max(s - 1, 1)
    return np.asarray(generator.multinomial(picked, np.full(s, 1 / s), size=resamples) / picked)


def _seed_table(*evaluations: tuple[Array, Array]) -> Array:
    """Return errors and areas of all evaluations side by side, [S, N, 2 x evaluations]."""
    columns = [np.asarray(column, dtype=np.float64) for pair in evaluations for column in pair]
    shapes = {column.shape for column in columns}
    if len(shapes) > 1 or columns[0].ndim != 2:
        raise ValueError(f"errors and areas must all have the same shape [seeds, samples], got {sorted(shapes)}")
    table_snc = np.stack(columns, axis=2)
    if (table_snc[:, :, 1::2] < 0).any():
        raise ValueError(f"areas must be ≥ 0, got {table_snc[:, :, 1::2].min()}")
    return table_snc


def stretch(of_seeds: float, of_samples: float, s: int, n: int, tail: float) -> float:
    """t_ν / z at the upper `tail`; 1 if nothing varies. See `t_quantile` and `change_over_seeds`."""
    return t_quantile(of_seeds, of_samples, s, n, tail) / NormalDist().inv_cdf(1 - tail)


def t_quantile(of_seeds: float, of_samples: float, s: int, n: int, tail: float) -> float:
    """t_ν at the upper `tail`, ν by Welch and Satterthwaite from the variances due to S seeds and N samples; z if
    nothing varies.
    """
    spread = of_seeds**2 / max(s - 1, 1) + of_samples**2 / max(n - 1, 1)
    if not spread > 0:
        return NormalDist().inv_cdf(1 - tail)
    return float(stdtrit((of_seeds + of_samples) ** 2 / spread, 1 - tail))


def _paired_table(
    first: tuple[Sequence[float] | Array, Sequence[float] | Array],
    last: tuple[Sequence[float] | Array, Sequence[float] | Array],
) -> Array:
    """Return errors and areas of both evaluations, [N, 4]."""
    pairs = _checked(*first), _checked(*last)
    counts = [len(errors_n) for errors_n, _ in pairs]
    if counts[0] != counts[1]:
        raise ValueError(f"paired evaluations must have the same samples, got {counts[0]} and {counts[1]}")
    return np.stack([column for pair in pairs for column in pair], axis=1)


def _check_level(level: float) -> None:
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level}")


def _checked(errors: Sequence[float] | Array, areas: Sequence[float] | Array) -> tuple[Array, Array]:
    errors_n, areas_n = np.asarray(errors, dtype=np.float64), np.asarray(areas, dtype=np.float64)
    if errors_n.ndim != 1 or errors_n.shape != areas_n.shape:
        raise ValueError(f"errors and areas must be 1-D and equally long, got {errors_n.shape}, {areas_n.shape}")
    if (areas_n < 0).any():
        raise ValueError(f"areas must be ≥ 0, got {areas_n.min()}")
    return errors_n, areas_n


def _bootstrap(
    table_nc: Array, statistic: Callable[[Array], Array], resamples: int, level: float = 0.95, seed: int = 0
) -> Estimate:
    """Return the statistic of the column sums of `table_nc` and its percentile interval over resampled rows."""
    _check_level(level)
    n = len(table_nc)
    if n == 0 or not np.isfinite(table_nc).all():
        return Estimate(np.nan, np.nan, np.nan, n)
    generator = np.random.default_rng(seed)
    values: list[Array] = []
    with np.errstate(divide="ignore", invalid="ignore"):  # NaN: a loss of exactly zero has no relative change
        value = float(statistic(table_nc.sum(axis=0, keepdims=True))[0])
        for counts_bn in sample_counts(generator, n, resamples, n):
            values.append(statistic(counts_bn @ table_nc))
    tail = (1 - level) / 2
    values_b = np.concatenate(values)
    values_b = values_b[~np.isnan(values_b)]
    if np.isnan(value) or not len(values_b):
        return Estimate(value, np.nan, np.nan, n)
    low, high = np.quantile(values_b, [tail, 1 - tail])
    return Estimate(value, float(low), float(high), n, _spread(values_b, n))


def _spread(values_b: Array, n: int) -> float:
    return float(values_b.std(ddof=1)) if n > 1 and len(values_b) > 1 else np.nan
