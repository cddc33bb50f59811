"""The verdict of a study in words: for each question, which method people preferred."""

import math
from collections.abc import Sequence

from fairhuman.report.text import estimate_text, listed
from fairhuman.stats.estimate import Estimate
from fairhuman.study.analysis import StudyResult


def verdict_text(question: str, result: StudyResult, methods: Sequence[str]) -> str:
    """A sentence on the method with the highest score: to which others it is preferred, and to which it isn't.

    It is preferred where the interval of its share of wins, ties half, lies above one half. The intervals hold jointly
    for all pairs of methods (`PairRecord.joint`), since the same answers say which method is named first.
    """
    scores = {name: result.scores[name].value for name in methods if math.isfinite(result.scores[name].value)}
    if len(scores) < 2:
        return f"{question}: no comparison is left."
    best = max(scores, key=lambda name: scores[name])
    clear: list[str] = []
    unclear: list[str] = []
    alone: list[str] = []
    for name in methods:
        share = result.meetings[best, name].joint if name != best else None
        if share is not None and not math.isnan(share.value):
            group = alone if not math.isfinite(share.low) else clear if share.low > 0.5 else unclear
            group.append(f"{name} ({share_text(share)})")
    clauses = [f"{best} is preferred to {listed(clear)}"] if clear else []
    clauses += [f"no preference shown between {best} and {listed(unclear)}"] if unclear else []
    clauses += [f"too few answers for an interval of {best} against {listed(alone)}"] if alone else []
    return f"{question}: {'; '.join(clauses)}."


def share_text(share: Estimate) -> str:
    """A share as percent, with the digits that its interval allows; a dash for NaN."""
    return "-" if math.isnan(share.value) else estimate_text(share, "{:.0f}", percent=True)
