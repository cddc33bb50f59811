"""Masked redrawing of a crop with SDXL's inpaint pipeline, which shares the components of a loaded pipeline.

A U-Net with four input channels doesn't see the mask: after each step, diffusers resets the latents outside the mask
to the picture's latents at that noise level. The picture is encoded here, because the VAE runs in float32 whatever the
U-Net's precision. Control networks act on the U-Net as in sampling (`fairhuman.generate.guide`).
"""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from diffusers import StableDiffusionXLInpaintPipeline, StableDiffusionXLPipeline
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from fairhuman.bases.base import evaluating
from fairhuman.bases.latents import check_finite, decode_latents, encode_pictures, vae_factor
from fairhuman.generate.guide import ActiveControl, apply_controls, null_conditions
from fairhuman.generate.sample import check_steps, prompt_arguments, to_image, with_unipc
from fairhuman.generate.settings import SampleSettings
from fairhuman.models.resting import Resting
from fairhuman.refine.settings import RefineSettings

PIPELINE_GRID = 8  # diffusers requires sides that are multiples of this, whatever the VAE's factor


class Painter(Protocol):
    """Redraws crops.

    Attributes:
        grid: sides of crops must be multiples of this.
        least: minimum side of a crop.
        follows: names of the conditions that its control networks follow.
    """

    grid: int
    least: int
    follows: tuple[str, ...]

    def __call__(
        self,
        crop: Image.Image,
        mask: Image.Image,
        prompt: str,
        conditions: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Image.Image:
        """Redraw a square RGB crop, whose side is a multiple of `grid`, where the mask of its size is white (mode L).

        `conditions` are [1, C, H, W] in 0..1 by name; missing ones are replaced by zeros.
        """
        ...


class Inpainter:
    """The `Painter` that uses an SDXL pipeline, with its LoRA loaded or fused if there is one, without modifying it.

    Raises:
        RecipeError: more steps than the model's schedule allows.
    """

    def __init__(
        self, pipeline: StableDiffusionXLPipeline, settings: RefineSettings, guides: Sequence[ActiveControl] = ()
    ) -> None:
        check_steps(pipeline.scheduler.config, settings.steps)
        self._pipeline, self._settings, self._guides = pipeline, settings, guides
        # Each level of the U-Net halves the latents, as do adapters.
        levels = len(pipeline.unet.config.block_out_channels)
        self.grid = math.lcm(PIPELINE_GRID, vae_factor(pipeline.vae) * 2 ** (levels - 1))
        own = pipeline.unet.config.sample_size * vae_factor(pipeline.vae)
        self.least = math.ceil((settings.size or own) / self.grid) * self.grid
        self.follows = tuple(dict.fromkeys(name for guide in guides for name in guide.control.conditions))

    def __call__(
        self,
        crop: Image.Image,
        mask: Image.Image,
        prompt: str,
        conditions: Mapping[str, Tensor],
        generator: torch.Generator,
    ) -> Image.Image:
        """See `Painter`.

        Raises:
            ModelError: latents or pictures aren't finite.
        """
        pipeline, own = self._pipeline, self._settings
        dtype, device = pipeline.unet.dtype, pipeline.unet.device
        text = SampleSettings(steps=own.steps, guidance=own.guidance, negative_prompt=own.negative_prompt)
        size = (crop.height, crop.width)
        picture_bchw = T.pil_to_tensor(crop)[None].float() / 127.5 - 1
        mask_bchw = (T.pil_to_tensor(mask)[None] > 127).float()
        shown = {
            **null_conditions(self._guides, 1, size),
            **{name: conditions[name] for name in self.follows if name in conditions},
        }
        room = Resting([pipeline.unet], device).with_room
        with torch.no_grad(), evaluating(pipeline):
            encoded_bchw = room(lambda: encode_pictures(pipeline.vae, picture_bchw.to(device)))
            made = with_unipc(pipeline, StableDiffusionXLInpaintPipeline)
            with apply_controls(pipeline.unet, made.scheduler, self._guides, shown):
                latents_bchw = made(
                    **prompt_arguments(pipeline, [prompt], text),
                    image=encoded_bchw.to(dtype),
                    mask_image=mask_bchw,
                    height=size[0],
                    width=size[1],
                    strength=own.strength,
                    num_inference_steps=own.steps,
                    guidance_scale=own.guidance,
                    generator=generator,
                    output_type="latent",
                ).images
            check_finite(latents_bchw, f"the U-Net's latents ({dtype})", "check the LoRA and its weight, or use bf16")
            return to_image(room(lambda: decode_latents(pipeline.vae, latents_bchw))[0])
