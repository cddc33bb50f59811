"""ControlNet: a copy of the U-Net's encoder that reads a condition and adds to the skip connections.

Zhang, Rao, Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", ICCV 2023. Its output
layers start at zero, so a new one changes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from diffusers import ControlNetModel, StableDiffusionXLPipeline
from torch import Tensor

from fairhuman.bases.latents import vae_factor
from fairhuman.errors import ModelError
from fairhuman.models.control import Control, channel_count

# Widths of the stem that downsamples the condition to the latents' size, by 2 between neighbours.
STEM_CHANNELS = (16, 32, 96, 256)
_SD_1, _SD_2 = 768, 1024  # text embedding widths of other model families


class ControlNet(Control):
    """diffusers' `ControlNetModel` for SDXL: 1,251 million parameters beside SDXL's 2,567."""

    KIND = "ControlNet"
    NETWORK = ControlNetModel
    CHANNELS = "conditioning_channels"

    @classmethod
    def new(cls, pipeline: StableDiffusionXLPipeline, conditions: Sequence[str], seed: int) -> Self:
        """Return a ControlNet initialised from the U-Net's weights, with a random stem.

        Raises:
            ModelError: the VAE's factor is above 8, which the stem doesn't support.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = ControlNetModel.from_unet(
                pipeline.unet,
                conditioning_embedding_out_channels=stem_channels(vae_factor(pipeline.vae)),
                conditioning_channels=channel_count(conditions),
            )
        return cls(network, conditions, channel_count(conditions))

    @staticmethod
    def check_fits(place: str, config: Mapping[str, Any], pipeline: StableDiffusionXLPipeline) -> None:
        """Check a configuration; see `Control.check_fits`."""
        unet = pipeline.unet.config
        width = config.get("cross_attention_dim")
        if config.get("addition_embed_type") != "text_time":
            family = {_SD_1: "Stable Diffusion 1", _SD_2: "Stable Diffusion 2"}.get(width or 0, "another family")
            raise ModelError(
                f"ControlNet {place!r}: is for {family} (cross_attention_dim {width}, no addition_embed_type), "
                "expected one for SDXL"
            )
        names = ("in_channels", "block_out_channels", "layers_per_block", "cross_attention_dim")
        for name in (*names, "addition_time_embed_dim", "projection_class_embeddings_input_dim"):
            found, expected = _plain(config.get(name)), _plain(unet[name])
            if found != expected:
                raise ModelError(
                    f"ControlNet {place!r}: has {name} {found}, this U-Net {expected}: it is for another U-Net"
                )
        halvings = len(config.get("conditioning_embedding_out_channels") or STEM_CHANNELS) - 1
        factor = vae_factor(pipeline.vae)
        if 2**halvings != factor:
            raise ModelError(
                f"ControlNet {place!r}: downsamples its condition by {2**halvings} "
                f"(conditioning_embedding_out_channels), this VAE by {factor}: it is for another VAE"
            )

    def residuals(
        self, latents_bchw: Tensor, timesteps_b: Tensor, given: Mapping[str, Any], read: Tensor, strength: float = 1.0
    ) -> dict[str, Any]:
        """Return the residuals of the skip connections and the middle block; see `Control.residuals`."""
        dtype = self.network.dtype
        down, mid = self.network(
            latents_bchw.to(dtype),
            timesteps_b,
            encoder_hidden_states=given["encoder_hidden_states"].to(dtype),
            controlnet_cond=read,
            conditioning_scale=strength,
            added_cond_kwargs=given["added_cond_kwargs"],
            return_dict=False,
        )
        return {
            "down_block_additional_residuals": [residual.to(latents_bchw.dtype) for residual in down],
            "mid_block_additional_residual": mid.to(latents_bchw.dtype),
        }


def stem_channels(factor: int) -> tuple[int, ...]:
    """Return `conditioning_embedding_out_channels` for a VAE of this factor, in pixels per latent cell.

    diffusers' default is for SDXL's factor of 8; the small SDXL's VAE has 4.

    Raises:
        ModelError: the factor isn't 1, 2, 4 or 8.
    """
    halvings = factor.bit_length() - 1
    if factor != 2**halvings or halvings >= len(STEM_CHANNELS):
        raise ModelError(f"ControlNet: its stem supports a VAE factor of 1, 2, 4 or 8, found {factor}")
    return STEM_CHANNELS[: halvings + 1]


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
