"""Influences on answers other than the pictures: their position, and the answer time."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from fairhuman.stats.estimate import Estimate
from fairhuman.study.answers import Vote
from fairhuman.study.intervals import LEVEL

PERMUTATIONS = 999  # random permutations of positions


@dataclass(frozen=True, slots=True)
class PlaceBalance:
    """Balance of methods over positions in the votes given.

    Attributes:
        counts: number of votes at each position, by method.
        statistic: χ² of the counts against equal counts at all positions of a method; 0 = perfectly balanced.
        p: probability of a χ² at least as large under random positions; NaN without votes. Near 1 for a balanced
            design.
    """

    counts: dict[str, tuple[int, ...]]
    statistic: float
    p: float


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """Number of known answer times and their 5th, 25th, 50th, 75th and 95th percentiles in seconds; NaN without any."""

    n: int
    percentiles: tuple[float, float, float, float, float]


def place_shares(votes: Sequence[Vote]) -> list[Estimate]:
    """Share of votes for each position from left to right, among votes without ties.

    The 95 % interval is the exact binomial interval (Clopper, Pearson, Biometrika 26, 1934), which assumes independent
    votes. In a balanced design, shares other than 1 / positions reflect participants' habits, not methods.
    """
    decided = [vote.shown.index(vote.chosen) for vote in votes if vote.chosen is not None]
    shares = []
    for place in range(max((len(vote.shown) for vote in votes), default=0)):
        if not decided:
            shares.append(Estimate(math.nan, math.nan, math.nan, 0))
            continue
        found = binomtest(decided.count(place), len(decided))
        ends = found.proportion_ci(LEVEL, "exact")
        shares.append(Estimate(float(found.statistic), float(ends.low), float(ends.high), len(decided)))
    return shares


def place_balance(votes: Sequence[Vote], methods: Sequence[str]) -> PlaceBalance:
    """χ² = Σ (n - n̄)² / n̄ over the votes n of each method at each position, n̄ the method's mean over positions.

    The counts are dependent, because a trial fills each position once, so the χ² distribution doesn't apply; p comes
    from 999 random permutations of the positions within each vote.
    """
    number = {method: place for place, method in enumerate(methods)}
    places = max((len(vote.shown) for vote in votes), default=0)
    # grouped by number of pictures shown, which is the number of positions
    groups = [
        np.array([[number[method] for method in vote.shown] for vote in votes if len(vote.shown) == size], np.int64)
        for size in sorted({len(vote.shown) for vote in votes})
    ]
    generator = np.random.default_rng(0)
    statistic = sum(_unevenness(_count(group_vk, len(methods))) for group_vk in groups)
    lots = np.zeros(PERMUTATIONS)
    for lot in range(PERMUTATIONS):
        for group_vk in groups:
            lots[lot] += _unevenness(_count(generator.permuted(group_vk, axis=1), len(methods)))
    counts_mk = np.zeros((len(methods), places), np.int64)
    for group_vk in groups:
        counts_mk[:, : group_vk.shape[1]] += _count(group_vk, len(methods))
    counts = {name: tuple(int(n) for n in row) for name, row in zip(methods, counts_mk, strict=True)}
    p = (1 + int((lots >= statistic - 1e-9).sum())) / (1 + PERMUTATIONS) if votes else math.nan
    return PlaceBalance(counts, float(statistic) if votes else math.nan, p)


def _count(group_vk: NDArray[np.int64], methods: int) -> NDArray[np.int64]:
    """Number of votes of each method at each position [M, K]."""
    size = group_vk.shape[1]
    cells = group_vk * size + np.arange(size)
    return np.bincount(cells.ravel(), minlength=methods * size).reshape(methods, size)


def _unevenness(counts_mk: NDArray[np.int64]) -> float:
    means_mk = np.maximum(counts_mk.mean(axis=1, keepdims=True), 1e-12)  # avoids 0 / 0 for a method that isn't shown
    return float(((counts_mk - means_mk) ** 2 / means_mk).sum())


def answer_times(votes: Sequence[Vote]) -> AnswerTimes:
    """Percentiles of the known answer times."""
    known = [vote.seconds for vote in votes if math.isfinite(vote.seconds)]
    if not known:
        return AnswerTimes(0, (math.nan,) * 5)
    low, quarter, half, three, high = (float(value) for value in np.percentile(known, (5, 25, 50, 75, 95)))
    return AnswerTimes(len(known), (low, quarter, half, three, high))
