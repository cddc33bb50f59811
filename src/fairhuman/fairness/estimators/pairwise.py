"""The exact estimator with less memory: two gradients at a time, more passes."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairhuman.fairness.distributed import average_gradients_, sum_over_shards
from fairhuman.fairness.estimators.estimator import (
    Estimator,
    Gradient,
    GramEstimate,
    MicroBatch,
    WeightRule,
    differentiate,
    inner_product,
    weighted_sum,
)


class PairwiseEstimator(Estimator):
    """Computes M pair by pair, then the direction in one more pass. Memory: 2 × P instead of K × P.

    Passes: 1 + (K² - K + 2) / 2, which is 5 instead of 3 for K = 3. The graph of the losses is retained until the end.

    Args:
        parameters: the parameters to differentiate with respect to.
        dtype: bfloat16: the gradients for M are kept in it, and P is the most that there is; the direction's own pass
            isn't rounded. None: the parameters', float32.
    """

    accumulates = False

    def __init__(self, parameters: Sequence[nn.Parameter], dtype: torch.dtype | None = None) -> None:
        self.parameters = list(parameters)
        self.dtype = dtype
        self._losses: Sequence[Tensor | None] = ()

    def begin(self, weigh: WeightRule, group: dist.ProcessGroup | None) -> None:
        """Start a step."""
        self._weigh, self._group = weigh, group
        self._losses = ()

    def add(self, micro: MicroBatch) -> None:
        """Keep the losses."""
        self._losses = micro.losses

    def collect(self, scale: float = 1.0) -> Tensor:
        """Return M of the gradients averaged over processes and divided by `scale`."""
        size = len(self._losses)
        gram = torch.zeros(size, size, dtype=torch.float64)
        left = list(range(size))
        held, gradient = left.pop(0), self._gradient(self._losses[0], self.dtype)
        gram[held, held] = inner_product(gradient, gradient)
        while left:
            for i in left:
                other: Gradient = []  # frees its memory before the next one
                other = self._gradient(self._losses[i], self.dtype)
                gram[i, i] = inner_product(other, other)
                gram[held, i] = gram[i, held] = inner_product(gradient, other)
            held, gradient = left.pop(), other  # the last one is computed already
        return sum_over_shards(gram, self.parameters) / scale**2

    def finish(self, scale: float = 1.0) -> GramEstimate:
        """Return the exact direction."""
        gram = self.collect(scale)
        weights = self._weigh(gram)
        return GramEstimate(weights, self.combine(weights), gram, rounded_to=self.dtype)

    def combine(self, weights: Sequence[float]) -> Gradient:
        """Return Σ w_i g_i. The graph is freed."""
        losses, self._losses = self._losses, ()
        return self._gradient(weighted_sum(losses, weights), None, keep=False)

    def _gradient(self, loss: Tensor | None, dtype: torch.dtype | None, keep: bool = True) -> Gradient:
        gradient: Gradient = [None] * len(self.parameters)
        if loss is not None:
            gradient = differentiate(loss, self.parameters, keep, dtype)
        average_gradients_([gradient], self.parameters, self._group, dtype)
        return gradient
