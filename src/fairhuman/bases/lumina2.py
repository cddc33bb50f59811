"""Lumina Image 2.

Sources: diffusers, `pipelines/lumina2/pipeline_lumina2.py` and
`examples/dreambooth/train_dreambooth_lora_lumina2.py`.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from diffusers import Lumina2Pipeline
from torch import Tensor

from fairhuman.bases.base import Base, padded, quiet
from fairhuman.data.samples.batch import Text


class Lumina2(Base):
    """Gemma 2's last hidden layer but one, 256 tokens with a mask; conditioned on 1 - σ, the network predicts x - ε."""

    kind = Lumina2Pipeline
    targets: ClassVar = {"attention": ("to_q", "to_k", "to_v", "to_out.0")}
    width = "cap_feat_dim"
    longest = 256

    def as_read(self, caption: str) -> str:
        """Return the caption after the pipeline's system prompt, which the unconditional prediction goes without."""
        return f"{self.pipeline.system_prompt} <Prompt Start> {caption}" if caption else ""

    def encode(self, caption: str) -> Text:
        """Return embeddings [n, D] of n tokens, the system prompt's included."""
        device, text = self.pipeline.text_encoder.device, self.as_read(caption)
        with quiet():
            embeds, mask = self.pipeline._get_gemma_prompt_embeds(text, device, self.longest)
        return {"embeds": embeds[0][mask[0].bool()]}

    def read(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:
        """Return the texts with padding and masks; a negative prompt goes without the system prompt."""
        device, parts = self.pipeline.text_encoder.device, ("prompt_embeds", "prompt_attention_mask")
        with quiet():
            found = self.pipeline.encode_prompt(prompt, guidance > 1.0, negative_prompt, device=device)
        names = [f"{kind}{part}" for kind in ("", "negative_") for part in parts]
        return {**dict(zip(names, found, strict=True)), "guidance_scale": guidance}

    def predict(self, noisy_bchw: Tensor, levels_b: Tensor, texts: Sequence[Text]) -> Tensor:
        """Return the velocity [B, C, h, w]."""
        embeds_bnd, mask_bn = padded(texts, "embeds")
        if mask_bn is None:
            mask_bn = torch.ones(embeds_bnd.shape[:2], dtype=torch.int64, device=embeds_bnd.device)
        velocity: Tensor = self.network(
            hidden_states=noisy_bchw,
            timestep=1 - levels_b,
            encoder_hidden_states=embeds_bnd,
            encoder_attention_mask=_Mask(mask_bn, [len(text["embeds"]) for text in texts]),
            return_dict=False,
        )[0]
        return -velocity


class _Mask:
    """A mask [B, n] that knows its sums: the network reads them as numbers, which tensors without memory haven't."""

    def __init__(self, mask_bn: Tensor, lengths: list[int]) -> None:
        self._mask_bn, self._lengths = mask_bn, lengths

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mask_bn, name)

    def sum(self, dim: int) -> Any:
        assert dim == 1
        return SimpleNamespace(tolist=lambda: self._lengths)
