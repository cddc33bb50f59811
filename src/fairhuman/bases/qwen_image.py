"""Qwen-Image.

Sources: diffusers, `pipelines/qwenimage/pipeline_qwenimage.py` and
`examples/dreambooth/train_dreambooth_lora_qwen_image.py`. Its VAE is one for videos; pictures are videos of one frame.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import QwenImagePipeline
from torch import Tensor

from fairhuman.bases.base import Base, padded
from fairhuman.bases.latents import decoded, posterior_moments
from fairhuman.data.samples.batch import Text


class QwenImage(Base):
    """Qwen2.5-VL's last layer for any number of tokens, with a mask; a mean and deviation of each latent channel."""

    kind = QwenImagePipeline
    encoded = 1024 + 34
    targets: ClassVar = {
        "attention": (*("to_q", "to_k", "to_v", "to_out.0"), *("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"))
    }

    @property
    def factor(self) -> int:
        """Pixels per latent cell and side."""
        return int(2 ** len(self.vae.config.temperal_downsample))

    @property
    def channels(self) -> int:
        """C of the latents."""
        return int(self.vae.config.z_dim)

    def moments(self, pictures_bchw: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the normalised latents."""
        found = posterior_moments(self.vae, pictures_bchw[:, :, None], self.factor)
        mean_bchw, std_bchw = (each[:, :, 0] for each in found)
        mean, std = self._norm(mean_bchw.device)
        return (mean_bchw - mean) / std, std_bchw / std

    def decode(self, latents_bchw: Tensor) -> Tensor:
        """Return pictures; undoes the normalisation."""
        mean, std = self._norm(latents_bchw.device)
        return decoded(self.vae, (latents_bchw.float() * std + mean)[:, :, None])[:, :, 0]

    def as_read(self, caption: str) -> str:
        """Return the caption in the pipeline's template."""
        text: str = self.pipeline.prompt_template_encode.format(caption)
        return text

    def lengths(self, captions: Sequence[str]) -> list[int]:
        """Return the number of tokens without those of the template before the caption, which aren't handed on."""
        dropped = self.pipeline.prompt_template_encode_start_idx
        return [length - dropped for length in super().lengths(captions)]

    def encode(self, caption: str) -> Text:
        """Return embeddings [n, D] of the caption's n tokens."""
        device = self.pipeline.text_encoder.device
        embeds, mask = self.pipeline.encode_prompt(caption, device, max_sequence_length=self.longest)
        return {"embeds": embeds[0] if mask is None else embeds[0][mask[0].bool()]}

    def predict(self, noisy_bchw: Tensor, levels_b: Tensor, texts: Sequence[Text]) -> Tensor:
        """Return the velocity [B, C, h, w]."""
        b, c, h, w = noisy_bchw.shape
        embeds_bnd, mask_bn = padded(texts, "embeds")
        tokens = self.network(
            hidden_states=QwenImagePipeline._pack_latents(noisy_bchw, b, c, h, w),
            timestep=levels_b,
            encoder_hidden_states=embeds_bnd,
            encoder_hidden_states_mask=mask_bn,
            img_shapes=[[(1, h // self.patch, w // self.patch)]] * b,
            return_dict=False,
        )[0]
        return self.sampled(tokens, (h * self.factor, w * self.factor))

    def arguments(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:
        """Return prompts and guidance."""
        if guidance <= 1.0:  # a negative prompt would be unused
            return {"prompt": prompt, "true_cfg_scale": guidance}
        return {"prompt": prompt, "negative_prompt": negative_prompt, "true_cfg_scale": guidance}

    def sampled(self, found: Tensor, size: tuple[int, int]) -> Tensor:
        """Undo the packing of latents, and drop the axis of frames."""
        latents: Tensor = QwenImagePipeline._unpack_latents(found, *size, self.factor)
        return latents[:, :, 0]

    def _norm(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation on the device of the latents."""
        config = self.vae.config
        mean, std = (
            torch.tensor(v, device=device).view(1, -1, 1, 1) for v in (config.latents_mean, config.latents_std)
        )
        return mean, std
