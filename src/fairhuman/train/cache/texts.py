"""Cache of text embeddings: the text encoders are frozen, so a caption need not be encoded again."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from diffusers import StableDiffusionXLPipeline
from torch import Tensor

from fairhuman.data.samples.batch import Batch
from fairhuman.data.samples.encodings import Encodings
from fairhuman.models.sdxl import check_finite, encode_prompts
from fairhuman.utils.files import digest


class TextCache:
    """The token embeddings [77, D] and the pooled embedding [P] of each caption, concatenated, in float16.

    For SDXL this takes 318 KB per caption. As with latents, the first use is rounded like later ones, and each caption
    is encoded alone. The text encoders must be frozen; `precision` is the run's autocast dtype.
    """

    def __init__(self, kept: Encodings, pipeline: StableDiffusionXLPipeline, precision: torch.dtype | None) -> None:
        self.kept = kept
        self._pipeline, self._precision = pipeline, precision

    def with_embeddings(self, batch: Batch) -> Batch:
        """Return the batch with the embeddings of its captions, on the device of its pictures."""
        embeds_bnd, pooled_bp = self.embeddings(batch.captions)
        device = batch.pictures_bchw.device
        return replace(batch, text=(embeds_bnd.to(device), pooled_bp.to(device)))

    def embeddings(self, captions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return embeddings [B, 77, D] and pooled ones [B, P], as `encode_prompts` does, in float16 on the CPU."""
        pooled = self._pipeline.text_encoder_2.config.projection_dim
        flat = torch.stack([self._embedding(caption) for caption in captions])
        tokens = self._pipeline.tokenizer.model_max_length
        return flat[:, :-pooled].reshape(len(captions), tokens, -1), flat[:, -pooled:]

    def _embedding(self, caption: str) -> Tensor:
        key = digest(caption)
        flat = self.kept.get(key)
        if flat is None:
            device = self._pipeline.text_encoder.device
            enabled = self._precision is not None
            with torch.no_grad(), torch.autocast(device.type, self._precision, enabled=enabled):
                embeds_bnd, pooled_bp = encode_prompts(self._pipeline, [caption])
            flat = torch.cat([embeds_bnd.flatten(), pooled_bp.flatten()]).half().cpu()
            check_finite(flat, f"embeddings of {caption!r} in float16", "they overflow; set cache.text=false")
            self.kept.add(key, flat)
        return flat
