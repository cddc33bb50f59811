"""Analysis of a comparison: changes relative to the base, and differences between cells with verdicts."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from fairhuman.compare.margins import Margins
from fairhuman.compare.runs import ComparisonRuns, loss_changes, shared_seeds
from fairhuman.compare.settings import CompareRecipe
from fairhuman.errors import DataError
from fairhuman.report.changes import base_loss, change, seed_changes
from fairhuman.stats.estimate import Estimate

Contrasts = dict[str, dict[str, dict[str, "Judged"]]]  # by reference cell, cell, objective
Verdict = Literal["lower", "higher", "same", "moved", "undecided"]
LEVEL = 0.95


@dataclass(frozen=True)
class Judged:
    """A difference that is judged, such as that of two cells as a fraction of the base's loss.

    Attributes:
        estimate: with its 95 % interval.
        joint: with an interval that covers jointly for all numbers that are judged together (Bonferroni).
        margin: differences within ± it count as none.
        verdict: from `joint`: `lower` or `higher` if the interval excludes 0, `same` if it lies within the margin
            (Schuirmann's two one-sided tests), else `undecided`. With `paid` see `at_a_price`.
        paid: the difference of what both cost, if that is judged too.
    """

    estimate: Estimate
    joint: Estimate
    margin: float
    verdict: Verdict
    paid: "Judged | None" = None

    @property
    def within(self) -> bool:
        """Whether the difference, and that of what both cost, lie within the margins, though they may be sure."""
        own = -self.margin <= self.joint.low and self.joint.high <= self.margin
        return own and (self.paid is None or self.paid.within)

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        return {
            "estimate": self.estimate.plain(),
            "joint": self.joint.plain(),
            "margin": self.margin,
            "verdict": self.verdict,
            **({} if self.paid is None else {"paid": self.paid.plain()}),
        }


def at_a_price(gain: Judged, paid: Judged) -> Judged:
    """What is said of a loss if its price counts too, such as the global loss that both methods end with.

    `lower`: one of both, loss and price, is surely lower, and the other isn't higher by more than its margin; `higher`
    is the reverse. `moved`: one is surely lower and the other surely higher, and both of the above hold, or none.
    `same`: both lie within their margins.
    Either of both can be lower by chance, so that they count as two numbers in the level of joint intervals.
    """
    pairs = [(gain, paid), (paid, gain)]
    lower = any(one.joint.high < 0 and other.joint.high <= other.margin for one, other in pairs)
    higher = any(one.joint.low > 0 and other.joint.low >= -other.margin for one, other in pairs)
    word: Verdict = "undecided"
    if lower != higher:
        word = "lower" if lower else "higher"
    elif any(one.joint.high < 0 < other.joint.low for one, other in pairs):
        word = "moved"
    elif gain.within and paid.within:
        word = "same"
    return replace(gain, verdict=word, paid=paid)


def judge(estimate: Callable[[float], Estimate], margin: float, level: float) -> Judged:
    """Judge a number by its interval of `level`; `estimate` returns it with the interval of a level."""
    joint = estimate(level)
    return Judged(estimate(LEVEL), joint, margin, verdict(joint, margin))


def contrasts(recipe: CompareRecipe, outcome: ComparisonRuns) -> Contrasts:
    """All contrasts of the recipe between cells that share a seed, paired by seed and noise.

    Cells whose base has other losses can't be paired, such as a T2I-adapter, which isn't zero at its start, and a LoRA:
    that is recorded in `outcome.failed`.
    """
    pairs = [
        (against, cell)
        for against, cells in recipe.contrasts.items()
        for cell in cells
        if set(outcome.seeds.get(against, ())) & set(outcome.seeds.get(cell, ()))
    ]
    level = 1 - (1 - LEVEL) / max(1, sum(len(outcome.series[cell].first) for _, cell in pairs))
    found: Contrasts = {}
    for against, cell in pairs:
        series, reference = shared_seeds(outcome, cell, against)
        try:
            margins = recipe.margins(loss_changes(reference))
            found.setdefault(against, {})[cell] = {
                name: judge(partial(change, series, name, reference), margins[name], level) for name in series.first
            }
        except DataError as error:
            outcome.failed[f"{cell} compared with {against}"] = str(error)
    return found


def verdict(interval: Estimate, margin: float) -> Verdict:
    """Verdict on the interval of a difference; `lower` and `higher` take precedence over `same`."""
    if interval.high < 0:
        return "lower"
    if interval.low > 0:
        return "higher"
    return "same" if -margin <= interval.low and interval.high <= margin else "undecided"


def document(recipe: CompareRecipe, outcome: ComparisonRuns, differences: Contrasts) -> dict[str, Any]:
    """All numbers as a JSON document."""
    first = next(iter(outcome.series.values()))
    return {
        "base loss": {name: base_loss(first, name).plain() for name in first.first},
        "change": {
            cell: {name: {**change(series, name).plain(), "seeds": seed_changes(series, name)} for name in series.first}
            for cell, series in outcome.series.items()
        },
        **recipe.model_dump(include=set(Margins.model_fields)),
        "difference": {
            against: {cell: {name: one.plain() for name, one in found.items()} for cell, found in cells.items()}
            for against, cells in differences.items()
        },
        "learning rate": {
            cell: {"picked": rate, "tuning": outcome.tuned.get(cell)} for cell, rate in outcome.picked.items()
        },
        "seeds": outcome.seeds,
        "failed": outcome.failed,
    }
