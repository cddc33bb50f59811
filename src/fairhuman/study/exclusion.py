"""Who is left out of the second analysis, by rules that were fixed before the first answer."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairhuman.study.answers import Vote, Votes
from fairhuman.study.study import ExclusionSettings


@dataclass(frozen=True, slots=True)
class ParticipantConduct:
    """How somebody took part.

    Attributes:
        participant: who.
        answers: votes, those on attention checks too.
        share: of the votes that a whole session gives.
        checks: attention checks that were answered.
        failed: those with an answer that isn't the right one; a tie isn't.
        seconds: median time of an answer; NaN where no times are known.
        same_side: largest share of votes on items for one place from left to right; NaN without such a vote.
        reasons: the rules that were broken; none: the participant stays.

    """

    participant: str
    answers: int
    share: float
    checks: int
    failed: int
    seconds: float
    same_side: float
    reasons: tuple[str, ...]


def judge_participants(votes: Votes, rules: ExclusionSettings) -> list[ParticipantConduct]:
    """How everybody took part who answered at all, and which rules that breaks.

    Without a design a whole session is what the most diligent participant answered. What isn't known breaks no rule.
    """
    by_participant: dict[str, list[Vote]] = {}
    for vote in votes.votes:
        by_participant.setdefault(vote.participant, []).append(vote)
    expected = votes.expected or max(map(len, by_participant.values()), default=0)
    return [_judge(participant, own, expected, rules) for participant, own in by_participant.items()]


def _judge(participant: str, votes: Sequence[Vote], expected: int, rules: ExclusionSettings) -> ParticipantConduct:
    checks = {vote.trial for vote in votes if vote.better is not None}
    failed = len({vote.trial for vote in votes if vote.better is not None and vote.chosen != vote.better})
    known = [vote.seconds for vote in votes if math.isfinite(vote.seconds)]
    seconds = float(np.median(known)) if known else math.nan
    items = [vote for vote in votes if vote.better is None]
    sides = Counter(vote.shown.index(vote.chosen) for vote in items if vote.chosen is not None)
    same_side = max(sides.values(), default=0) / len(items) if items else math.nan
    share = len(votes) / expected
    reasons = []
    if failed > rules.max_failed_checks:
        reasons.append(f"{failed} of {len(checks)} attention checks failed, at most {rules.max_failed_checks} may")
    if seconds < rules.min_seconds:
        reasons.append(
            f"half of the answers within {seconds:.2g} s, the median must be at least {rules.min_seconds:g} s"
        )
    if same_side > rules.max_same_side:
        reasons.append(f"{same_side:.0%} of answers for one side, at most {rules.max_same_side:.0%} may be")
    if share < rules.min_answers:
        reasons.append(f"{share:.0%} of the questions answered, at least {rules.min_answers:.0%} must be")
    return ParticipantConduct(participant, len(votes), share, len(checks), failed, seconds, same_side, tuple(reasons))


def keep(votes: Sequence[Vote], conduct: Sequence[ParticipantConduct]) -> list[Vote]:
    """The votes of those who stay."""
    out = {one.participant for one in conduct if one.reasons}
    return [vote for vote in votes if vote.participant not in out]
