"""MoLE: low-rank experts for faces and hands, with gates that weight them per token and per image.

On every linear layer W inside the U-Net's transformers, for x [B, N, in] and i = face, hand:

    e_i = (alpha_i / rank_i) B_i A_i x                                              an expert, [B, N, out]
    y   = W x + Σ_i e_i σ(Φ(x))_i σ(γ_i(mean of e_i over the N tokens))

Φ: in → 2 gates each token, γ_i: out → 1 gates the whole image; both have biases, and their sigmoids are independent.
Rank 256, alpha 64 (face) and 128 (hand). Three stages: each expert alone on close-ups, without gates (a
plain LoRA on these layers), then the gates with both experts frozen.

The gates depend on x, so no single W' gives the same y: unlike a LoRA, MoLE can't be fused into the base and always
adds inference time.

Zhu et al., "MoLE: Enhancing Human-centric Text-to-image Diffusion via Mixture of Low-rank Experts", NeurIPS 2024.
"""

from collections.abc import Mapping

import torch
from diffusers import UNet2DConditionModel
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from torch import Tensor, nn

from fairhuman.errors import ModelError
from fairhuman.models.settings import Expert


class MoleLinear(nn.Module):
    """A frozen linear layer with experts and, if `gated`, gates; see the module's formula.

    A and the gates have PyTorch's default initialisation of linear layers; B starts at zero, so the initial output is
    that of `base`.
    """

    def __init__(self, base: nn.Linear, experts: Mapping[str, Expert], gated: bool) -> None:
        super().__init__()
        inside, outside = base.in_features, base.out_features
        self.base = base
        self.strengths = {name: expert.alpha / expert.rank for name, expert in experts.items()}
        self.down = nn.ModuleDict({name: nn.Linear(inside, e.rank, bias=False) for name, e in experts.items()})
        self.up = nn.ModuleDict({name: nn.Linear(e.rank, outside, bias=False) for name, e in experts.items()})
        for weight in self.up.parameters():
            nn.init.zeros_(weight)
        self.token_gate = nn.Linear(inside, len(experts)) if gated else None
        self.picture_gates = nn.ModuleDict({name: nn.Linear(outside, 1) for name in experts if gated})

    def forward(self, x_bnd: Tensor) -> Tensor:
        """Return y [B, N, out], in the dtype of `base`'s output.

        Raises:
            ModelError: x isn't [B, N, in]; the mean over tokens would otherwise mix images.
        """
        if x_bnd.ndim != 3:
            raise ModelError(f"MoLE: a layer's input must be [batch, tokens, width], found {list(x_bnd.shape)}")
        base_bnd: Tensor = self.base(x_bnd)
        x_bnd = x_bnd.to(next(self.down.parameters()).dtype)
        token_bne = None if self.token_gate is None else self.token_gate(x_bnd).sigmoid()
        total_bnd: Tensor | None = None
        for number, (name, strength) in enumerate(self.strengths.items()):
            e_bnd = strength * self.up[name](self.down[name](x_bnd))
            if token_bne is not None:
                picture_b11 = self.picture_gates[name](e_bnd.mean(dim=1, keepdim=True)).sigmoid()
                e_bnd = e_bnd * token_bne[..., number : number + 1] * picture_b11
            total_bnd = e_bnd if total_bnd is None else total_bnd + e_bnd
        assert total_bnd is not None
        return base_bnd + total_bnd.to(base_bnd.dtype)


def mole_layers(unet: UNet2DConditionModel) -> dict[str, nn.Linear]:
    """Return the linear layers inside the U-Net's transformers by name.

    Raises:
        ModelError: there are none, or the U-Net has a LoRA or a MoLE already.
    """
    if getattr(unet, "peft_config", None) or any(isinstance(module, MoleLinear) for module in unet.modules()):
        raise ModelError("MoLE: expected a U-Net without adapters, found a LoRA or a MoLE on it")
    inside = [name for name, module in unet.named_modules() if isinstance(module, Transformer2DModel)]
    layers = {
        f"{name}.{inner}": layer
        for name in inside
        for inner, layer in unet.get_submodule(name).named_modules()
        if isinstance(layer, nn.Linear)
    }
    if not layers:
        raise ModelError("MoLE: the U-Net has no linear layer inside a transformer")
    return layers


def add_mole(
    unet: UNet2DConditionModel, experts: Mapping[str, Expert], gated: bool, seed: int
) -> dict[str, nn.Parameter]:
    """Add experts, and gates if `gated`, to all `mole_layers`; return their float32 parameters by name.

    The random initialisation depends on `seed` alone, on any device.
    """
    devices = sorted({p.device.index or 0 for p in unet.parameters() if p.device.type == "cuda"})
    added: dict[str, nn.Parameter] = {}
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        for name, layer in mole_layers(unet).items():
            made = MoleLinear(layer, experts, gated).to(unet.device)
            unet.set_submodule(name, made)
            own = {inner: p for inner, p in made.named_parameters() if not inner.startswith("base.")}
            added |= {f"{name}.{inner}": parameter for inner, parameter in own.items()}
    return added
