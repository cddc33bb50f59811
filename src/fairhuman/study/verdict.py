"""The verdict of a study in words: for each question, which method people preferred."""

import math
from collections.abc import Sequence

from fairhuman.report.text import estimate_text, listed
from fairhuman.stats.estimate import Estimate
from fairhuman.study.analysis import StudyResult
from fairhuman.study.scores import PairRecord

OUTCOMES = ("won", "lost", "unclear", "tied", "few")


def verdict_text(question: str, result: StudyResult, methods: Sequence[str]) -> str:
    """A sentence on the method with the highest score: to which others it is preferred, and to which it isn't.

    It is preferred where the interval of its share of wins, ties half, lies above one half. Where it lies below, the
    other method is: scores are of all answers, shares of those on two methods. The intervals hold jointly for all pairs
    of methods (`PairRecord.joint`), since the same answers say which method is named first.
    """
    scores = {name: result.scores[name].value for name in methods if math.isfinite(result.scores[name].value)}
    if len(scores) < 2:
        return f"{question}: no comparison is left."
    best = max(scores, key=lambda name: scores[name])
    groups: dict[str, list[str]] = {}
    for name in methods:
        record = result.meetings[best, name] if name != best else None
        if record is not None and not math.isnan(record.joint.value):
            groups.setdefault(_outcome(record), []).append(f"{name} ({share_text(record.joint)})")
    won, lost, unclear, tied, few = (groups.get(outcome, []) for outcome in OUTCOMES)
    clauses = [f"{best} is preferred to {listed(won)}"] if won else []
    if lost:
        are = "are" if len(lost) > 1 else "is"
        clauses.append(f"{best} has the highest score, but {listed(lost)} {are} preferred to it")
    clauses += [f"no preference shown between {best} and {listed(unclear)}"] if unclear else []
    clauses += [f"all answers of {best} against {listed(tied)} are ties"] if tied else []
    clauses += [f"too few answers for an interval of {best} against {listed(few)}"] if few else []
    return f"{question}: {'; '.join(clauses)}."


def _outcome(record: PairRecord) -> str:
    """One of `OUTCOMES`: what the joint interval says of the first method, or why there is none."""
    if not math.isfinite(record.joint.low):
        return "few" if record.wins or record.losses else "tied"
    return "won" if record.joint.low > 0.5 else "lost" if record.joint.high < 0.5 else "unclear"


def share_text(share: Estimate) -> str:
    """A share as percent, with the digits that its interval allows; a dash for NaN."""
    return "-" if math.isnan(share.value) else estimate_text(share, "{:.0f}", percent=True)
