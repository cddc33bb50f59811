"""The verdict on a method in words: what became better or worse, what stayed, and what its pictures can't tell.

A metric is better or worse if p < 0.05 after Holm's correction, unchanged if its 95 % interval lies within ±5 % of the
baseline's value (Schuirmann, J. Pharmacokinet. Biopharm. 15(6), 1987), and undecided otherwise. A subject, such as
faces, is better if one of its metrics is and none is worse; the sentence then names that metric.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from fairhuman.evaluate.metrics.distances import LEAST_GROUPS
from fairhuman.evaluate.results import WHOLE, Contrast, EvaluationResults, Metric
from fairhuman.report.text import listed, percent, picture_count, plural
from fairhuman.stats.paired import FLIPS

SIGNIFICANCE = 0.05
MARGIN = 0.05  # of the baseline's value: a change within it is none
FEW = 20  # prompts; a bootstrap over fewer gives intervals that are too narrow
# Said of the whole picture in place of `unchanged`: a distance between sets hardly sees faces and single pictures.
CLOSE = f"as close to the reference (within {percent(MARGIN)})"
Outcome = Literal["better", "worse", "mixed", "equal", "unchanged", "undecided", "unmeasured"]


@dataclass(frozen=True)
class Verdict:
    """Verdict on one method.

    Attributes:
        method, against: the method, and the one it is compared with.
        text: one sentence.
        mark: CSS class: `good` if something is better, nothing is worse and the whole picture has not suffered; `bad`
            if something is worse; else empty.
        notes: limits of a small sample, as sentences.
    """

    method: str
    against: str
    text: str
    mark: Literal["good", "bad", ""]
    notes: Sequence[str] = ()


def verdicts(found: EvaluationResults) -> list[Verdict]:
    """Verdict on every method that is compared with the baseline, in their order."""
    values = {(one.metric, one.method): one.measured.value for one in found.results}
    by_method: dict[str, list[Contrast]] = {}
    for contrast in found.corrected():
        by_method.setdefault(contrast.method, []).append(contrast)
    tests = sum(not math.isnan(contrast.corrected) for contrast in found.corrected())
    return [_verdict(contrasts, values, tests) for contrasts in by_method.values()]


def contrast_outcome(contrast: Contrast, base: float) -> Outcome:
    """What a difference shows, given the baseline's value."""
    measured = contrast.difference.measured
    if math.isnan(measured.value):
        return "unmeasured"
    if contrast.difference.equal:
        return "equal"
    if contrast.corrected < SIGNIFICANCE:
        return "better" if (measured.value > 0) == (contrast.metric.better == "higher") else "worse"
    within = -MARGIN * abs(base) <= measured.low and measured.high <= MARGIN * abs(base)
    return "unchanged" if within and measured.independent >= FEW else "undecided"


def contrast_mark(contrast: Contrast) -> str:
    """CSS class of a cell: whether a method is significantly better or worse after Holm's correction."""
    return {"better": "down", "worse": "up"}.get(contrast_outcome(contrast, math.nan), "")


def _verdict(contrasts: Sequence[Contrast], values: Mapping[tuple[Metric, str], float], tests: int) -> Verdict:
    method, against = contrasts[0].method, contrasts[0].against
    judging = [one for one in contrasts if one.metric.judges != ""]
    outcomes: dict[str, dict[str, Outcome]] = {}
    for one in judging or contrasts:
        outcome = contrast_outcome(one, values.get((one.metric, against), math.nan))
        outcomes.setdefault(one.metric.judges or one.metric.name, {})[one.metric.name] = outcome
    together = {subject: _together(list(each.values())) for subject, each in outcomes.items()}
    measured = [one.difference.measured for one in contrasts]
    pictures, prompts = max(one.n for one in measured), max(one.independent for one in measured)
    sample = picture_count(pictures, prompts)
    clauses = _clauses(together, outcomes, sample, pictures)
    if WHOLE not in together:
        clauses.append(f"{WHOLE} not measured (that takes a reference, and the metrics efficientnet or fid)")
    undecided = "undecided" in together.values()
    unit = "picture" if prompts == pictures else "prompt"
    notes = [] if not undecided else _notes(prompts, unit, tests)
    if any(math.isnan(one.difference.p) and not math.isnan(one.difference.measured.value) for one in contrasts):
        notes.append(f"Differences of distances are tested from {LEAST_GROUPS} {unit}s on.")
    return Verdict(method, against, f"{method} against {against}: {'; '.join(clauses)}.", _mark(together), notes)


def _together(outcomes: Sequence[Outcome]) -> Outcome:
    """Outcome of several metrics of one subject."""
    known = {one for one in outcomes if one != "unmeasured"}
    if not known:
        return "unmeasured"
    if {"better", "worse"} <= known:
        return "mixed"
    for clear in ("better", "worse", "undecided", "unchanged"):
        if clear in known:
            return clear
    return "equal"


def _clauses(
    together: Mapping[str, Outcome], outcomes: Mapping[str, Mapping[str, Outcome]], sample: str, pictures: int
) -> list[str]:
    words: dict[Outcome, str] = {
        "better": "better",
        "worse": "worse",
        "unchanged": "unchanged",
        "equal": f"the same, {plural(pictures, 'pair')}, all equal",
        "undecided": f"can't be told apart with {sample}",
        "unmeasured": "with nothing to measure",
    }
    said: dict[str, list[str]] = {}
    for outcome, word in words.items():
        for subject in (one for one in together if together[one] == outcome):
            text = CLOSE if (subject, outcome) == (WHOLE, "unchanged") else word + _where(outcome, outcomes[subject])
            said.setdefault(text, []).append(subject)
    clauses = [f"{listed(subjects)} {text}" for text, subjects in said.items()]
    for subject, each in outcomes.items():
        if together[subject] == "mixed":
            sides = [f"{name} {one}" for name, one in each.items() if one in ("better", "worse")]
            clauses.append(f"{subject} better in one respect and worse in another ({', '.join(sides)})")
    return clauses


def _where(outcome: Outcome, each: Mapping[str, Outcome]) -> str:
    """In which metrics a subject is better or worse, and in which nothing is shown; empty if in all with values."""
    others = [name for name, one in each.items() if one not in (outcome, "unmeasured")]
    if outcome not in ("better", "worse") or not others:
        return ""
    named = [name for name, one in each.items() if one == outcome]
    return f" in {listed(named)} (no difference shown in {listed(others)})"


def _mark(together: Mapping[str, Outcome]) -> Literal["good", "bad", ""]:
    found = set(together.values())
    if found & {"worse", "mixed"}:
        return "bad"
    sound = together.get(WHOLE) in ("better", "unchanged", "equal")
    return "good" if "better" in found and sound else ""


def _notes(prompts: int, unit: str, tests: int) -> list[str]:
    """What a sample of so many independent prompts, or pictures, can't show."""
    notes, sample = [], plural(prompts, unit)
    least = 2 / 2**prompts if 2**prompts <= FLIPS else 1 / (FLIPS + 1)
    if tests * least >= SIGNIFICANCE:
        needed = math.floor(math.log2(2 * tests / SIGNIFICANCE)) + 1
        notes.append(
            f"With {sample} the test of a mean can't give less than p = {least:.2g}, which is "
            f"{min(1.0, tests * least):.2g} after the correction for {plural(tests, 'difference')}. So no mean can be "
            f"called better or worse here; that takes at least {needed} {unit}s, or fewer metrics."
        )
    if prompts < FEW:
        notes.append(
            f"Intervals come from resampling {sample}. With fewer than {FEW} they are too narrow, so none is taken as "
            "proof that nothing changed."
        )
    return notes
