"""FLUX.2 klein base.

Sources: diffusers, `pipelines/flux2/pipeline_flux2_klein.py` and
`examples/dreambooth/train_dreambooth_lora_flux2_klein.py`. Both keep latents as patches, 4C channels on half of the
grid; here they stay on the VAE's grid, so that masks have its resolution.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import Flux2KleinPipeline
from torch import Tensor

from fairhuman.bases.base import Base, in_chat, stacked
from fairhuman.bases.latents import decoded, posterior_moments
from fairhuman.bases.noising import Noising
from fairhuman.bases.sd3 import JOINT_ATTENTION
from fairhuman.bases.settings import TimeSettings
from fairhuman.data.samples.batch import Text
from fairhuman.errors import RecipeError


class Flux2Klein(Base):
    """Qwen3's layers 9, 18 and 27 of 512 tokens, padding included; a batch norm for each value of a patch."""

    kind = Flux2KleinPipeline
    targets: ClassVar = {"attention": (*JOINT_ATTENTION, "attn.to_qkv_mlp_proj", "attn.to_out")}

    def noising(self, times: TimeSettings | None = None) -> Noising:
        """Return the noise process.

        Raises:
            RecipeError: shift `resolution`; the pipeline's depends on the number of steps too.
        """
        if times is not None and times.shift == "resolution":
            raise RecipeError(
                "noise.times.shift=resolution: FLUX.2 klein samples with a shift that depends on the number of steps "
                "too; give a number, or take auto"
            )
        return super().noising(times)

    def moments(self, pictures_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the normalised latents."""
        mean_bchw, std_bchw = posterior_moments(self.vae, pictures_bchw, self.factor)
        return self._normalised(mean_bchw), self._normalised(std_bchw, shift=False)

    def decode(self, latents_bchw: Tensor) -> Tensor:
        """Return pictures; undoes the normalisation."""
        shift, scale = self._norm(latents_bchw.device)
        patches = Flux2KleinPipeline._patchify_latents(latents_bchw.float())
        return decoded(self.vae, Flux2KleinPipeline._unpatchify_latents(patches * scale + shift))

    def as_read(self, caption: str) -> str:
        """Return the caption in the chat template, as the pipeline does."""
        return in_chat(self.pipeline.tokenizer, caption, thinking=False)

    def encode(self, caption: str) -> Text:
        """Return embeddings [512, 3 D]."""
        return {"embeds": self.pipeline.encode_prompt(caption, self.pipeline.text_encoder.device)[0][0]}

    def predict(self, noisy_bchw: Tensor, levels_b: Tensor, texts: Sequence[Text]) -> Tensor:
        """Return the velocity [B, C, h, w]."""
        kind, embeds_bnd, device = Flux2KleinPipeline, stacked(texts, "embeds"), noisy_bchw.device
        patches = kind._patchify_latents(noisy_bchw)
        tokens = self.network(
            hidden_states=kind._pack_latents(patches),
            timestep=levels_b,
            guidance=None,
            encoder_hidden_states=embeds_bnd,
            txt_ids=kind._prepare_text_ids(embeds_bnd).to(device),
            img_ids=kind._prepare_latent_ids(patches).to(device),
            return_dict=False,
        )[0]
        velocity: Tensor = kind._unpatchify_latents(tokens.transpose(1, 2).reshape(patches.shape))
        return velocity

    def arguments(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:  # noqa: ARG002
        """Return prompt and guidance; the unconditional prediction is that of the empty prompt."""
        return {"prompt": prompt, "guidance_scale": guidance}

    def read(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:
        """Return the encoded prompt and, with guidance, the encoded empty prompt."""
        given = super().read(prompt, negative_prompt, guidance)
        return given if guidance <= 1.0 else {**given, "negative_prompt_embeds": self.encode("")["embeds"][None]}

    def sampled(self, found: Tensor, size: tuple[int, int]) -> Tensor:  # noqa: ARG002 - they aren't packed
        """Normalise the VAE's latents, which the pipeline returns."""
        return self._normalised(found)

    def _normalised(self, latents_bchw: Tensor, shift: bool = True) -> Tensor:
        mean, std = self._norm(latents_bchw.device)
        patches = Flux2KleinPipeline._patchify_latents(latents_bchw.float())
        patches = (patches - mean if shift else patches) / std
        normalised: Tensor = Flux2KleinPipeline._unpatchify_latents(patches)
        return normalised

    def _norm(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation on the device of the latents; the VAE may rest in main memory."""
        norm = self.vae.bn
        std = torch.sqrt(norm.running_var.float() + self.vae.config.batch_norm_eps)
        return norm.running_mean.float().view(1, -1, 1, 1).to(device), std.view(1, -1, 1, 1).to(device)
