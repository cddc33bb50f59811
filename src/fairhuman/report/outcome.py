"""What came of a run, objective by objective: held-out losses, and whether the previews followed them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np

from fairhuman.report.previews import Distance, PreviewPictures
from fairhuman.report.run_folder import HeldOutEvaluation
from fairhuman.stats.bootstrap import pooled_ratio, relative_change
from fairhuman.stats.estimate import Estimate

# Held-out pictures that a verdict needs. A bootstrap interval is that of the normal distribution with the biased
# deviation: for n values it holds the mean with probability P(|t| < 1.96 √((n - 1) / n)), t of n - 1 degrees of
# freedom. For 20 that is 92.9 % instead of 95 %, for 10 90.4 %, for 5 84.6 %.
ENOUGH = 20
LITTLE = 2.0  # levels of 0..255; previews that move by less look the same


@dataclass(frozen=True, slots=True)
class Moves:
    """How the previews of an objective lie to their photos before and after training; at least one preview."""

    distances: Sequence[Distance]

    @property
    def closer(self) -> int:
        """Number of previews that came closer to their photo."""
        return sum(distance.after < distance.before for distance in self.distances)

    def mean(self, which: Literal["before", "after", "moved"]) -> float:
        """Mean of a distance over the previews."""
        return float(np.mean([getattr(distance, which) for distance in self.distances]))

    @property
    def followed(self) -> bool:
        """Whether the previews visibly moved, and towards their photos on average."""
        return self.mean("moved") >= LITTLE and self.mean("after") < self.mean("before")

    def words(self) -> str:
        """The measured distances in words."""
        n = len(self.distances)
        those = "the preview" if n == 1 else f"the {n} previews"
        if self.mean("moved") < LITTLE:
            return f"{those} moved by {self.mean('moved'):.1f} of 255 levels, which nobody sees"
        before, after = self.mean("before"), self.mean("after")
        way = "closer to" if after < before else "no closer to"
        each = "" if n == 1 else f", {self.closer} of {n} came closer"
        return f"{those} came {way} the photo, {before:.1f} → {after:.1f} of 255 levels{each}"

    def row(self) -> list[str]:
        """Cells of a table: previews, distance before and after, how many came closer, how far they moved."""
        n = len(self.distances)
        means = [f"{self.mean(which):.1f}" for which in ("before", "after", "moved")]
        return [str(n), *means[:2], f"{self.closer} of {n}", means[2]]


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
            return "bad", f"{title}: the held-out loss rose by {change.value:.1%}{previews}."
        fell = f"{title}: the held-out loss fell by {-change.value:.1%}"
        if self.moves and not self.moves.followed:
            return "bad", f"{fell}, but the pictures didn't follow{previews}."
        return "good", f"{fell}{previews}."


def moves_of(previews: Sequence[PreviewPictures]) -> dict[str, Moves]:
    """The moves of each objective that a preview shows."""
    names = dict.fromkeys(name for row in previews for name in row.distances)
    return {name: Moves([row.distances[name] for row in previews if name in row.distances]) for name in names}


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
    return f"; to tell {change.value:+.1%} from 0 takes about {needed:,} pictures, there are {change.n:,}"
