"""A strategy: `strategy=softmax fairness.options.temperature=0.1`."""

from collections.abc import Sequence

import torch

from fairhuman.fairness.strategy import LossWeighting


class SoftmaxWeighting(LossWeighting):
    """w = K softmax(L / T): objectives with larger losses count more; T → ∞ is the plain sum.

    Args:
        temperature: T > 0, in units of the losses; a recipe's `fairness.options.temperature`.
    """

    needs_losses = True

    def __init__(self, temperature: float = 1.0) -> None:
        if not temperature > 0.0:
            raise ValueError(f"temperature must be > 0, got {temperature}")
        self.temperature = temperature

    def weights(self, losses: Sequence[float | None]) -> list[float]:
        """Return w [K]; 0 for an absent objective."""
        values = torch.tensor([float("-inf") if loss is None else loss for loss in losses], dtype=torch.float64)
        if bool(values.isneginf().all()):
            return [0.0] * len(losses)
        weights: list[float] = (len(losses) * (values / self.temperature).softmax(0)).tolist()
        return weights
