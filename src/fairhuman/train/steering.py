"""Steering: the floor for the whole picture's rate rises with what its held-out loss has risen.

With L₀ the loss before the first step, L the latest one, x the allowed rise (`steer.at_most`) and f₀ the
`fairness.floor`, 0 by default, the floor is

    f = max(f₀, min(1, (L / L₀ - 1) / x))

A step can promise a rate alone; what a user asks for is the held-out loss, which is measured every so many steps. While
nothing is spent the strategy decides, above f₀; when all is spent, f = 1: every step follows the whole picture's
gradient alone until its loss is back.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fairhuman.fairness import RateFloor
from fairhuman.report.text import percent
from fairhuman.train.recipe import TrainRecipe


@dataclass
class Steering:
    """The state of a steered run: the whole picture's held-out loss before the first step, and its latest change.

    `update` depends on these and its argument alone, and measuring is deterministic, so that a resumed run measures
    again what it had measured and goes on in the same way.
    """

    rate: RateFloor
    at_most: float
    least: float = 0.0
    first: float | None = None
    change: float = 0.0

    @classmethod
    def of(cls, recipe: TrainRecipe, strategy: object) -> "Steering | None":
        """Return the steering of a run that hasn't begun; None if the recipe asks for none."""
        if recipe.steer.at_most is None or not isinstance(strategy, RateFloor):
            return None
        return cls(strategy, recipe.steer.at_most, recipe.fairness.floor or 0.0)

    def update(self, loss: float) -> None:
        """Set the floor from the whole picture's held-out loss as it is now; the first one is what changes refer to."""
        if self.first is None:
            self.first = loss
        self._changed(loss / self.first - 1.0)

    def _changed(self, change: float) -> None:
        self.change = change
        spent = change / self.at_most if math.isfinite(change) else 1.0
        self.rate.floor = max(self.least, min(1.0, max(0.0, spent)))

    def line(self) -> str:
        """What became of what was asked for."""
        kept = self.change <= self.at_most
        more = "" if kept else "; a lower learning_rate or smaller steer.every keeps it"
        return (
            f"steer.at_most={self.at_most:g}: the whole picture's held-out loss changed by "
            f"{percent(self.change, 3, signed=True)}{more}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return the first loss and the latest change."""
        return {"first": self.first, "change": self.change}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, and the floor."""
        self.first = state["first"]
        self._changed(state["change"])
