"""FLUX.1 dev, and models that were trained from it.

Sources: diffusers, `pipelines/flux/pipeline_flux.py` and `examples/dreambooth/train_dreambooth_lora_flux.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import FluxPipeline
from torch import Tensor

from fairhuman.bases.base import Base, quiet, stacked
from fairhuman.bases.sd3 import JOINT_ATTENTION
from fairhuman.data.samples.batch import Text

FEED_FORWARD = ("ff.net.0.proj", "ff.net.2", "ff_context.net.0.proj", "ff_context.net.2")
GUIDANCE = 1.0  # that the network is conditioned on in training: what it predicts then is what real pictures teach


class Flux(Base):
    """CLIP's pooled embedding, T5 of 512 tokens; tokens are patches of 2 x 2 cells with their places.

    Guidance was distilled into the network: it is conditioned on it, 1.0 in training, and takes no
    negative prompt.
    """

    kind = FluxPipeline
    targets: ClassVar = {"attention": JOINT_ATTENTION, "attention+ff": (*JOINT_ATTENTION, *FEED_FORWARD)}
    guided = False
    encoders = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")

    @classmethod
    def text_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of T5's tokens and of the pooled embedding."""
        return {"embeds": (cls.longest, config["joint_attention_dim"]), "pooled": (config["pooled_projection_dim"],)}

    def encode(self, caption: str) -> Text:
        """Return embeddings [512, D] and the pooled embedding [P]."""
        with quiet():
            embeds, pooled, _ = self.pipeline.encode_prompt(caption, None, self.pipeline.text_encoder.device)
        return {"embeds": embeds[0], "pooled": pooled[0]}

    def predict(self, noisy_bchw: Tensor, levels_b: Tensor, texts: Sequence[Text]) -> Tensor:
        """Return the velocity [B, C, h, w]."""
        b, c, h, w = noisy_bchw.shape
        embeds_bnd, device = stacked(texts, "embeds"), noisy_bchw.device
        tokens = self.network(
            hidden_states=FluxPipeline._pack_latents(noisy_bchw, b, c, h, w),
            timestep=levels_b,
            guidance=torch.full((b,), GUIDANCE, device=device),
            encoder_hidden_states=embeds_bnd,
            pooled_projections=stacked(texts, "pooled"),
            txt_ids=torch.zeros(embeds_bnd.shape[1], 3, device=device),
            img_ids=FluxPipeline._prepare_latent_image_ids(b, h // 2, w // 2, device, torch.float32),
            return_dict=False,
        )[0]
        return self._unpacked(tokens, (h * self.factor, w * self.factor))

    def arguments(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:  # noqa: ARG002
        """Return prompt and guidance."""
        return {"prompt": prompt, "guidance_scale": guidance}

    def sampled(self, found: Tensor, size: tuple[int, int]) -> Tensor:
        """Undo the packing of sampled latents."""
        return self._unpacked(found, size)

    def _unpacked(self, tokens_bnd: Tensor, size: tuple[int, int]) -> Tensor:
        latents: Tensor = FluxPipeline._unpack_latents(tokens_bnd, *size, self.factor)
        return latents
