"""Smooth Tchebycheff scalarisation, by torchjd."""

from collections.abc import Sequence

import torch
from torchjd.scalarization import STCH as Scalarizer  # noqa: N811 - this class has its name

from fairhuman.fairness import LossWeighting


class STCH(LossWeighting):
    """w = ∇_L μ log Σ_i exp(L_i / (K μ)), K the number of objectives present: the larger a loss, the larger its weight.

    Lin et al., Smooth Tchebycheff Scalarization for Multi-Objective Optimization, ICML 2024, with equal preferences and
    the ideal point 0.

    Args:
        mu: μ > 0, in units of the losses; the smaller, the nearer to the largest loss alone.

    Raises:
        ValueError: μ is out of range.
    """

    needs_losses = True

    def __init__(self, mu: float) -> None:
        self.scalarizer = Scalarizer(mu)

    def weights(self, losses: Sequence[float | None]) -> list[float]:
        """Return w."""
        present = [i for i, loss in enumerate(losses) if loss is not None]
        weights = [0.0] * len(losses)
        if not present:
            return weights
        values = torch.tensor([losses[i] for i in present], dtype=torch.float64, requires_grad=True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(self.scalarizer(values), values)
        for i, weight in zip(present, gradient.tolist(), strict=True):
            weights[i] = weight
        return weights
