"""Stable Diffusion 3 and 3.5.

Sources: diffusers, `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py` and
`examples/dreambooth/train_dreambooth_lora_sd3.py`. The network cuts latents into patches itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from fairhuman.bases.base import Base, quiet, stacked
from fairhuman.data.samples.batch import Batch, Text

JOINT_ATTENTION = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)
CLIP_TOKENS, T5_TOKENS = 77, 256  # as sampling has them


class SD3(Base):
    """Two CLIP encoders of 77 tokens, beside T5 of 256 tokens; σ is told as 0 to 1000."""

    kind = StableDiffusion3Pipeline
    targets: ClassVar = {"attention": JOINT_ATTENTION}
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    tokenizers = ("tokenizer", "tokenizer_2", "tokenizer_3")
    longest = T5_TOKENS

    @classmethod
    def text_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of CLIP's and T5's tokens, and of the pooled embedding."""
        return {
            "embeds": (CLIP_TOKENS + T5_TOKENS, config["joint_attention_dim"]),
            "pooled": (config["pooled_projection_dim"],),
        }

    def encode(self, caption: str) -> Text:
        """Return embeddings [77 + 256, D] and the pooled CLIP embedding [P]."""
        device = self.pipeline.text_encoder.device
        with quiet():
            found = self.pipeline.encode_prompt(caption, None, None, device, do_classifier_free_guidance=False)
        return {"embeds": found[0][0], "pooled": found[2][0]}

    def predict(
        self,
        noisy_bchw: Tensor,
        levels_b: Tensor,
        texts: Sequence[Text],
        batch: Batch | None = None,  # noqa: ARG002
    ) -> Tensor:
        """Return the velocity [B, C, h, w]."""
        velocity: Tensor = self.network(
            hidden_states=noisy_bchw,
            timestep=levels_b * 1000,
            encoder_hidden_states=stacked(texts, "embeds"),
            pooled_projections=stacked(texts, "pooled"),
            return_dict=False,
        )[0]
        return velocity
