"""Estimators: from losses to the Gram matrix, and from weights to the direction."""

from collections.abc import Sequence
from typing import Protocol

import torch.distributed as dist
from torch import Tensor

from fairhuman.fairness.estimators.exact import ExactEstimator

__all__ = ["Estimator", "ExactEstimator"]


class Estimator(Protocol):
    """What stands between the losses of a step and its direction.

    A step is any number of `add` calls (micro-batches), then `average`, `gram` and `combine`. An amortised estimator
    may know M only approximately, but `combine` always returns a combination of the true gradients.
    """

    def reset(self) -> None:
        """Forget what was added."""

    def add(self, losses: Sequence[Tensor | None]) -> None:
        """Take in a micro-batch: K scalar losses, None where an objective is absent."""

    def average(self, group: dist.ProcessGroup | None = None) -> None:
        """Average over processes what `gram` and `combine` need."""

    def gram(self) -> Tensor:
        """Return M [K, K], float64 on the CPU, of what was added since the last `combine`."""

    def combine(self, coefficients: Sequence[float]) -> list[Tensor | None]:
        """Return Σ c_i g_i, a tensor a parameter (None: no gradient), and start afresh."""
