"""A reduced U-Net with SDXL's levels, text_time conditioning and block pattern, with a LoRA, and losses for it."""

from collections.abc import Callable, Sequence

import torch
from diffusers import UNet2DConditionModel
from peft import LoraConfig
from torch import Tensor

from fairhuman.fairness import Output

Losses = Callable[[], tuple[list[Tensor], Output]]


def build_unet(quick: bool, depths: Sequence[int] = (1, 2, 4)) -> UNet2DConditionModel:
    """Build it: 49M parameters (far fewer if `quick`), LoRA r16 on all attention; SDXL's `depths` are 1, 2, 10."""
    unet = UNet2DConditionModel(
        sample_size=32,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(32, 32, 64) if quick else (64, 128, 256),
        layers_per_block=1 if quick else 2,
        transformer_layers_per_block=(1, 1, 1) if quick else tuple(depths),
        attention_head_dim=(1, 2, 4) if quick else (2, 4, 8),
        cross_attention_dim=32 if quick else 64,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=32,
        projection_class_embeddings_input_dim=6 * 32 + 128,
    )
    unet.requires_grad_(False)
    # Random instead of zero B matrices, as after some steps of training.
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(LoraConfig(r=16, lora_alpha=16, target_modules=targets, init_lora_weights=False))
    unet.train()
    return unet


def three_losses(unet: UNet2DConditionModel, quick: bool, batch: int = 4) -> Losses:
    """Whole-latent loss and two area-normalised region losses on a fixed batch."""
    size = 8 if quick else 32
    latents, noise = torch.randn(2, batch, 4, size, size)
    masks = torch.zeros(2, batch, 1, size, size)
    masks[0, :, :, size // 8 : size // 4, size // 4 : size // 2] = 1.0
    masks[1, :, :, size // 2 : size // 2 + size // 8, : size // 8] = 1.0
    timesteps = torch.linspace(50, 900, batch).long()
    text = torch.randn(batch, 77, 32 if quick else 64)
    conditions = {"text_embeds": torch.randn(batch, 128), "time_ids": torch.rand(batch, 6) * 512}

    def losses() -> tuple[list[Tensor], Output]:
        predicted = unet(latents, timesteps, text, added_cond_kwargs=conditions).sample
        errors = (predicted - noise).square()
        regions = [(errors * mask).sum() / (4 * mask.sum()) for mask in masks]
        return [errors.mean(), *regions], Output(predicted, 6.0 - timesteps / 80.0)

    return losses
