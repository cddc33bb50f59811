"""Frozen linear layers that save memory: in 8 or 4 bits, or with weights that stay in main memory, or both.

Weights are rounded once, when a base is loaded, and dequantised inside each product:

    int8  W ≈ s q        s = max |W| / 127 of each row, q a whole number
    fp8   W ≈ s q        s = max |W| / 448 of each row, q in float8 (e4m3)
    nf4   W ≈ s c[q]     s = max |W| of each 64 weights, c the 16 values of 4-bit NormalFloat

A scale has the type of the weights before; a product is in the type of its input. Forward and backward pass each make a
dequantised weight anew and keep none, so a step needs the memory of one layer's, with checkpointing or without. So it
is with weights in main memory: each pass brings them anew (`models/streaming.py`).

NormalFloat: Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", NeurIPS 2023, appendix E.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.bases.base import base_of, networks
from fairhuman.models.settings import BaseSettings
from fairhuman.models.streaming import brought, pinned

INT8, FP8 = 127, 448  # the largest values
BLOCK = 64  # weights that share a scale in nf4
LEAST = 1024  # weights; smaller layers save nothing
# The 16 values of a 4-bit code: quantiles of a normal distribution, scaled to [-1, 1].
NF4 = (
    *(-1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635),
    *(-0.18477343022823334, -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725),
    *(0.24611230194568634, 0.33791524171829224, 0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0),
)


class FrozenLinear(nn.Linear):
    """A frozen linear layer that saves memory; see the module's formulas. LoRA finds and wraps it as any other.

    Attributes:
        kind: int8, fp8 or nf4; none: the weight as it is.
        weight: codes, int8: [out, in], of nf4 two in a byte, [out · in / 2]; bytes of fp8 are read as float8.
        scale: s, [out, 1], of nf4 [out · in / 64, 1]; empty for none.
    """

    values: Tensor

    def __init__(self, layer: nn.Linear, kind: str, offloaded: bool = False) -> None:
        super().__init__(layer.in_features, layer.out_features, bias=False, device="meta")
        self.kind, self.bias = kind, layer.bias
        codes, scale = _quantized(layer.weight.detach(), kind)
        if offloaded:
            codes, scale = pinned(codes), pinned(scale)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        table = torch.tensor(NF4, device=codes.device) if kind == "nf4" else torch.empty(0, device=codes.device)
        pairs = torch.stack([table.repeat_interleave(len(table)), table.repeat(len(table))], dim=1)
        self.register_buffer("values", pairs, persistent=False)  # of each byte's two codes, [256, 2]
        self._away = (codes, scale) if offloaded else None  # one tuple, by which the courier knows them

    @property
    def offloaded(self) -> bool:
        """Whether weight and scale stay in main memory, wherever the layer is moved."""
        return self._away is not None

    def forward(self, x: Tensor) -> Tensor:
        """Return x Wᵀ + b, in autocast's type or that of x."""
        device = x.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        found: Tensor = _Product.apply(
            x.to(dtype), self.weight, self.scale, self.values, self.bias, self.kind, self._away
        )
        return found

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """Return the weight [out, in]."""
        return _dequantized(self.weight, self.scale, self.values, self.kind, self.in_features, dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "FrozenLinear":
        """Move or cast the layer; what is offloaded stays."""
        kept = {name: self._parameters[name] for name in ("weight", "scale") if self.offloaded}
        self._parameters.update(dict.fromkeys(kept))
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        self._parameters.update(kept)
        return self

    def extra_repr(self) -> str:
        """Return sizes and kind."""
        return f"{super().extra_repr()}, kind={self.kind}, offloaded={self.offloaded}"


class _Product(torch.autograd.Function):
    """x Wᵀ + b, with a gradient for x alone; W is made, or brought, anew in the backward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        scale: Tensor,
        values: Tensor,
        bias: Tensor | None,
        kind: str,
        away: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        ctx.save_for_backward(weight, scale, values)
        ctx.kind, ctx.away, ctx.inside = kind, away, x.shape[-1]
        w = _weight(ctx, weight, scale, values, x)
        return nn.functional.linear(x, w, None if bias is None else bias.to(x.dtype))

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        weight, scale, values = ctx.saved_tensors
        return grad @ _weight(ctx, weight, scale, values, grad), *[None] * 6


def _weight(ctx: Any, weight: Tensor, scale: Tensor, values: Tensor, other: Tensor) -> Tensor:
    """Return the W of a product, with type and device of the `other` factor."""
    if ctx.away is not None:
        weight, scale = brought(ctx.away, other.device)
    return _dequantized(weight, scale, values, ctx.kind, ctx.inside, other.dtype)


def freeze_linear_(pipeline: Any, base: BaseSettings) -> None:
    """Quantise and offload, in place, the frozen network and the text encoders of a loaded pipeline, as `base` asks.

    Of both, the linear layers inside the repeated blocks, which have nearly all weights. Embeddings, norms,
    convolutions, biases, the layers before and after blocks, those of less than 1,024 weights and the VAE stay as they
    are.
    """
    if base == base.whole:
        return
    whole = base_of(pipeline)
    lists = [part for one in whole.text_encoders for part in one.modules() if isinstance(part, nn.ModuleList)]
    for block in (*whole.blocks, *lists):
        for name, layer in _linear_layers(block).items():
            block.set_submodule(name, FrozenLinear(layer, base.quantize, base.offload))


def _linear_layers(block: nn.Module) -> dict[str, nn.Linear]:
    """Return the layers of a block that are quantised or offloaded, by name."""
    return {
        name: layer
        for name, layer in block.named_modules()
        if type(layer) is nn.Linear and layer.weight.numel() >= LEAST and layer.weight.numel() % BLOCK == 0
    }


def has_frozen_layers(network: nn.Module) -> bool:
    """Whether a network has quantised or offloaded layers, whose weights nothing can be added to."""
    return any(True for _ in _frozen([network]))


def offloaded(networks: Iterable[nn.Module]) -> list[Tensor]:
    """Return the weights and scales that stay in main memory."""
    return [one for layer in _frozen(networks) if layer.offloaded for one in (layer.weight, layer.scale)]


def product_bytes(pipeline: Any, dtype: torch.dtype | None) -> int:
    """Return the most bytes that frozen layers take for their products beside the weights that stay on the device.

    Making the largest weight in `dtype` (None: float32) of its codes, and two buffers for what is offloaded.
    """
    size, most, buffer = (dtype or torch.float32).itemsize, 0, 0
    for layer in _frozen(networks(pipeline)):
        if layer.kind != "none":  # nf4: two codes of 4 bits are looked up by an index of 4 bytes
            most = max(most, layer.in_features * layer.out_features * (size + 2 * (layer.kind == "nf4")))
        if layer.offloaded:
            buffer = max(buffer, layer.weight.nbytes + layer.scale.nbytes)
    return most + 2 * buffer


def _frozen(networks: Iterable[nn.Module]) -> Iterable[FrozenLinear]:
    return (layer for part in networks for layer in part.modules() if isinstance(layer, FrozenLinear))


def weight_shape(layer: nn.Module | None) -> tuple[int, ...] | None:
    """Return the shape of a layer's weight, [out, in, ...], also of a quantised one; None if it has none."""
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    weight = getattr(layer, "weight", None)
    return None if weight is None else tuple(weight.shape)


def _quantized(weight: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Return codes and scales, the scales rounded to the weight's type before weights are divided by them."""
    if kind == "none":
        return weight, weight.new_empty(0)
    rows = weight.reshape(-1, BLOCK) if kind == "nf4" else weight
    largest = {"int8": INT8, "fp8": FP8, "nf4": 1}[kind]
    scale = (rows.abs().amax(dim=1, keepdim=True).float() / largest).to(weight.dtype)
    scale = scale.clamp_min(torch.finfo(weight.dtype).tiny)
    shares = rows.float() / scale.float()
    if kind == "int8":
        return shares.round_().clamp_(-INT8, INT8).to(torch.int8), scale
    if kind == "fp8":
        return shares.clamp_(-FP8, FP8).to(torch.float8_e4m3fn).view(torch.int8), scale
    table = torch.tensor(NF4, device=weight.device)
    codes = torch.bucketize(shares.flatten(), (table[1:] + table[:-1]) / 2, out_int32=True).to(torch.uint8)
    return (16 * codes[0::2] + codes[1::2]).view(torch.int8), scale


def _dequantized(weight: Tensor, scale: Tensor, values: Tensor, kind: str, inside: int, dtype: torch.dtype) -> Tensor:
    """Return the weight [out, in] in `dtype`."""
    if kind == "none":
        return weight.to(dtype)
    scale = scale.to(dtype)
    if kind == "int8":
        return weight * scale
    if kind == "fp8":
        return weight.view(torch.float8_e4m3fn).to(dtype).mul_(scale)
    pairs = nn.functional.embedding(weight.view(torch.uint8).int(), values.to(dtype))
    return pairs.view(-1, BLOCK).mul_(scale).view(-1, inside)
