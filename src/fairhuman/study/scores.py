"""The paper's score of each method, and pairwise records."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fairhuman.stats.estimate import Estimate
from fairhuman.study.answers import Vote
from fairhuman.study.intervals import LEVEL, RESAMPLES, mean_interval
from fairhuman.study.ranks import shared_places

BEYOND = 10  # resamples beyond each end of an interval, at least


@dataclass(frozen=True, slots=True)
class PairRecord:
    """Record of two methods over votes that say which of both is better, or that they are tied.

    Attributes:
        wins, ties, losses: counts of the first method against the second.
        share: (wins + ties / 2) / all, with an interval as for scores.
        joint: the same with an interval that covers jointly for all pairs of methods with 95 % (Bonferroni).
    """

    wins: int
    ties: int
    losses: int
    share: Estimate
    joint: Estimate

    @property
    def reversed(self) -> "PairRecord":
        """The record of the second method against the first."""
        share, joint = (Estimate(1 - one.value, 1 - one.high, 1 - one.low, one.n) for one in (self.share, self.joint))
        return PairRecord(self.losses, self.ties, self.wins, share, joint)


def vote_score(vote: Vote, method: str) -> float:
    """1 for the best picture, 0.5 each if several are tied on top, 0 for the others.

    FairHuman, supplement, section 4.2: "For the highest rank in each group, we record its score as 1 and the rest as 0.
    In addition, for tied rankings, we assign a score of 0.5 to each." Ties below the top score 0.
    """
    if method not in vote.top:
        return 0.0
    return 1.0 if len(vote.top) == 1 else 0.5


def method_score(votes: Sequence[Vote], method: str, *, resamples: int = RESAMPLES) -> Estimate:
    """Mean score of a method over the votes in which it was shown, see `mean_interval`; n counts these votes."""
    seen = [vote for vote in votes if method in vote.shown]
    scores_n = np.array([vote_score(vote, method) for vote in seen], np.float64)
    return mean_interval(scores_n, [v.participant for v in seen], [v.item for v in seen], resamples=resamples)


def mean_rank(votes: Sequence[Vote], method: str) -> Estimate | None:
    """Mean place of a method, 1 for the best, over the votes that rank it; tied pictures share the mean of theirs.

    The interval is that of `mean_interval`, in which places 1 to n are numbers of 0 to 1. None without ranks, or if
    votes rank different numbers of pictures, as their places don't compare.
    """
    ranked = [vote for vote in votes if vote.ranks is not None and method in vote.shown]
    sizes = {len(vote.shown) for vote in ranked}
    if len(sizes) != 1:
        return None
    last = sizes.pop() - 1
    places_n = [shared_places(vote.ranks or ())[vote.shown.index(method)] for vote in ranked]
    people, items = [vote.participant for vote in ranked], [vote.item for vote in ranked]
    one = mean_interval((np.array(places_n) - 1) / last, people, items)
    return Estimate(1 + last * one.value, 1 + last * one.low, 1 + last * one.high, one.n)


def pair_records(votes: Sequence[Vote], methods: Sequence[str]) -> dict[tuple[str, str], PairRecord]:
    """Record of each ordered pair of methods: ranks compare every pair, a choice the chosen one with each other one."""
    found = {}
    pairs = list(combinations(methods, 2))
    tail = (1 - LEVEL) / 2 / max(1, len(pairs))
    draws = max(RESAMPLES, round(BEYOND / tail))
    for a, b in pairs:
        met = [(vote, score) for vote in votes if (score := vote.against(a, b)) is not None]
        scores = [score for _, score in met]
        people, items = [vote.participant for vote, _ in met], [vote.item for vote, _ in met]
        scores_n = np.array(scores, np.float64)
        share = mean_interval(scores_n, people, items)
        joint = mean_interval(scores_n, people, items, resamples=draws, level=1 - 2 * tail)
        found[a, b] = PairRecord(scores.count(1.0), scores.count(0.5), scores.count(0.0), share, joint)
        found[b, a] = found[a, b].reversed
    return found
