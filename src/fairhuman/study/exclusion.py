"""Exclusion of participants from the second analysis, by rules fixed before the first answer."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fairhuman.report.text import percent, plural
from fairhuman.study.answers import Vote, Votes
from fairhuman.study.study import ExclusionSettings

TOLERANCE = 1.0  # seconds by which an answer's time may exceed what the server's clock allows


@dataclass(frozen=True, slots=True)
class ParticipantConduct:
    """Conduct of a participant.

    Attributes:
        participant: identifier of the participant.
        answers: number of votes, including attention checks.
        share: fraction of the votes in a complete session.
        checks: number of attention checks answered.
        failed: number of checks with a wrong answer; a tie is wrong.
        seconds: median answer time; NaN if no times are known.
        same_side: largest share of votes on items for one position; NaN without such votes.
        reasons: violated rules; empty if the participant is kept.
        overclaimed: number of answers whose time is longer than the server's clock allows.
        broken: violated rules in short, in the order of `reasons`.
    """

    participant: str
    answers: int
    share: float
    checks: int
    failed: int
    seconds: float
    same_side: float
    reasons: tuple[str, ...]
    overclaimed: int = 0
    broken: tuple[str, ...] = ()


def judge_participants(votes: Votes, rules: ExclusionSettings) -> list[ParticipantConduct]:
    """Judge all participants who answered.

    Without a design, the participant with the most answers defines a complete session. Unknown values violate no rule.
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
    # NaN, an unknown time, isn't longer than anything
    overclaimed = sum(vote.seconds > vote.possible + TOLERANCE for vote in votes)
    reasons: dict[str, str] = {}
    if failed > rules.max_failed_checks:
        allowed = f"at most {rules.max_failed_checks} allowed"
        reasons["failed checks"] = f"{failed} of {len(checks)} attention checks failed, {allowed}"
    if seconds < rules.min_seconds:
        reasons["answered too fast"] = f"median answer time {seconds:.2g} s, at least {rules.min_seconds:g} s required"
    if same_side > rules.max_same_side:
        reasons["chose one position"] = (
            f"{percent(same_side)} of answers for one position, at most {percent(rules.max_same_side)} allowed"
        )
    if share < rules.min_answers:
        required = f"at least {percent(rules.min_answers)} required"
        reasons["answered too little"] = f"{percent(share)} of the questions answered, {required}"
    if rules.max_overclaimed is not None and overclaimed / len(votes) > rules.max_overclaimed:
        reasons["claimed too long times"] = (
            f"{percent(overclaimed / len(votes))} of answer times longer than the server's clock allows, at most "
            f"{percent(rules.max_overclaimed)} allowed"
        )
    long, short = tuple(reasons.values()), tuple(reasons)
    return ParticipantConduct(
        participant, len(votes), share, len(checks), failed, seconds, same_side, long, overclaimed, short
    )


def excluded_line(conduct: Sequence[ParticipantConduct]) -> str | None:
    """How many participants the rules exclude and, for each rule, how many broke it; None if nobody is excluded."""
    excluded = sum(bool(one.reasons) for one in conduct)
    if not excluded:
        return None
    broken = Counter(rule for one in conduct for rule in one.broken)
    why = ", ".join(f"{number} {rule}" for rule, number in broken.most_common())
    people = plural(len(conduct), "participant")
    who = f"{excluded} of {people}" if excluded < len(conduct) else people if excluded == 1 else f"all {people}"
    return f"{who} {'is' if excluded == 1 else 'are'} excluded by the study's rules ({why})"


def keep_votes(votes: Sequence[Vote], conduct: Sequence[ParticipantConduct]) -> list[Vote]:
    """The votes of participants who aren't excluded."""
    out = {one.participant for one in conduct if one.reasons}
    return [vote for vote in votes if vote.participant not in out]
