"""The exact estimator: K gradients, their Gram matrix, their combination."""

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairhuman.fairness.distributed import any_process, average_, world_size

Gradient = list[Tensor | None]


class ExactEstimator:
    """Holds the K gradients, summed over micro-batches. Memory: K × P in the gradients' dtype, and no flat copies.

    From the second micro-batch on, its gradients come on top while they are added: P if sequential, K × P if batched.

    Args:
        parameters: what to differentiate for.
        batched: take the K gradients in one batched backward pass (`is_grads_batched`) instead of K passes. Under
            gradient checkpointing the activations are then recomputed once instead of K times; otherwise K passes are
            as fast on a CPU (`benchmarks/fairness.py`). Limits, all PyTorch's: dropout in a checkpointed block and a
            model compiled by inductor are errors; an operation without a batching rule, such as fused attention, runs
            K times, with a warning; an infinity in one objective's gradient can turn the others' into NaN.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], batched: bool = False) -> None:
        self.parameters = list(parameters)
        self.batched = batched
        self._gradients: list[Gradient] = []

    def reset(self) -> None:
        """Forget what was added."""
        self._gradients = []

    def add(self, losses: Sequence[Tensor | None]) -> None:
        """Add the gradients of K scalar losses. The graph is freed."""
        if not self._gradients:
            self._gradients = [[None] * len(self.parameters) for _ in losses]
        present = [(i, loss) for i, loss in enumerate(losses) if loss is not None]
        if self.batched and len(present) > 1:
            stacked = torch.stack([loss for _, loss in present])
            seeds = torch.eye(len(present), dtype=stacked.dtype, device=stacked.device)
            batches = torch.autograd.grad(
                stacked, self.parameters, grad_outputs=seeds, is_grads_batched=True, allow_unused=True
            )
            # A gradient that no seed reaches (that of `round`) comes as one row for all.
            batches = tuple(b.contiguous() if b is not None and b.stride(0) == 0 else b for b in batches)
            for row, (i, _) in enumerate(present):
                self._accumulate(i, [None if batch is None else batch[row] for batch in batches])
            return
        for position, (i, loss) in enumerate(present):
            keep = position + 1 < len(present)
            self._accumulate(i, torch.autograd.grad(loss, self.parameters, retain_graph=keep, allow_unused=True))

    def _accumulate(self, objective: int, gradient: Sequence[Tensor | None]) -> None:
        self._gradients[objective] = _add(self._gradients[objective], _own(gradient))

    def average(self, group: dist.ProcessGroup | None = None) -> None:
        """Average all gradients over processes; where only some processes have none, it counts as zero."""
        if world_size(group) == 1:
            return
        here = [[tensor is not None for tensor in gradient] for gradient in self._gradients]
        anywhere = any_process(here, self.parameters[0].device, group)
        for gradient, row in zip(self._gradients, anywhere, strict=True):
            for p, parameter in enumerate(self.parameters):
                if row[p] and gradient[p] is None:
                    gradient[p] = torch.zeros_like(parameter)
            average_((tensor for tensor in gradient if tensor is not None), group)

    def gram(self) -> Tensor:
        """Return M_ij = Σ_p ⟨g_ip, g_jp⟩: products in float32 at least, a sum over parameters in float64."""
        size = len(self._gradients)
        gram = torch.zeros(size, size, dtype=torch.float64)
        for i in range(size):
            for j in range(i + 1):
                products = [
                    _dot(a, b)
                    for a, b in zip(self._gradients[i], self._gradients[j], strict=True)
                    if a is not None and b is not None
                ]
                if products:
                    gram[i, j] = gram[j, i] = torch.stack(products).double().sum()
        return gram

    def combine(self, coefficients: Sequence[float]) -> Gradient:
        """Return Σ c_i g_i, computed in place of the gradients, which are given up."""
        total: Gradient = [None] * len(self.parameters)
        for coefficient, gradient in zip(coefficients, self._gradients, strict=True):
            tensors = [tensor for tensor in gradient if tensor is not None]
            if coefficient != 0.0 and tensors:
                torch._foreach_mul_(tensors, coefficient)
                total = _add(total, gradient)
            gradient.clear()
        self.reset()
        for p, tensor in enumerate(total):
            # A row of a batch would keep the whole batch alive. One at a time, so that this takes no memory.
            if tensor is not None and tensor.untyped_storage().nbytes() > tensor.nbytes:
                total[p] = tensor.clone()
        return total


def _add(total: Gradient, gradient: Sequence[Tensor | None]) -> Gradient:
    """Add `gradient` to `total`, in place where both have a tensor."""
    pairs = [(a, b) for a, b in zip(total, gradient, strict=True) if a is not None and b is not None]
    if pairs:
        torch._foreach_add_([a for a, _ in pairs], [b for _, b in pairs])
    return [b if a is None else a for a, b in zip(total, gradient, strict=True)]


def _own(gradient: Sequence[Tensor | None]) -> Gradient:
    """Copy what can't be written in place: an expanded scalar, or a tensor that shares its memory with another.

    Autograd returns one tensor twice for a + b, and parts of it for a + cat(b, c).
    """
    seen: set[int] = set()
    own: Gradient = []
    for tensor in gradient:
        if tensor is not None:
            expanded = any(stride == 0 and n > 1 for stride, n in zip(tensor.stride(), tensor.shape, strict=True))
            if expanded or tensor.untyped_storage().data_ptr() in seen:
                tensor = tensor.clone(memory_format=torch.contiguous_format)
            seen.add(tensor.untyped_storage().data_ptr())
        own.append(tensor)
    return own


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype in (torch.bfloat16, torch.float16):
        a, b = a.float(), b.float()
    return torch.dot(a.reshape(-1), b.reshape(-1))
