"""What training a ControlNet or T2I-adapter of SDXL's true size keeps in memory, counted on `meta`: nothing is run.

State: bytes per trained parameter, times parameters. Activations: all that autograd saves in one forward pass of a
sample at 1024², in bfloat16, by hooks on saved tensors. What isn't counted: the block that gradient checkpointing
computes again, gradients of activations, work space of kernels, the allocator's waste, the VAE's passing peak. So
batches are upper bounds.
"""

from typing import Any

import torch
from common import arguments, save
from diffusers import ControlNetModel, T2IAdapter, UNet2DConditionModel
from torch import Tensor, nn

from fairhuman.models.architecture import sdxl_unet_config
from fairhuman.models.controlnet import STEM
from fairhuman.models.t2i_adapter import TYPE

CARD = 80e9  # bytes
# Frozen: the U-Net in bfloat16, SDXL's text encoders (123M + 695M) likewise, its VAE (84M) in float32.
FROZEN = 2 * (123e6 + 695e6) + 4 * 84e6
# Bytes per trained parameter: weights and Adam's two means in float32, a bfloat16 copy that autocast keeps; gradients
# in float32: K = 3 of an exact step, one of an estimated one. With accumulation one more of an exact step.
WEIGHTS, ADAM, AUTOCAST, GRADIENT = 4, 8, 2, 4
WAYS = {"exact": 3 * GRADIENT, "output or ema, in an audit": 3 * GRADIENT, "output or ema, between audits": GRADIENT}


def networks(kind: str) -> tuple[UNet2DConditionModel, nn.Module]:
    """The frozen U-Net and what is trained, on meta, in bfloat16."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**sdxl_unet_config())
        if kind == "controlnet":
            trained = ControlNetModel.from_unet(
                unet, conditioning_embedding_out_channels=STEM, load_weights_from_unet=False
            )
        else:
            widths = list(unet.config.block_out_channels)
            trained = T2IAdapter(channels=[*widths, widths[-1]], downscale_factor=16, adapter_type=TYPE)
    unet.requires_grad_(False)
    return unet.bfloat16(), trained.bfloat16()


def saved_bytes(unet: UNet2DConditionModel, trained: nn.Module, side: int) -> int:
    """Bytes that autograd saves for a sample; weights, which are there anyway, aren't counted."""
    weights = {id(p) for part in (unet, trained) for p in part.parameters()}
    seen: dict[int, Tensor] = {}  # keeps them alive, so that no two have one id

    def pack(tensor: Tensor) -> Tensor:
        base = tensor if tensor._base is None else tensor._base
        if id(base) not in weights:
            seen[id(base)] = base
        return tensor

    def made(*shape: int) -> Tensor:
        return torch.empty(*shape, device="meta", dtype=torch.bfloat16)

    latents, picture = made(1, 4, side // 8, side // 8), made(1, 3, side, side)
    step = torch.empty(1, device="meta", dtype=torch.int64)
    given: dict[str, Any] = {
        "encoder_hidden_states": made(1, 77, 2048),
        "added_cond_kwargs": {"text_embeds": made(1, 1280), "time_ids": torch.empty(1, 6, device="meta")},
    }
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        if isinstance(trained, ControlNetModel):
            down, mid = trained(latents, step, controlnet_cond=picture, return_dict=False, **given)
            inside = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        else:
            inside = {"down_intrablock_additional_residuals": trained(picture)}
        unet(latents, step, **given, **inside)
    return sum(tensor.numel() * tensor.element_size() for tensor in seen.values())


def table(kind: str, side: int) -> dict[str, Any]:
    """All numbers of a kind, in bytes, and the largest batch on the card with all activations kept."""
    unet, trained = networks(kind)
    count = sum(p.numel() for p in trained.parameters())
    frozen = FROZEN + 2 * sum(p.numel() for p in unet.parameters())
    kept = saved_bytes(unet, trained, side)
    unet.enable_gradient_checkpointing()
    if isinstance(trained, ControlNetModel):
        trained.enable_gradient_checkpointing()
    checkpointed = saved_bytes(unet, trained, side)
    found: dict[str, Any] = {
        "parameters": count,
        "frozen": frozen,
        "sample": kept,
        "sample, checkpointed": checkpointed,
    }
    for way, gradients in WAYS.items():
        for adam, moments in (("adam", ADAM), ("adamw8bit", 2)):
            each = WEIGHTS + moments + AUTOCAST + gradients
            state = each * count
            free = CARD - frozen - state
            found[f"{way}, {adam}"] = {
                "bytes a parameter": each,
                "state": state,
                "batch": int(free // kept),
                "batch, checkpointed": int(free // checkpointed),
            }
    return found


def main() -> None:
    """Count both kinds."""
    options = arguments(__doc__)
    side = 256 if options.quick else 1024
    results = {kind: table(kind, side) for kind in ("controlnet", "t2i_adapter")}
    save("control_memory", {"side": side, "card": CARD}, results, options)


if __name__ == "__main__":
    main()
