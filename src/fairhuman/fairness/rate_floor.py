"""A floor for the rate of one objective: a strategy's direction, turned towards that objective's gradient if needed."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.fairness.strategy import GradientBalancing

_PARALLEL = 1e-7  # sine of an angle that may be rounding of parallel directions


class RateFloor(GradientBalancing):
    """The direction d of a strategy where cos(g, d) ≥ f, otherwise the nearest direction d' with cos(g, d') = f.

    g = G e is the gradient of the guarded objective. Of all directions with that cosine, the nearest to d lies in the
    plane of d and g. With p = gᵀd / ‖g‖ and q = √(‖d‖² - p²), the parts of d along g and across it,

        d' = d + κ g,    κ = max(0, q f / √(1 - f²) - p) / ‖g‖;    d' = g ‖d‖ / ‖g‖ for f = 1

    so the weights are w' = w + κ e, and the Gram matrix has all that is needed: ‖g‖² = eᵀ M e, gᵀd = eᵀ M w and
    ‖d‖² = wᵀ M w. Any number of objectives; the others keep the ratios that the strategy gave them.

    Without a gradient g (the objective is absent, or its gradient 0) d stays as it is. If g is the only gradient, any
    floor is met. Where d is exactly opposite to g, which no alpha-fair direction is, d' is g's direction.

    Args:
        strategy: gives w.
        floor: f, 0..1: the least rate, that is the cosine of g and the direction. It may be changed between steps.
        guarded: number of objectives, the first ones, whose sum is guarded; more than 1 if the whole picture's loss is
            split into bands.

    Attributes:
        turned: degrees by which the last direction was turned, 0 if the floor held by itself; None without g.

    Raises:
        ValueError: an argument is out of range.
    """

    def __init__(self, strategy: GradientBalancing, floor: float = 0.0, guarded: int = 1) -> None:
        if not 0.0 <= floor <= 1.0:
            raise ValueError(f"floor must be in 0..1, got {floor}")
        if guarded < 1:
            raise ValueError(f"guarded must be >= 1, got {guarded}")
        self.strategy = strategy
        self.floor = floor
        self.guarded = guarded
        self.turned: float | None = None
        self._before: list[float] = []
        self._ratio = 1.0  # ‖d‖ / ‖d'‖

    def weights(self, gram: Tensor) -> list[float]:
        """Return w' [K]."""
        self._before = self.strategy.weights(gram)
        self.ridge_used = self.strategy.ridge_used
        w_k = torch.tensor(self._before, dtype=gram.dtype)
        e_k = (gram.diagonal() > 0.0).to(gram.dtype)
        e_k[self.guarded :] = 0.0
        length = math.sqrt(max(0.0, float(e_k @ gram @ e_k)))
        self.turned, self._ratio = None, 1.0
        if not length > 0.0:
            return self._before
        along = float(e_k @ gram @ w_k) / length
        whole = math.sqrt(max(0.0, float(w_k @ gram @ w_k)))
        across = math.sqrt(max(0.0, whole**2 - along**2))
        across = across if across > _PARALLEL * whole else 0.0
        angle, widest = math.atan2(across, along), math.acos(self.floor)
        self.turned = math.degrees(max(0.0, angle - widest))
        if self.turned == 0.0:
            return self._before
        if self.floor == 1.0 or across == 0.0:
            turned_k = e_k * (whole / length)
        else:
            raised = across * self.floor / math.sqrt(1.0 - self.floor**2)
            turned_k = w_k + e_k * ((raised - along) / length)
            self._ratio = whole / math.hypot(raised, across)
        weights: list[float] = turned_k.tolist()
        return weights

    def natural_factor(self, weights: Sequence[float], norm: float) -> float:  # noqa: ARG002 - those of `weights`
        """Return the strategy's own factor, from the length that its direction has if this one has `norm`."""
        return self.strategy.natural_factor(self._before, norm * self._ratio)

    def parameters(self) -> list[nn.Parameter]:
        """Return the strategy's trainable parameters."""
        return self.strategy.parameters()

    def state_dict(self) -> dict[str, Any]:
        """Return the strategy's state; the floor is set by whoever changes it."""
        return self.strategy.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the strategy's state."""
        self.strategy.load_state_dict(state)
