"""T2I-adapter: a small network that maps a condition to features that are added in the U-Net's encoder.

Mou et al., "T2I-Adapter: Learning Adapters to Dig out More Controllable Ability for Text-to-Image Diffusion Models",
AAAI 2024; `full_adapter_xl` is diffusers' form of it for SDXL.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from diffusers import StableDiffusionXLPipeline, T2IAdapter
from torch import Tensor

from fairhuman.bases.latents import vae_factor
from fairhuman.errors import ModelError
from fairhuman.models.control import Control, channel_count

TYPE = "full_adapter_xl"
_DOWN_BLOCKS = ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")


class Adapter(Control):
    """diffusers' `T2IAdapter` for SDXL: 79 million parameters; its features don't depend on noise or caption.

    Its four features are added after the first block, inside the second and third, and after the middle block. The
    first two have half the latents' side length, the others a quarter: 16, 16, 8, 8 for the small SDXL at 128 px.
    """

    KIND = "T2I-adapter"
    NETWORK = T2IAdapter
    CHANNELS = "in_channels"

    @classmethod
    def new(cls, pipeline: StableDiffusionXLPipeline, conditions: Sequence[str], seed: int) -> Self:
        """Return an adapter with random weights.

        Raises:
            ModelError: the U-Net's blocks aren't SDXL's.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = T2IAdapter(
                in_channels=channel_count(conditions),
                channels=adapter_channels(pipeline),
                downscale_factor=_downscale_factor(pipeline),
                adapter_type=TYPE,
            )
        return cls(network, conditions, channel_count(conditions))

    @staticmethod
    def check_fits(place: str, config: Mapping[str, Any], pipeline: StableDiffusionXLPipeline) -> None:
        """Check a configuration; see `Control.check_fits`."""
        kind = config.get("adapter_type")
        if kind != TYPE:
            raise ModelError(f"T2I-adapter {place!r}: is a {kind} for Stable Diffusion 1, expected a {TYPE} for SDXL")
        found, expected = list(config.get("channels", ())), adapter_channels(pipeline)
        if found != expected:
            raise ModelError(f"T2I-adapter {place!r}: has channels {found}, this U-Net needs {expected}")
        factor, needed = int(config.get("downscale_factor", 0)), _downscale_factor(pipeline)
        if factor != needed:
            raise ModelError(
                f"T2I-adapter {place!r}: has downscale_factor {factor}, this VAE needs {needed}, twice its own factor"
            )

    def read(self, picture_bchw: Tensor, device: torch.device) -> list[Tensor]:
        """Return the four features of the pictures."""
        features: list[Tensor] = self.network(super().read(picture_bchw, device))
        return features

    def residuals(
        self,
        latents_bchw: Tensor,
        timesteps_b: Tensor,  # noqa: ARG002 - a ControlNet reads it
        given: Mapping[str, Any],  # noqa: ARG002 - likewise
        read: Sequence[Tensor],
        strength: float = 1.0,
    ) -> dict[str, Any]:
        """Return the residuals of the encoder; see `Control.residuals`."""
        return {
            "down_intrablock_additional_residuals": [(strength * feature).to(latents_bchw.dtype) for feature in read]
        }


def adapter_channels(pipeline: StableDiffusionXLPipeline) -> list[int]:
    """Return the `channels` setting of an adapter for the U-Net.

    Raises:
        ModelError: the U-Net's blocks aren't SDXL's, for which `full_adapter_xl` is designed.
    """
    unet = pipeline.unet.config
    if tuple(unet.down_block_types) != _DOWN_BLOCKS:
        raise ModelError(
            f"T2I-adapter: {TYPE} fits a U-Net with the blocks {', '.join(_DOWN_BLOCKS)}, "
            f"found {', '.join(unet.down_block_types)}"
        )
    first, second, third = unet.block_out_channels
    return [first, second, third, third]


def _downscale_factor(pipeline: StableDiffusionXLPipeline) -> int:
    """Return the pixels per cell of the first feature, which has half the latents' side length."""
    return 2 * vae_factor(pipeline.vae)
