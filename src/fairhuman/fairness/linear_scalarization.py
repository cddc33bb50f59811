"""Linear scalarisation (LS): fixed weights."""

import math
from collections.abc import Sequence

from fairhuman.fairness.strategy import LossWeighting


class LinearScalarization(LossWeighting):
    """w_i = c_i, 1 by default: the plain (weighted) sum of losses.

    Args:
        coefficients: c [K], finite and ≥ 0; None: all ones.

    Raises:
        ValueError: a coefficient is out of range, or their number differs from that of the losses.
    """

    def __init__(self, coefficients: Sequence[float] | None = None) -> None:
        for i, value in enumerate(coefficients or ()):
            if not (math.isfinite(value) and value >= 0.0):
                raise ValueError(f"coefficients[{i}] must be finite and >= 0, got {value}")
        self.coefficients = None if coefficients is None else list(coefficients)

    def weights(self, losses: Sequence[float | None]) -> list[float]:
        """Return c."""
        if self.coefficients is None:
            return [1.0] * len(losses)
        if len(self.coefficients) != len(losses):
            raise ValueError(f"{len(self.coefficients)} coefficients for {len(losses)} losses")
        return self.coefficients
