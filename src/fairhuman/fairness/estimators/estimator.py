"""What stands between the losses of a step and its direction."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.tensor import DTensor

from fairhuman.fairness.distributed import is_sharded, present_in_any_process

Gradient = list[Tensor | None]
WeightRule = Callable[[Tensor], list[float]]
"""From a Gram matrix M [K, K] to w [K]; 0 where M_ii is 0."""


class EstimatorError(RuntimeError):
    """An estimator can't serve these objectives; the message names the mode that can."""


@dataclass(frozen=True, slots=True)
class Output:
    """What the network gave: all losses depend on trained parameters through it alone.

    prediction_b: [B, ...], with a graph.
    levels_b: log signal-to-noise ratio of each sample [B]; None: not known.
    """

    prediction_b: Tensor
    levels_b: Tensor | None = None


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """What a step is told at a time.

    losses: K scalars; None where an objective is absent.
    output: which they come from; None: not known.
    last: no other one follows in this step.
    """

    losses: Sequence[Tensor | None]
    output: Output | None = None
    last: bool = True


@dataclass(frozen=True, slots=True)
class GramEstimate:
    """What a step comes to, the same in all processes.

    weights: w [K].
    direction: Σ w_i g_i, a tensor a parameter; None where no gradient reaches it.
    gram: M [K, K], float64 on the CPU, of the unscaled gradients; a guess where `exact` is False.
    exact: `gram` and `weights` are those of the K gradients.
    cosine: of an audit: between the direction that the estimator would have taken and the exact one.
    """

    weights: list[float]
    direction: Gradient
    gram: Tensor
    exact: bool = True
    cosine: float | None = None


class Estimator(Protocol):
    """Differentiates the losses of a step, as often as it needs to.

    A step is `begin`, any number of `add` calls (micro-batches), then `finish`.
    """

    @property
    def accumulates(self) -> bool:
        """Whether a step may have several micro-batches."""

    def begin(self, weigh: WeightRule, group: dist.ProcessGroup | None) -> None:
        """Start a step, before its forward pass; forget one that wasn't finished."""

    def add(self, micro: MicroBatch) -> None:
        """Take in a micro-batch."""

    def finish(self, scale: float) -> GramEstimate:
        """Choose the weights and return the direction, averaged over processes; losses were `scale` times too large."""

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""


def differentiate(loss: Tensor, parameters: Sequence[Tensor], keep: bool = False) -> Gradient:
    """Return ∂loss/∂p of each parameter, to be written in place; None where it doesn't depend on one.

    Of sharded parameters: this process's shards of the gradient's average over processes. FSDP2 makes these in hooks
    of `backward` alone (`torch.autograd.grad` would return None without a word), so all processes must come here.
    `.grad` is left as it was.

    Args:
        loss: a scalar.
        parameters: all sharded or none.
        keep: the graph, for another pass.
    """
    if not is_sharded(parameters):
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
    return [gradient.to_local() if isinstance(gradient, DTensor) else None for gradient in found]


def output_gradients(micro: MicroBatch, mode: str) -> tuple[Output, list[Tensor | None]]:
    """Return the output and ∂L_i/∂output of each loss, shaped as the prediction; None: absent. The graph is kept.

    Raises:
        ValueError: the output isn't known.
    """
    output = micro.output
    if output is None:
        raise ValueError(
            f"mode {mode} looks at gradients at the network's output: give it, fair(losses, output=Output(prediction))"
        )
    return output, [
        None if loss is None else torch.autograd.grad(loss, output.prediction_b, retain_graph=True)[0]
        for loss in micro.losses
    ]


def with_zero_losses(
    losses: Sequence[Tensor | None], output: Output | None, device: torch.device, group: dist.ProcessGroup | None
) -> list[Tensor | None]:
    """Give an objective that other processes have, and this one hasn't, a loss of 0; for sharded parameters.

    FSDP2 gathers parameters and scatters gradients in each backward pass, so all processes have to take the same ones.

    Raises:
        ValueError: in all processes, where one has no loss at all and isn't given the output.
    """
    some = next((loss for loss in losses if loss is not None), None)
    if some is None and output is not None:
        some = output.prediction_b.sum()
    here = [*(loss is not None for loss in losses), some is None]
    *anywhere, stuck = present_in_any_process(here, device, group)
    if stuck and any(anywhere):
        raise ValueError("a process has no loss at all, and parameters are sharded: give fair(losses, output=...)")
    zeros = [some * 0.0 if some is not None and there else None for there in anywhere]
    return [zero if loss is None else loss for loss, zero in zip(losses, zeros, strict=True)]


def add_gradients_(total: Gradient, gradient: Sequence[Tensor | None]) -> Gradient:
    """Add `gradient` to `total`, in place where both have a tensor."""
    pairs = [(a, b) for a, b in zip(total, gradient, strict=True) if a is not None and b is not None]
    if pairs:
        torch._foreach_add_([a for a, _ in pairs], [b for _, b in pairs])
    return [b if a is None else a for a, b in zip(total, gradient, strict=True)]


def unaliased(gradient: Sequence[Tensor | None]) -> Gradient:
    """Copy what can't be written in place: an expanded scalar, or a tensor that shares its memory with another.

    Autograd returns one tensor twice for a + b, and parts of it for a + cat(b, c).
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
    """Return Σ w_i g_i, computed in place of the gradients, which are given up."""
    total: Gradient = [None] * len(gradients[0])
    for weight, gradient in zip(weights, gradients, strict=True):
        tensors = [tensor for tensor in gradient if tensor is not None]
        if weight != 0.0 and tensors:
            torch._foreach_mul_(tensors, weight)
            total = add_gradients_(total, gradient)
        gradient.clear()
    for p, tensor in enumerate(total):
        # A row of a batch would keep the whole batch alive. One at a time, so that this takes no memory.
        if tensor is not None and tensor.untyped_storage().nbytes() > tensor.nbytes:
            total[p] = tensor.clone()
    return total


def weighted_sum(tensors: Sequence[Tensor | None], weights: Sequence[float]) -> Tensor | None:
    """Return Σ w_i t_i of losses, or of gradients at the output, that are there; None where there are none."""
    terms = [w * tensor for w, tensor in zip(weights, tensors, strict=True) if tensor is not None and w != 0.0]
    return torch.stack(terms).sum(dim=0) if terms else None


def gram_matrix(gradients: Sequence[Sequence[Tensor | None]]) -> Tensor:
    """Return M_ij = Σ_p ⟨g_ip, g_jp⟩: products in float32 at least, a sum over tensors in float64."""
    size = len(gradients)
    gram = torch.zeros(size, size, dtype=torch.float64)
    for i in range(size):
        for j in range(i + 1):
            gram[i, j] = gram[j, i] = inner_product(gradients[i], gradients[j])
    return gram


def inner_product(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> Tensor:
    """Return ⟨g, h⟩ as an entry of M."""
    products = [_dot(a, b) for a, b in zip(one, other, strict=True) if a is not None and b is not None]
    return torch.stack(products).double().sum() if products else torch.zeros((), dtype=torch.float64)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype in (torch.bfloat16, torch.float16):
        a, b = a.float(), b.float()
    return torch.dot(a.reshape(-1), b.reshape(-1))
