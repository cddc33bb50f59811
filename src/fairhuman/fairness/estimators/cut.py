"""Cut the autograd graph of a diffusers U-Net in two at a point of its decoder.

"Above" the cut is nearer to the output, "below" is the rest of the network.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairhuman.fairness.estimators.estimator import Gradient, unaliased

_SKIPS = "res_hidden_states_tuple"  # the encoder's skip connections of an up block; its layers pop from the end


class CutPoint(NamedTuple):
    """Before `up_blocks[block].attentions[attention]`; None: before the whole block."""

    block: int
    attention: int | None = None

    def __str__(self) -> str:
        """Return the name of the first module above the cut."""
        return f"up_blocks.{self.block}" + ("" if self.attention is None else f".attentions.{self.attention}")


class Cut:
    """Records all tensors that cross a point of a U-Net in the last forward pass.

    These are the hidden state, the encoder's skip connections and, before a whole block, the embeddings. Hooks replace
    each one by a view, so that autograd can return the gradients of all `crossings` without passing below any of them
    (skip connections are below the hidden state too), and can continue from there. The network's outputs and its
    ordinary backward pass are unchanged.
    """

    def __init__(self, unet: nn.Module, place: CutPoint) -> None:
        self._blocks = up_blocks(unet)[place.block :]
        self._lowest = self._blocks[0]
        self._layers_below = 0
        hooks: list[tuple[nn.Module, Callable[..., Any]]] = [(block, self._enter_block) for block in self._blocks]
        if place.attention is not None:
            self._lowest = _attentions(self._blocks[0])[place.attention]
            self._layers_below = place.attention + 1
            hooks.append((self._lowest, self._enter_attention))
        self._handles = [module.register_forward_pre_hook(hook, with_kwargs=True) for module, hook in hooks]
        self.clear()

    def remove(self) -> None:
        """Remove the hooks from the network."""
        for handle in self._handles:
            handle.remove()

    def clear(self) -> None:
        """Forget the last forward pass."""
        self.crossings: list[Tensor] = []
        self._below: list[Tensor] = []

    def pull_back(
        self, cotangents: Sequence[Tensor | None], parameters: Sequence[nn.Parameter], keep: bool = False
    ) -> Gradient:
        """Backpropagate gradients at the crossings to `parameters` below; `keep` retains the graph."""
        flows = [(crossing, c) for crossing, c in zip(self.crossings, cotangents, strict=True) if c is not None]
        if not flows or not parameters:
            return [None] * len(parameters)
        crossings, reached = zip(*flows, strict=True)
        return unaliased(torch.autograd.grad(crossings, parameters, reached, retain_graph=keep, allow_unused=True))

    def _enter_block(self, block: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Record the crossings: all inputs of the lowest block, the skip connections of the others."""
        if not torch.is_grad_enabled():
            return args, kwargs
        if block is self._blocks[0]:
            self.clear()
        if block is self._lowest:
            return self._crossing(args), self._crossing(kwargs)
        skips = kwargs[_SKIPS]
        above = len(skips) - (self._layers_below if block is self._blocks[0] else 0)
        known = {name: self._known(value) for name, value in kwargs.items()}
        return args, {**known, _SKIPS: (*self._crossing(skips[:above]), *skips[above:])}

    def _enter_attention(self, _: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return (self._crossing(args), self._crossing(kwargs)) if torch.is_grad_enabled() else (args, kwargs)

    def _crossing(self, value: Any) -> Any:
        """Replace tensors with a graph by views, one view per tensor; return other values unchanged."""
        if isinstance(value, tuple):
            return tuple(self._crossing(item) for item in value)
        if isinstance(value, dict):
            return {name: self._crossing(item) for name, item in value.items()}
        if not isinstance(value, Tensor) or not value.requires_grad:
            return value
        known = self._known(value)
        if known is value:
            known = value.view_as(value)
            self._below.append(value)
            self.crossings.append(known)
        return known

    def _known(self, value: Any) -> Any:
        """Return the view that replaces a recorded tensor, such as an embedding that all blocks read."""
        return next((view for below, view in zip(self._below, self.crossings, strict=True) if below is value), value)


def up_blocks(unet: nn.Module) -> list[nn.Module]:
    """Return the blocks of a U-Net's decoder, from the lowest resolution up.

    Raises:
        ValueError: there are none.
    """
    blocks = getattr(unet, "up_blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise ValueError(f"{type(unet).__name__} has no up_blocks; modes exact, ema and output support any network")
    return list(blocks)


def cut_points(unet: nn.Module, parameters: Sequence[nn.Parameter]) -> dict[CutPoint, list[int]]:
    """Return the points where a U-Net can be cut, from the highest down, with the indices of `parameters` above.

    Points with no more parameters above them than the previous one are left out. Cuts between attentions need all
    trained parameters inside the U-Net's blocks, as embeddings feed all layers.

    Raises:
        ValueError: no up blocks, or no trained parameter above any point.
    """
    blocks = up_blocks(unet)
    inside = {id(p) for name in ("down_blocks", "mid_block", "up_blocks") for p in _parameters(unet, name)}
    only_layers = all(id(parameter) in inside for parameter in parameters)
    head = {id(p) for name in ("conv_norm_out", "conv_out") for p in _parameters(unet, name)}
    found: dict[CutPoint, list[int]] = {}
    above = set(head)
    count = 0
    for b in reversed(range(len(blocks))):
        layers = _attentions(blocks[b]) if only_layers else []
        candidates = [CutPoint(b, i) for i in reversed(range(1, len(layers)))]
        for place in [*candidates, CutPoint(b)]:
            ids = above | _ids_above(blocks[b], place.attention)
            positions = [p for p, parameter in enumerate(parameters) if id(parameter) in ids]
            if len(positions) > count:
                found[place], count = positions, len(positions)
        above |= _ids_above(blocks[b], None)
    if not found:
        raise ValueError(
            "no trained parameter in the U-Net's up blocks; modes exact, ema and output don't need one there"
        )
    return found


def _attentions(block: nn.Module) -> list[nn.Module]:
    return list(getattr(block, "attentions", []))


def _ids_above(block: nn.Module, attention: int | None) -> set[int]:
    """Return the ids of a block's parameters from an attention on; its own resnet comes before it, so is below."""
    if attention is None:
        return {id(parameter) for parameter in block.parameters()}
    modules = [*_attentions(block)[attention:], *list(getattr(block, "resnets", []))[attention + 1 :]]
    modules += list(getattr(block, "upsamplers", None) or [])
    return {id(parameter) for module in modules for parameter in module.parameters()}


def _parameters(unet: nn.Module, name: str) -> list[nn.Parameter]:
    module = getattr(unet, name, None)
    return list(module.parameters()) if isinstance(module, nn.Module) else []
