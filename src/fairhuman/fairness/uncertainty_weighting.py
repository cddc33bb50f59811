"""Uncertainty weighting (UW): weights that are trained together with the model."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from fairhuman.fairness.strategy import LossWeighting


class UncertaintyWeighting(LossWeighting):
    """Minimise Σ_i ½ exp(-s_i) L_i + ½ s_i over the model and over s [K], so w_i = ½ exp(-s_i).

    s_i is the logarithm of the objective's noise variance. Kendall, Gal, Cipolla, Multi-Task Learning Using
    Uncertainty to Weigh Losses, CVPR 2018. Its gradient, ½ (1 - exp(-s_i) L_i), is written into `s.grad` after every
    step; pass `parameters()` to the optimiser. An absent objective has the gradient 0, with which an optimiser's
    momentum may still move s_i a little.

    Args:
        objectives: their number K.
    """

    def __init__(self, objectives: int) -> None:
        if objectives < 1:
            raise ValueError(f"objectives must be >= 1, got {objectives}")
        self.s = nn.Parameter(torch.zeros(objectives))

    def parameters(self) -> list[nn.Parameter]:
        """Return s [K]."""
        return [self.s]

    def weights(self, losses: Sequence[float | None]) -> list[float]:
        """Return ½ exp(-s)."""
        if len(losses) != self.s.numel():
            raise ValueError(f"created for {self.s.numel()} objectives, got {len(losses)} losses")
        return [0.5 * math.exp(-value) for value in self.s.tolist()]

    def observe(self, losses: Sequence[float | None]) -> None:
        """Add the gradient of s to `s.grad`."""
        gradient = [
            0.0 if loss is None else 0.5 * (1.0 - math.exp(-value) * loss)
            for value, loss in zip(self.s.tolist(), losses, strict=True)
        ]
        addend = torch.tensor(gradient, dtype=self.s.dtype, device=self.s.device)
        self.s.grad = addend if self.s.grad is None else self.s.grad + addend

    def state_dict(self) -> dict[str, Any]:
        """Return s."""
        return {"s": self.s.detach().cpu().clone()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore s."""
        with torch.no_grad():
            self.s.copy_(state["s"])
