"""The paper's score of each method, and pairwise records."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from fairhuman.stats.estimate import Estimate
from fairhuman.study.answers import Vote
from fairhuman.study.intervals import mean_interval


@dataclass(frozen=True, slots=True)
class PairRecord:
    """Record of two methods over votes that showed both and chose one of them or a tie.

    Attributes:
        wins, ties, losses: counts of the first method against the second.
        share: (wins + ties / 2) / all, with an interval as for scores.
    """

    wins: int
    ties: int
    losses: int
    share: Estimate

    @property
    def reversed(self) -> "PairRecord":
        """The record of the second method against the first."""
        one = self.share
        return PairRecord(self.losses, self.ties, self.wins, Estimate(1 - one.value, 1 - one.high, 1 - one.low, one.n))


def vote_score(vote: Vote, method: str) -> float:
    """1 for the chosen picture, 0 for the others, 0.5 each for a tie (FairHuman, supplement, section 4.2)."""
    if vote.chosen is None:
        return 0.5
    return 1.0 if vote.chosen == method else 0.0


def method_score(votes: Sequence[Vote], method: str, *, resamples: int = 2000) -> Estimate:
    """Mean score of a method over the votes in which it was shown, see `mean_interval`; n counts these votes."""
    seen = [vote for vote in votes if method in vote.shown]
    scores_n = np.array([vote_score(vote, method) for vote in seen], np.float64)
    return mean_interval(scores_n, [v.participant for v in seen], [v.item for v in seen], resamples=resamples)


def pair_records(
    votes: Sequence[Vote], methods: Sequence[str], *, resamples: int = 2000
) -> dict[tuple[str, str], PairRecord]:
    """Record of each ordered pair of methods; with more than two pictures, the chosen one beats each other one."""
    found = {}
    for a, b in combinations(methods, 2):
        met = [vote for vote in votes if a in vote.shown and b in vote.shown and vote.chosen in (a, b, None)]
        chosen = Counter(vote.chosen for vote in met)
        found[a, b] = PairRecord(chosen[a], chosen[None], chosen[b], method_score(met, a, resamples=resamples))
        found[b, a] = found[a, b].reversed
    return found
