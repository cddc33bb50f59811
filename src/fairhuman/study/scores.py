"""The paper's score of each method, and who beats whom."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairhuman.report.statistics import Estimate
from fairhuman.study.answers import Vote
from fairhuman.study.intervals import mean_interval


@dataclass(frozen=True, slots=True)
class Meeting:
    """How two methods did where both were shown and one of them, or neither, was chosen.

    Attributes:
        wins, ties, losses: of the first against the second.

    """

    wins: int
    ties: int
    losses: int

    @property
    def share(self) -> float:
        """Wins and half of the ties, as a share; NaN where they never met."""
        total = self.wins + self.ties + self.losses
        return (self.wins + self.ties / 2) / total if total else float("nan")


def vote_score(vote: Vote, method: str) -> float:
    """1 for the top picture of a group, 0 for the rest, 0.5 each in a tie (FairHuman, supplement, section 4.2)."""
    if vote.chosen is None:
        return 0.5
    return 1.0 if vote.chosen == method else 0.0


def method_score(votes: Sequence[Vote], method: str, *, resamples: int = 2000) -> Estimate:
    """Mean of a method's scores over the votes in which it was shown, see `mean_interval`; n counts these votes."""
    seen = [vote for vote in votes if method in vote.shown]
    scores_n = np.array([vote_score(vote, method) for vote in seen], np.float64)
    return mean_interval(scores_n, [v.participant for v in seen], [v.item for v in seen], resamples=resamples)


def meetings(votes: Sequence[Vote], methods: Sequence[str]) -> dict[tuple[str, str], Meeting]:
    """Each ordered pair of methods; among more than two pictures the top one beats each other one."""
    counts = {(a, b): [0, 0, 0] for a in methods for b in methods if a != b}
    for vote in votes:
        for a in vote.shown:
            for b in vote.shown:
                if a == b:
                    continue
                if vote.chosen is None:
                    counts[a, b][1] += 1
                elif vote.chosen == a:
                    counts[a, b][0] += 1
                elif vote.chosen == b:
                    counts[a, b][2] += 1
    return {pair: Meeting(*found) for pair, found in counts.items()}
