"""What came of a run, objective by objective: held-out losses, and whether the previews followed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

import numpy as np

from fairhuman.report.previews import Closeness, PreviewPictures
from fairhuman.report.run_folder import HeldOutEvaluation
from fairhuman.report.text import fine_percent, listed, percent
from fairhuman.stats.bootstrap import pooled_ratio, relative_change
from fairhuman.stats.estimate import Estimate

# Held-out pictures that a verdict needs. A bootstrap interval is that of the normal distribution with the biased
# deviation: for n values it holds the mean with probability P(|t| < 1.96 √((n - 1) / n)), t of n - 1 degrees of
# freedom. For 20 that is 92.9 % instead of 95 %, for 10 90.4 %, for 5 84.6 %.
ENOUGH = 20
MOST_HELD_OUT = 0.5  # share of the pictures above which others are better
LITTLE = 2.0  # levels of 0..255; previews that move by less look the same
AWAY = 1.2  # previews that differ this many times as much from their photos are another picture, or ruined


@dataclass(frozen=True, slots=True)
class Moves:
    """What training did to the previews of an objective; at least one preview."""

    each: Sequence[Closeness]

    def mean(self, which: str) -> float:
        """Mean of a field of `Closeness` over the previews that have it; NaN if none has."""
        values = [value for one in self.each if np.isfinite(value := getattr(one, which))]
        return float(np.mean(values)) if values else float("nan")

    @property
    def went_away(self) -> bool:
        """Whether the previews differ much more from their photos than before."""
        return self.mean("after") > AWAY * self.mean("before")

    @property
    def followed(self) -> bool:
        """Whether the previews visibly moved, and have nearer the detail of their photos, without going away."""
        if self.mean("moved") < LITTLE or self.went_away:
            return False
        gaps = [(abs(one.detail_before - 1), abs(one.detail_after - 1)) for one in self.each]
        before, after = (np.nanmean(gap) if np.isfinite(gap).any() else np.nan for gap in np.transpose(gaps))
        return bool(after < before) if np.isfinite(before) else self.mean("after") < self.mean("before")

    def words(self) -> str:
        """What was measured, in words."""
        n = len(self.each)
        those, photos = ("the preview", "its photo's") if n == 1 else (f"the {n} previews", "their photos'")
        if self.mean("moved") < LITTLE:
            return f"{those} moved by {self.mean('moved'):.1f} of 255 levels, which nobody sees"
        if self.went_away or not np.isfinite(self.mean("detail_before")):
            before, after = self.mean("before"), self.mean("after")
            return f"{those} went from {before:.1f} to {after:.1f} of 255 levels of difference to {photos} pixels"
        before, after = self.mean("detail_before"), self.mean("detail_after")
        return f"{those} went from {percent(before)} to {percent(after)} of {photos} detail"

    def row(self) -> list[str]:
        """Cells of a table: previews, detail and difference before and after, how far they moved."""
        detail = [percent(self.mean(f"detail_{when}")) for when in ("before", "after")]
        levels = [f"{self.mean(which):.1f}" for which in ("before", "after", "moved")]
        return [str(len(self.each)), *detail, *levels]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Held-out losses of an objective at the first and the last evaluation, and what its previews did.

    Attributes:
        change: paired and relative; None without a second evaluation of the same samples.
        moves: of the previews that show the objective; None if there are none.
    """

    name: str
    before: Estimate
    after: Estimate
    change: Estimate | None
    moves: Moves | None

    @property
    def verdict(self) -> tuple[str, str]:
        """CSS class (`down`, `up` or none) and wording of the change."""
        if self.change is not None and 0 < self.change.n < ENOUGH:
            return "", f"too few pictures: needs {ENOUGH}"
        return verdict(self.change)

    def sentence(self) -> tuple[str, str] | None:
        """CSS class (`good`, `bad` or none) and a sentence on losses and previews; None without a change."""
        change, title = self.change, "whole picture" if self.name == "global" else self.name
        if change is None or not np.isfinite(change.value):
            return None
        if change.n < ENOUGH:
            pictures = f"{change.n} held-out picture" + ("" if change.n == 1 else "s")
            return "", f"{title}: no verdict from {pictures}; it needs at least {ENOUGH}."
        if change.low <= 0 <= change.high:
            return "", f"{title}: no clear change of the held-out loss{_would_need(change)}."
        previews = f": {self.moves.words()}" if self.moves else ""
        if change.low > 0:
            return "bad", f"{title}: the held-out loss rose by {fine_percent(change.value)}{previews}."
        fell = f"{title}: the held-out loss fell by {fine_percent(-change.value)}"
        if self.moves and not self.moves.followed:
            return "bad", f"{fell}, but the pictures didn't follow{previews}."
        return "good", f"{fell}{previews}."


def hold_out_more(found: Sequence[Outcome], held_out: int, pictures: int | None) -> list[str]:
    """What to set for a verdict where too few of `held_out` pictures show an objective; nothing if all get one.

    `pictures` is the number of training pictures; None: not known.
    """
    few = [one.change.n for one in found if one.change is not None and 0 < one.change.n < ENOUGH]
    if not few:
        return []
    needed = ceil(ENOUGH * held_out / min(few))
    share = ceil(100 * needed / (pictures + held_out)) / 100 if pictures else 1.0
    setting = f"validation.share={share:g}, or " if share <= MOST_HELD_OUT else ""
    return [
        f"For a verdict, hold out {needed} pictures in a new run: {setting}validation.data=FOLDER with other pictures."
    ]


def moves_of(previews: Sequence[PreviewPictures]) -> dict[str, Moves]:
    """The moves of each objective that a preview shows."""
    names = dict.fromkeys(name for row in previews for name in row.closeness)
    return {name: Moves([row.closeness[name] for row in previews if name in row.closeness]) for name in names}


def outcomes(evaluations: Sequence[HeldOutEvaluation], moves: Mapping[str, Moves]) -> list[Outcome]:
    """One outcome per objective of the held-out evaluations, sorted by step."""
    if not evaluations:
        return []
    first, last = evaluations[0], evaluations[-1]
    return [
        Outcome(
            name,
            pooled_ratio(first.errors[name], first.areas[name]),
            pooled_ratio(last.errors[name], last.areas[name]),
            paired_change(first, last, name) if last is not first else None,
            moves.get(name),
        )
        for name in first.errors
        if name in last.errors
    ]


def joined(sentences: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """The sentences, with those that say the same of several objectives as one: `face and hand: no verdict ...`."""
    titles: dict[tuple[str, str], list[str]] = {}
    for sign, sentence in sentences:
        title, _, words = sentence.partition(": ")
        titles.setdefault((sign, words), []).append(title)
    return [(sign, f"{listed(names)}: {words}") for (sign, words), names in titles.items()]


def paired_change(first: HeldOutEvaluation, last: HeldOutEvaluation, name: str) -> Estimate | None:
    """Paired change of one objective; None if the samples differ."""
    if first.keys != last.keys or len(first.errors[name]) != len(last.errors[name]):
        return None
    return relative_change((first.errors[name], first.areas[name]), (last.errors[name], last.areas[name]))


def verdict(change: Estimate | None) -> tuple[str, str]:
    """CSS class (`down`, `up` or none) and wording of a change, by whether its interval excludes 0."""
    if change is None:
        return "", "no second evaluation of the same samples"
    if change.n == 0:
        return "", "no held-out sample has the region"
    if not np.isfinite(change.value):
        return "", "not finite"
    if change.high < 0:
        return "down", "lower"
    return ("up", "higher") if change.low > 0 else ("", "no clear change")


def _would_need(change: Estimate) -> str:
    """How many pictures would tell such a change from none: intervals shrink with the root of their number."""
    half = (change.high - change.low) / 2
    if not abs(change.value) > 0.05 * half:  # more than 400 times as many
        return f" with {change.n} pictures"
    needed = ceil(change.n * (half / change.value) ** 2)
    value = fine_percent(change.value, signed=True)
    return f"; to tell {value} from 0 takes about {needed:,} pictures, there are {change.n:,}"
