"""Intervals for crossed designs, in which both participants and items are random samples.

Let e_v be the influence of vote v on an estimate. Votes of the same participant are correlated, and so are votes on
the same item, so the two-way clustered variance is

    V = P/(P-1) Σ_p (Σ_{v of p} e_v)² + I/(I-1) Σ_i (Σ_{v of i} e_v)² - Σ_v e_v²

(Cameron, Gelbach, Miller, Robust inference with multiway clustering, JBES 29(2), 2011), but at least the larger of the
first two terms.
"""

from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit
from scipy.stats import binomtest

from fairhuman.stats.bootstrap import CELLS_PER_BLOCK, Array
from fairhuman.stats.estimate import Estimate

LEVEL, RESAMPLES = 0.95, 2000


def index_keys(keys_n: Sequence[Hashable]) -> tuple[NDArray[np.int64], int]:
    """Number the keys from 0 in order of appearance [N]; also returns the number of distinct keys."""
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(key, len(numbers)) for key in keys_n], dtype=np.int64), len(numbers)


def two_way_variance(influence_n: Array, participants_n: Sequence[Hashable], items_n: Sequence[Hashable]) -> float:
    """V of the module; NaN for a single participant or item."""
    sums = [np.zeros(index_keys(keys_n)[1]) for keys_n in (participants_n, items_n)]
    for sums_k, keys_n in zip(sums, (participants_n, items_n), strict=True):
        np.add.at(sums_k, index_keys(keys_n)[0], influence_n)
    return float(variance_of_sums(sums[0], sums[1], influence_n))


def variance_of_sums(by_participant: Array, by_item: Array, by_vote: Array) -> Array:
    """V of the module from influences summed by participant [..., P], by item [..., I], and unsummed [..., N]."""
    of_participants, of_items = _spread(by_participant), _spread(by_item)
    both = of_participants + of_items - (by_vote**2).sum(axis=-1)
    return np.asarray(np.maximum(both, np.maximum(of_participants, of_items)))


def half_width(variance: float, participants: int, items: int) -> float:
    """Half width of a 95 % interval: t quantile with min(participants, items) - 1 degrees of freedom, times √V."""
    return float(_quantile(participants, items) * np.sqrt(variance))


def mean_interval(
    tops_n: Array,
    participants_n: Sequence[Hashable],
    items_n: Sequence[Hashable],
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
) -> Estimate:
    """Mean of numbers in 0..1 with an interval of `level`, bootstrapped over participants and items jointly.

    Each resample draws participants and, independently, items with replacement; a vote's weight is the product of their
    counts (Owen, The pigeonhole bootstrap, Annals of Applied Statistics 1(2), 2007). This triple-counts the noise of
    the votes themselves, so the percentile interval is scaled about the mean by √(V / V_bootstrap), with V of the
    module, and by t / z for few participants or items. If all numbers are 0 or all are 1, the interval is the exact
    binomial one for min(participants, items) votes. With a single participant or item, or only ties, the interval is
    NaN.
    """
    count = len(tops_n)
    if not count:
        return Estimate(np.nan, np.nan, np.nan, 0)
    value = float(tops_n.mean())
    (people_n, people), (things_n, things) = index_keys(participants_n), index_keys(items_n)
    fewer = min(people, things)
    if fewer < 2:
        return Estimate(value, np.nan, np.nan, count)
    if value in (0.0, 1.0):
        ends = binomtest(int(value) * fewer, fewer).proportion_ci(level, "exact")
        return Estimate(value, float(ends.low), float(ends.high), count)
    tops_pi, counts_pi = np.zeros((people, things)), np.zeros((people, things))
    np.add.at(tops_pi, (people_n, things_n), tops_n)
    np.add.at(counts_pi, (people_n, things_n), 1.0)
    means_b = _pigeonhole(tops_pi, counts_pi, resamples)
    spread = float(means_b.var())
    if not spread > 0:
        return Estimate(value, np.nan, np.nan, count)
    variance = two_way_variance((tops_n - value) / count, participants_n, items_n)
    tail = (1 - level) / 2
    stretch = np.sqrt(variance / spread) * _quantile(people, things, level) / NormalDist().inv_cdf(1 - tail)
    low, high = value + stretch * (np.quantile(means_b, [tail, 1 - tail]) - value)
    return Estimate(value, float(max(low, 0.0)), float(min(high, 1.0)), count, float(np.sqrt(variance)))


def _pigeonhole(tops_pi: Array, counts_pi: Array, resamples: int) -> Array:
    """Means of the resamples [B]; resamples without votes are skipped."""
    people, things = tops_pi.shape
    generator = np.random.default_rng(0)
    block = max(1, CELLS_PER_BLOCK // (people + things))
    means = []
    for start in range(0, resamples, block):
        size = min(block, resamples - start)
        drawn_bp = generator.multinomial(people, np.full(people, 1 / people), size).astype(np.float64)
        drawn_bi = generator.multinomial(things, np.full(things, 1 / things), size).astype(np.float64)
        tops_b = ((drawn_bp @ tops_pi) * drawn_bi).sum(axis=1)
        counts_b = ((drawn_bp @ counts_pi) * drawn_bi).sum(axis=1)
        means.append(tops_b[counts_b > 0] / counts_b[counts_b > 0])
    return np.concatenate(means)


def _spread(sums: Array) -> Array:
    count = sums.shape[-1]
    factor = count / (count - 1) if count > 1 else np.nan
    return np.asarray(factor * (sums**2).sum(axis=-1))


def _quantile(participants: int, items: int, level: float = LEVEL) -> float:
    return float(stdtrit(max(min(participants, items) - 1, 1), (1 + level) / 2))
