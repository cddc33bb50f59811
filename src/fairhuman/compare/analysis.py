"""What a comparison says: changes against the base, differences between cells, and what may be concluded from them."""

from dataclasses import dataclass
from typing import Any, Literal

from fairhuman.compare.runs import ComparisonRuns, shared_seeds
from fairhuman.compare.settings import CompareRecipe
from fairhuman.report.changes import base_loss, change, seed_changes
from fairhuman.stats.estimate import Estimate

Contrasts = dict[str, dict[str, dict[str, "CellContrast"]]]  # by cell that is compared with, by cell, by objective
Verdict = Literal["lower", "higher", "same", "undecided"]
LEVEL = 0.95


@dataclass(frozen=True)
class CellContrast:
    """A cell against another one, in parts of the base's loss.

    Attributes:
        estimate: mean over seeds of (L_cell - L_against) / L_base with its 95 % interval.
        family: the interval that holds for all contrasts of the table at once with 95 % (Bonferroni).
        verdict: of `family`: `lower` or `higher` where 0 is outside of it; `same` where it lies within the margin
            stated beforehand (Schuirmann's two one-sided tests); else `undecided`.

    """

    estimate: Estimate
    family: Estimate
    verdict: Verdict

    def plain(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"estimate": self.estimate.plain(), "family": self.family.plain(), "verdict": self.verdict}


def contrasts(recipe: CompareRecipe, outcome: ComparisonRuns) -> Contrasts:
    """All that the recipe asks for; seeds and noise are paired. Seconds a number, as far tails take many resamples."""
    pairs = [
        (against, cell)
        for against, cells in recipe.contrasts.items()
        for cell in cells
        if against in outcome.series and cell in outcome.series
    ]
    level = 1 - (1 - LEVEL) / max(1, sum(len(outcome.series[cell].first) for _, cell in pairs))
    found: Contrasts = {}
    for against, cell in pairs:
        series, reference = shared_seeds(outcome, cell, against)
        found.setdefault(against, {})[cell] = {
            name: _contrast(change(series, name, reference), change(series, name, reference, level), recipe.margin)
            for name in series.first
        }
    return found


def verdict(interval: Estimate, margin: float) -> Verdict:
    """What an interval of a difference says; an interval that is both, below 0 and within the margin, is `lower`."""
    if interval.high < 0:
        return "lower"
    if interval.low > 0:
        return "higher"
    return "same" if -margin <= interval.low and interval.high <= margin else "undecided"


def document(recipe: CompareRecipe, outcome: ComparisonRuns, differences: Contrasts) -> dict[str, Any]:
    """All numbers, ready for JSON."""
    first = next(iter(outcome.series.values()))
    return {
        "base loss": {name: base_loss(first, name).plain() for name in first.first},
        "change": {
            cell: {name: {**change(series, name).plain(), "seeds": seed_changes(series, name)} for name in series.first}
            for cell, series in outcome.series.items()
        },
        "margin": recipe.margin,
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


def _contrast(estimate: Estimate, family: Estimate, margin: float) -> CellContrast:
    return CellContrast(estimate, family, verdict(family, margin))
