"""Cutting the graph of a diffusers U-Net in two: what lies above a place in its decoder, and the rest."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fairhuman.fairness.estimators.estimator import Gradient, unaliased

_SKIPS = "res_hidden_states_tuple"  # what the encoder hands to an up block; its layers take from the end


class CutPoint(NamedTuple):
    """Before `up_blocks[block].attentions[attention]`; None: before the whole block."""

    block: int
    attention: int | None = None

    def __str__(self) -> str:
        """As the module that comes next is called."""
        return f"up_blocks.{self.block}" + ("" if self.attention is None else f".attentions.{self.attention}")


class Cut:
    """Knows all tensors that cross a place of a U-Net from below in the last forward pass.

    They cross it as the hidden state, as skip connections of the encoder and, before a whole block, as embeddings.
    Each one is given a view of its own there, so gradients for all `crossings` can be asked for without going below
    any of them (a skip connection is below the hidden state too), and be sent down from there. The network's values
    and its ordinary backward pass are the same.
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
        """Take the hooks off the network."""
        for handle in self._handles:
            handle.remove()

    def clear(self) -> None:
        """Forget the last forward pass."""
        self.crossings: list[Tensor] = []
        self._below: list[Tensor] = []

    def pull_back(
        self, cotangents: Sequence[Tensor | None], parameters: Sequence[nn.Parameter], keep: bool = False
    ) -> Gradient:
        """Return the gradient for `parameters` below that comes from gradients at the crossings. `keep`: the graph."""
        flows = [(crossing, c) for crossing, c in zip(self.crossings, cotangents, strict=True) if c is not None]
        if not flows or not parameters:
            return [None] * len(parameters)
        crossings, reached = zip(*flows, strict=True)
        return unaliased(torch.autograd.grad(crossings, parameters, reached, retain_graph=keep, allow_unused=True))

    def _enter_block(self, block: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        """Mark what comes from below: of the lowest block all, of the others the skip connections."""
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
        """Return views of tensors with a graph, the same one of the same tensor; other things as they are."""
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
        """Return the view of a tensor that has one, such as an embedding that all blocks are given."""
        return next((view for below, view in zip(self._below, self.crossings, strict=True) if below is value), value)


def up_blocks(unet: nn.Module) -> list[nn.Module]:
    """Return the blocks of a U-Net's decoder, from the lowest resolution up.

    Raises:
        ValueError: it has none.
    """
    blocks = getattr(unet, "up_blocks", None)
    if not isinstance(blocks, nn.ModuleList) or not len(blocks):
        raise ValueError(f"{type(unet).__name__} has no up_blocks; modes exact, ema and output take any network")
    return list(blocks)


def cut_points(unet: nn.Module, parameters: Sequence[nn.Parameter]) -> dict[CutPoint, list[int]]:
    """Return where a U-Net can be cut, and which of `parameters` are above, from the fewest to the most.

    A place with no more above it than the one before is left out. Between attentions it can be cut where nothing but
    layers of the U-Net is trained: embeddings reach all layers.

    Raises:
        ValueError: it has no up blocks, or no trained parameter above any place.
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
        raise ValueError("no trained parameter in the U-Net's up blocks; modes exact, ema and output need none there")
    return found


def _attentions(block: nn.Module) -> list[nn.Module]:
    return list(getattr(block, "attentions", []))


def _ids_above(block: nn.Module, attention: int | None) -> set[int]:
    """Return the parameters of a block's layers from an attention on; its resnet comes before it, and is below."""
    if attention is None:
        return {id(parameter) for parameter in block.parameters()}
    modules = [*_attentions(block)[attention:], *list(getattr(block, "resnets", []))[attention + 1 :]]
    modules += list(getattr(block, "upsamplers", None) or [])
    return {id(parameter) for module in modules for parameter in module.parameters()}


def _parameters(unet: nn.Module, name: str) -> list[nn.Parameter]:
    module = getattr(unet, name, None)
    return list(module.parameters()) if isinstance(module, nn.Module) else []
