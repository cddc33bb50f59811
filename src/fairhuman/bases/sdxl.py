"""Stable Diffusion XL, and what is built alike: two CLIP encoders, a U-Net that reads time ids, DDPM noise."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers import DDPMScheduler, StableDiffusionXLPipeline
from torch import Tensor

from fairhuman.bases.base import Base, stacked
from fairhuman.bases.noising import Ddpm, Noising
from fairhuman.bases.settings import TimeSettings
from fairhuman.data.samples.batch import Batch, Text
from fairhuman.errors import RecipeError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")
CONVOLUTIONS = ("conv1", "conv2")
# Maps the U-Net's latents and its conditioning arguments to additional arguments.
Residuals = Callable[[Tensor, Mapping[str, Any]], dict[str, Any]]


class SDXL(Base):
    """SDXL; a token is a cell of the U-Net's lowest level."""

    kind = StableDiffusionXLPipeline
    targets: ClassVar = {"attention": ATTENTION, "attention+conv": ATTENTION + CONVOLUTIONS}
    part = "unet"
    called = "U-Net"
    encoders = ("text_encoder", "text_encoder_2")
    tokenizers = ("tokenizer", "tokenizer_2")
    longest = 77

    @property
    def patch(self) -> int:
        """Cells per side of the lowest level's: 4 with three levels."""
        return int(2 ** (len(self.pipeline.unet.config.block_out_channels) - 1))

    def noising(self, times: TimeSettings | None = None) -> Noising:
        """Return DDPM with the pipeline's betas and prediction type.

        Raises:
            RecipeError: `times` are set.
        """
        if times not in (None, TimeSettings()):
            raise RecipeError(
                "noise.times is for flow-matching bases; SDXL draws its timesteps uniformly: leave it out"
            )
        return Ddpm(noise_scheduler(self.pipeline))

    @classmethod
    def text_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of 77 tokens and of the pooled embedding."""
        pooled = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
        return {"embeds": (77, config["cross_attention_dim"]), "pooled": (pooled,)}

    def encode(self, caption: str) -> Text:
        """Return token embeddings [77, D] and a pooled one [P]."""
        return self._texts([caption])[0]

    def texts(self, captions: Sequence[str], gradient: bool = False) -> list[Text]:
        """Encode all captions at once."""
        with torch.set_grad_enabled(gradient and torch.is_grad_enabled()):
            return self._texts(captions)

    def _texts(self, captions: Sequence[str]) -> list[Text]:
        embeds_bnd, pooled_bp = encode_prompts(self.pipeline, captions)
        return [{"embeds": e, "pooled": p} for e, p in zip(embeds_bnd, pooled_bp, strict=True)]

    def packed(self, text: Text) -> Tensor:
        """Return the token embeddings, then the pooled one, in float16."""
        return torch.cat([text["embeds"].flatten(), text["pooled"].flatten()]).half().cpu()

    def unpacked(self, packed: Tensor) -> Text:
        """Return the text of `packed`."""
        pooled, tokens = self.pipeline.text_encoder_2.config.projection_dim, self.pipeline.tokenizer.model_max_length
        return {"embeds": packed[:-pooled].reshape(tokens, -1), "pooled": packed[-pooled:]}

    def prediction(
        self, batch: Batch, noisy_bchw: Tensor, levels_b: Tensor, train_text: bool = False, **more: Any
    ) -> Tensor:
        """Return `predict` for the captions and time ids of a batch, float32."""
        more["time_ids_b6"] = batch.time_ids_b6
        return super().prediction(batch, noisy_bchw, levels_b, train_text, **more)

    def predict(
        self,
        noisy_bchw: Tensor,
        levels_b: Tensor,
        texts: Sequence[Text],
        time_ids_b6: Tensor | None = None,
        residuals: Residuals | None = None,
    ) -> Tensor:
        """Return the U-Net's output; `residuals` returns residuals to add inside it.

        Time ids stay in float32: sizes above 256 aren't exact in bfloat16. By default they are zeros.
        """
        ids_b6 = torch.zeros(len(texts), 6) if time_ids_b6 is None else time_ids_b6
        given: dict[str, Any] = {
            "encoder_hidden_states": stacked(texts, "embeds"),
            "added_cond_kwargs": {"text_embeds": stacked(texts, "pooled"), "time_ids": ids_b6.to(noisy_bchw.device)},
        }
        inside = residuals(noisy_bchw, given) if residuals is not None else {}
        prediction: Tensor = self.pipeline.unet(noisy_bchw, levels_b, **given, **inside).sample
        return prediction


def noise_scheduler(pipeline: StableDiffusionXLPipeline) -> DDPMScheduler:
    """Return the training scheduler with the betas and prediction type of the pipeline's scheduler."""
    return DDPMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)


def encode_prompts(pipeline: StableDiffusionXLPipeline, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Encode captions as `pipeline.encode_prompt` does: embeddings [B, 77, D] and pooled ones [B, P].

    An empty caption gives the unconditional embeddings of sampling: zeros if the pipeline's config has
    `force_zeros_for_empty_prompt` (as SDXL's has), otherwise the encoded empty text. Differentiable: callers with
    frozen encoders should use `torch.no_grad()`.
    """
    embeds, pooled = [], None
    for tokenizer, encoder in (
        (pipeline.tokenizer, pipeline.text_encoder),
        (pipeline.tokenizer_2, pipeline.text_encoder_2),
    ):
        texts = [pipeline.maybe_convert_prompt(caption, tokenizer) for caption in captions]
        tokens = tokenizer(
            texts, padding="max_length", max_length=tokenizer.model_max_length, truncation=True, return_tensors="pt"
        )
        output = encoder(tokens.input_ids.to(encoder.device), output_hidden_states=True)
        embeds.append(output.hidden_states[-2])
        pooled = output[0]
    assert pooled is not None
    embeds_bnd = torch.cat(embeds, dim=-1)
    if pipeline.config.force_zeros_for_empty_prompt:
        keep_b = torch.tensor([caption != "" for caption in captions], device=pooled.device)
        embeds_bnd = embeds_bnd * keep_b[:, None, None]
        pooled = pooled * keep_b[:, None]
    return embeds_bnd, pooled
