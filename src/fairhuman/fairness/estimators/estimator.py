"""The base class of estimators, and operations on gradients that estimators share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils.hooks import RemovableHandle

from fairhuman.fairness.distributed import is_sharded, present_in_any_process

Gradient = list[Tensor | None]
WeightRule = Callable[[Tensor], list[float]]
"""Returns w [K] for a Gram matrix M [K, K]; 0 where M_ii is 0."""


class EstimatorError(RuntimeError):
    """An estimator can't handle these objectives; the message names a mode that can."""


@dataclass(frozen=True, slots=True)
class Output:
    """The network's output; the losses depend on the trained parameters only through it.

    prediction_b: [B, ...], with a graph.
    levels_b: log signal-to-noise ratio of each sample [B]; None: unknown.
    """

    prediction_b: Tensor
    levels_b: Tensor | None = None


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """The losses of one micro-batch.

    losses: K scalars; None where an objective is absent.
    output: the network output that they come from; None: unknown.
    last: whether this is the step's last micro-batch.
    present: which of K objectives the whole step has, over all processes; None: unknown.
    """

    losses: Sequence[Tensor | None]
    output: Output | None = None
    last: bool = True
    present: Sequence[bool] | None = None


@dataclass(frozen=True, slots=True)
class GramEstimate:
    """The result of a step, equal in all processes.

    weights: w [K].
    direction: Σ w_i g_i, one tensor per parameter; None where no gradient reaches it.
    gram: M [K, K], float64 on the CPU, of the unscaled gradients; an estimate if `exact` is False.
    exact: whether `gram` and `weights` come from the K gradients.
    cosine: in an audit, cosine of the estimator's direction and the exact one.
    rounded_to: the type that the K gradients were rounded to; None: they weren't.
    """

    weights: list[float]
    direction: Gradient
    gram: Tensor
    exact: bool = True
    cosine: float | None = None
    rounded_to: torch.dtype | None = None


class Estimator(ABC):
    """Turns the losses of a step into its direction.

    A step is `begin`, one or more `add` calls (micro-batches), then `finish`. By default an estimator has no state, and
    nothing to release.
    """

    @property
    @abstractmethod
    def accumulates(self) -> bool:
        """Whether a step may have several micro-batches."""

    @abstractmethod
    def begin(self, weigh: WeightRule, group: dist.ProcessGroup | None) -> None:
        """Start a step, before its forward pass; discard an unfinished one."""

    @abstractmethod
    def add(self, micro: MicroBatch) -> None:
        """Add a micro-batch."""

    @abstractmethod
    def finish(self, scale: float) -> GramEstimate:
        """Choose the weights; return the direction, averaged over processes. The losses were multiplied by `scale`."""

    def release(self) -> None:  # noqa: B027 - few change anything
        """Free what the last step left, and undo all changes to the network: another estimator takes over."""

    def state_dict(self) -> dict[str, Any]:
        """Return everything that later steps depend on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, got keys {sorted(state)}")


def differentiate(
    loss: Tensor, parameters: Sequence[Tensor], keep: bool = False, dtype: torch.dtype | None = None
) -> Gradient:
    """Return ∂loss/∂p of each parameter as tensors that may be modified in place; None where loss doesn't depend on p.

    For sharded parameters: this process's shards of the gradient averaged over processes. FSDP2 computes these only in
    hooks of `backward` (`torch.autograd.grad` would silently return None), so all processes must call this. `.grad` is
    left unchanged.

    Args:
        loss: a scalar.
        parameters: all sharded or none.
        keep: retain the graph for another pass.
        dtype: of the gradients, each of which is rounded to it during the pass, so that there is never more than one in
            its own type (if sharded: after the pass); None: their own.
    """
    if not is_sharded(parameters):
        if dtype is not None:
            return _rounded(loss, parameters, keep, dtype)
        return unaliased(torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True))
    before = [parameter.grad for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
    try:
        torch.autograd.backward(loss, retain_graph=keep)
        found = [parameter.grad for parameter in parameters]
    finally:
        for parameter, gradient in zip(parameters, before, strict=True):
            parameter.grad = gradient
    shards: Gradient = [gradient.to_local() if isinstance(gradient, DTensor) else None for gradient in found]
    return shards if dtype is None else [None if shard is None else shard.to(dtype) for shard in shards]


def _rounded(loss: Tensor, parameters: Sequence[Tensor], keep: bool, dtype: torch.dtype) -> Gradient:
    found: Gradient = [None] * len(parameters)

    def take(position: int, gradient: Tensor) -> Tensor:
        found[position] = gradient.to(dtype, copy=True)
        return gradient.new_zeros(()).expand_as(gradient)  # instead of it, so that autograd holds no other copy

    with ExitStack() as hooks:
        for position, parameter in enumerate(parameters):
            handle: RemovableHandle = parameter.register_hook(partial(take, position))  # type: ignore[no-untyped-call]
            hooks.enter_context(handle)
        torch.autograd.grad(loss, parameters, retain_graph=keep, allow_unused=True)
    return found


def output_gradients(micro: MicroBatch, mode: str) -> tuple[Output, list[Tensor | None]]:
    """Return the output and ∂L_i/∂output of each loss, in the prediction's shape; None: absent. The graph is retained.

    Raises:
        ValueError: the micro-batch has no output.
    """
    output = micro.output
    if output is None:
        raise ValueError(f"mode {mode} needs the network's output: call fair(losses, output=Output(prediction))")
    return output, [
        None if loss is None else torch.autograd.grad(loss, output.prediction_b, retain_graph=True)[0]
        for loss in micro.losses
    ]


def with_zero_losses(
    losses: Sequence[Tensor | None], output: Output | None, device: torch.device, group: dist.ProcessGroup | None
) -> list[Tensor | None]:
    """Add a zero loss for each objective that only other processes have; for sharded parameters.

    FSDP2 communicates in each backward pass, so all processes must run the same passes.

    Raises:
        ValueError: in all processes, if one of them has neither a loss nor the output.
    """
    some = next((loss for loss in losses if loss is not None), None)
    if some is None and output is not None:
        some = output.prediction_b.sum()
    here = [*(loss is not None for loss in losses), some is None]
    *anywhere, stuck = present_in_any_process(here, device, group)
    if stuck and any(anywhere):
        raise ValueError(
            "a process has no losses, which sharded parameters need in every process: call fair(losses, output=...)"
        )
    zeros = [some * 0.0 if some is not None and there else None for there in anywhere]
    return [zero if loss is None else loss for loss, zero in zip(losses, zeros, strict=True)]


def add_gradients_(total: Gradient, gradient: Sequence[Tensor | None]) -> Gradient:
    """Add `gradient` to `total`, in place where both have a tensor; return the sum."""
    pairs = [(a, b) for a, b in zip(total, gradient, strict=True) if a is not None and b is not None]
    if pairs:
        torch._foreach_add_([a for a, _ in pairs], [b for _, b in pairs])
    return [b if a is None else a for a, b in zip(total, gradient, strict=True)]


def unaliased(gradient: Sequence[Tensor | None]) -> Gradient:
    """Copy tensors that can't be modified in place: expanded scalars and tensors that share memory.

    Autograd returns one tensor twice for a + b, and slices of one for a + cat(b, c).
    """
    seen: set[int] = set()
    owned: Gradient = []
    for tensor in gradient:
        if tensor is not None:
            expanded = any(stride == 0 and n > 1 for stride, n in zip(tensor.stride(), tensor.shape, strict=True))
            if expanded or tensor.untyped_storage().data_ptr() in seen:
                tensor = tensor.clone(memory_format=torch.contiguous_format)
            seen.add(tensor.untyped_storage().data_ptr())
        owned.append(tensor)
    return owned


def combine_gradients(gradients: Sequence[Gradient], weights: Sequence[float]) -> Gradient:
    """Return Σ w_i g_i, computed in the memory of the gradients, which are consumed."""
    total: Gradient = [None] * len(gradients[0])
    for weight, gradient in zip(weights, gradients, strict=True):
        tensors = [tensor for tensor in gradient if tensor is not None]
        if weight != 0.0 and tensors:
            torch._foreach_mul_(tensors, weight)
            total = add_gradients_(total, gradient)
        gradient.clear()
    for p, tensor in enumerate(total):
        # A row of a batch keeps the whole batch alive. Copied one at a time, so that peak memory doesn't grow.
        if tensor is not None and tensor.untyped_storage().nbytes() > tensor.nbytes:
            total[p] = tensor.clone()
    return total


def combine_rounded(gradients: Sequence[Gradient], weights: Sequence[float]) -> Gradient:
    """Return Σ w_i g_i in float32, one parameter after the other; the gradients, of a smaller type, are consumed."""
    total: Gradient = [None] * len(gradients[0])
    for p in range(len(total)):
        for weight, gradient in zip(weights, gradients, strict=True):
            tensor, gradient[p] = gradient[p], None
            if tensor is not None and weight != 0.0:
                found = total[p]
                total[p] = tensor.float().mul_(weight) if found is None else found.add_(tensor.float(), alpha=weight)
    return total


def weighted_sum(tensors: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """Return Σ w_i t_i over the present losses or output gradients; None if there are none."""
    terms = [w * tensor for w, tensor in zip(weights, tensors, strict=True) if tensor is not None and w != 0.0]
    return torch.stack(terms).sum(dim=0) if terms else None


def gram_matrix(gradients: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Return M_ij = Σ_p ⟨g_ip, g_jp⟩: products in at least float32, summed over tensors in float64."""
    size = len(gradients)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = inner_product(gradients[i], gradients[j])
    return gram


def inner_product(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> Tensor:
    """Return Σ_p ⟨g_p, h_p⟩, an entry of M, float64."""
    products = [_dot(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return torch.stack(products).double().sum() if products else torch.zeros((), dtype=torch.float64)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype in (torch.bfloat16, torch.float16):
        a, b = a.float(), b.float()
    return torch.dot(a.reshape(-1), b.reshape(-1))
