"""What else than the pictures may have moved answers: where they stood, and how long people looked."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest

from fairhuman.stats.estimate import Estimate
from fairhuman.study.answers import Vote
from fairhuman.study.intervals import LEVEL

LOTS = 999


@dataclass(frozen=True, slots=True)
class PlaceBalance:
    """How evenly methods stood at each place in the votes that were given.

    Attributes:
        counts: by method, votes in which it stood at each place.
        statistic: χ² of the counts against as many at each place of a method; 0 is even.
        p: of a χ² as large if sides had been drawn by lot; NaN without votes. A balanced design comes out near 1.

    """

    counts: dict[str, tuple[int, ...]]
    statistic: float
    p: float


@dataclass(frozen=True, slots=True)
class AnswerTimes:
    """Seconds an answer took: the 5th, 25th, 50th, 75th and 95th percentile; NaN where none are known."""

    n: int
    percentiles: tuple[float, float, float, float, float]


def place_shares(votes: Sequence[Vote]) -> list[Estimate]:
    """How often each place from left to right was chosen, of the votes that aren't ties, as many shown as most often.

    The 95 % interval is the exact binomial one (Clopper, Pearson, Biometrika 26, 1934), for votes that don't hang
    together. Where sides are balanced, shares away from 1 / places are the people's habit and no method's merit.
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


def balance(votes: Sequence[Vote], methods: Sequence[str]) -> PlaceBalance:
    """χ² = Σ (n - n̄)² / n̄ of the votes n in which a method stood at a place, n̄ the method's mean over places.

    A trial holds each place once, so the n hang together and χ² has no table; p is that of 999 lots, in each of which
    the pictures of every vote change places at random.
    """
    number = {method: place for place, method in enumerate(methods)}
    places = max((len(vote.shown) for vote in votes), default=0)
    # Trials of one size at a time: where fewer are shown there are fewer places
    groups = [
        np.array([[number[method] for method in vote.shown] for vote in votes if len(vote.shown) == size], np.int64)
        for size in sorted({len(vote.shown) for vote in votes})
    ]
    generator = np.random.default_rng(0)
    statistic = sum(_unevenness(_count(group_vk, len(methods))) for group_vk in groups)
    lots = np.zeros(LOTS)
    for lot in range(LOTS):
        for group_vk in groups:
            lots[lot] += _unevenness(_count(generator.permuted(group_vk, axis=1), len(methods)))
    counts_mk = np.zeros((len(methods), places), np.int64)
    for group_vk in groups:
        counts_mk[:, : group_vk.shape[1]] += _count(group_vk, len(methods))
    counts = {name: tuple(int(n) for n in row) for name, row in zip(methods, counts_mk, strict=True)}
    p = (1 + int((lots >= statistic - 1e-9).sum())) / (1 + LOTS) if votes else math.nan
    return PlaceBalance(counts, float(statistic) if votes else math.nan, p)


def _count(group_vk: NDArray[np.int64], methods: int) -> NDArray[np.int64]:
    """How often each method stands at each place [M, K]."""
    size = group_vk.shape[1]
    cells = group_vk * size + np.arange(size)
    return np.bincount(cells.ravel(), minlength=methods * size).reshape(methods, size)


def _unevenness(counts_mk: NDArray[np.int64]) -> float:
    means_mk = np.maximum(counts_mk.mean(axis=1, keepdims=True), 1e-12)  # of a method that isn't shown: 0 / 0 is 0
    return float(((counts_mk - means_mk) ** 2 / means_mk).sum())


def answer_times(votes: Sequence[Vote]) -> AnswerTimes:
    """Percentiles of the seconds that are known."""
    known = [vote.seconds for vote in votes if math.isfinite(vote.seconds)]
    if not known:
        return AnswerTimes(0, (math.nan,) * 5)
    low, quarter, half, three, high = (float(value) for value in np.percentile(known, (5, 25, 50, 75, 95)))
    return AnswerTimes(len(known), (low, quarter, half, three, high))
