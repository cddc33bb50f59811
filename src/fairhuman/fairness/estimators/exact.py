"""Mode `exact`: K gradients, their Gram matrix, their combination."""

from collections.abc import Collection, Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairhuman.fairness.distributed import average_gradients_, is_sharded, sum_over_shards
from fairhuman.fairness.estimators.estimator import (
    Estimator,
    Gradient,
    GramEstimate,
    MicroBatch,
    WeightRule,
    add_gradients_,
    combine_gradients,
    combine_rounded,
    differentiate,
    gram_matrix,
    unaliased,
)


class ExactEstimator(Estimator):
    """Computes K gradients, summed over micro-batches. Memory: K × P in the gradients' dtype, without flat copies.

    From the second micro-batch on, its gradients need extra memory while they are added: P if sequential, K × P if
    batched.

    Args:
        parameters: the parameters to differentiate with respect to.
        batched: compute the K gradients in one batched backward pass (`is_grads_batched`) instead of K passes. Under
            gradient checkpointing the activations are then recomputed once instead of K times; otherwise K passes are
            as fast on a CPU (`benchmarks/fairness.py`). Limits of PyTorch: dropout in a checkpointed block and a model
            compiled by inductor are errors; an operation without a batching rule, such as fused attention, runs K times
            with a warning; an infinity in one objective's gradient can turn the others into NaN.
        dtype: bfloat16: each of the K gradients is kept in it, K × P / 2, from the moment that autograd has it; None:
            the parameters', float32. M and the direction are computed in float32 from the rounded gradients, one tensor
            after the other. For one micro-batch a step: a sum over several would be rounded at each, or be as large as
            without rounding.

    Raises:
        ValueError: `batched` with sharded parameters, whose gradients need one `backward` pass each, or with a `dtype`,
            as it returns K gradients at once.
    """

    accumulates = True

    def __init__(
        self, parameters: Sequence[nn.Parameter], batched: bool = False, dtype: torch.dtype | None = None
    ) -> None:
        self.parameters = list(parameters)
        self.batched = batched
        self.dtype = dtype
        if batched and dtype is not None:
            raise ValueError(f"batched must be False if gradients are kept in {dtype}, found True")
        if batched and is_sharded(self.parameters):
            raise ValueError("batched must be False if parameters are sharded, found True")
        self._gradients: list[Gradient] = []

    def begin(self, weigh: WeightRule, group: dist.ProcessGroup | None) -> None:
        """Start a step."""
        self._weigh, self._group = weigh, group
        self._gradients = []

    def add(self, micro: MicroBatch) -> None:
        """Add the gradients of K losses. The graph is freed.

        Raises:
            ValueError: a second micro-batch of gradients that are kept in another `dtype`.
        """
        losses = micro.losses
        if self.dtype is not None and not micro.last:
            raise ValueError(
                f"gradients kept in {self.dtype} can't be summed over micro-batches, as each sum would be rounded: "
                "take one micro-batch a step, or keep them in float32"
            )
        if not self._gradients:
            self._gradients = [[None] * len(self.parameters) for _ in losses]
        present = [(i, loss) for i, loss in enumerate(losses) if loss is not None]
        if self.batched and len(present) > 1:
            stacked = torch.stack([loss for _, loss in present])
            seeds = torch.eye(len(present), dtype=stacked.dtype, device=stacked.device)
            batches = torch.autograd.grad(
                stacked, self.parameters, grad_outputs=seeds, is_grads_batched=True, allow_unused=True
            )
            # A gradient that no seed reaches (that of `round`) is returned as one row expanded to all.
            batches = tuple(b.contiguous() if b is not None and b.stride(0) == 0 else b for b in batches)
            for row, (i, _) in enumerate(present):
                self._accumulate(i, unaliased([None if batch is None else batch[row] for batch in batches]))
            return
        for position, (i, loss) in enumerate(present):
            keep = position + 1 < len(present)
            self._accumulate(i, differentiate(loss, self.parameters, keep, self.dtype))

    def _accumulate(self, objective: int, gradient: Gradient) -> None:
        self._gradients[objective] = add_gradients_(self._gradients[objective], gradient)

    def collect(self, scale: float = 1.0) -> Tensor:
        """Average all gradients over processes; return M of the gradients divided by `scale`."""
        average_gradients_(self._gradients, self.parameters, self._group, self.dtype)
        self._scale = scale
        return sum_over_shards(gram_matrix(self._gradients), self.parameters) / scale**2

    def partial_gram(self, positions: Collection[int]) -> Tensor:
        """Return the contribution of the parameters at `positions` to M; call after `collect`."""
        return gram_matrix([[gradient[p] for p in positions] for gradient in self._gradients]) / self._scale**2

    def finish(self, scale: float = 1.0) -> GramEstimate:
        """Return the exact direction."""
        gram = self.collect(scale)
        weights = self._weigh(gram)
        return GramEstimate(weights, self.combine(weights), gram, rounded_to=self.dtype)

    def combine(self, weights: Sequence[float]) -> Gradient:
        """Return Σ w_i g_i; the gradients are consumed."""
        gradients, self._gradients = self._gradients, []
        combine = combine_gradients if self.dtype is None else combine_rounded
        return combine(gradients, weights)
