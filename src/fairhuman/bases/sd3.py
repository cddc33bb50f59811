"""Stable Diffusion 3 and 3.5.

Sources: diffusers, `pipelines/stable_diffusion_3/pipeline_stable_diffusion_3.py` and
`examples/dreambooth/train_dreambooth_lora_sd3.py`. The network cuts latents into patches itself.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from fairhuman.bases.base import Base, quiet, stacked
from fairhuman.data.samples.batch import Text

JOINT_ATTENTION = (
    *("attn.to_q", "attn.to_k", "attn.to_v", "attn.to_out.0"),
    *("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj", "attn.to_add_out"),
)
CLIP_TOKENS, T5_TOKENS = 77, 256  # as sampling has them


def t5_tokens(config: Mapping[str, Any]) -> int:
    """Return the number of T5's tokens, from the network's configuration.

    A network that reads no more than the two CLIP encoders' widths together, as the small flow base does, has none.
    Others have them even where a pipeline has no T5: as zeros.
    """
    return T5_TOKENS if config["joint_attention_dim"] > config["pooled_projection_dim"] else 0


class SD3(Base):
    """Two CLIP encoders of 77 tokens, beside T5 of 256 tokens; σ is given as 0 to 1000."""

    kind = StableDiffusion3Pipeline
    targets: ClassVar = {"attention": JOINT_ATTENTION}
    encoders = ("text_encoder", "text_encoder_2", "text_encoder_3")
    tokenizers = ("tokenizer", "tokenizer_2", "tokenizer_3")
    longest = T5_TOKENS

    @classmethod
    def text_shapes(cls, config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        """Return the shapes of CLIP's and T5's tokens, and of the pooled embedding."""
        return {
            "embeds": (CLIP_TOKENS + t5_tokens(config), config["joint_attention_dim"]),
            "pooled": (config["pooled_projection_dim"],),
        }

    @property
    def largest(self) -> int:
        """The side of the table of positions, in pixels."""
        return int(self.network.config.pos_embed_max_size) * self.patch * self.factor

    def encode(self, caption: str) -> Text:
        """Return embeddings [77 + 256, D], or [77, D] without T5, and the pooled CLIP embedding [P]."""
        device, tokens = self.pipeline.text_encoder.device, t5_tokens(self.network.config)
        with quiet():
            found = self.pipeline.encode_prompt(
                caption, None, None, device, do_classifier_free_guidance=False, max_sequence_length=tokens
            )
        return {"embeds": found[0][0], "pooled": found[2][0]}

    def arguments(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:
        """Return the arguments of the pipeline, with the number of T5's tokens."""
        tokens = t5_tokens(self.network.config)
        return {**super().arguments(prompt, negative_prompt, guidance), "max_sequence_length": tokens}

    def predict(self, noisy_bchw: Tensor, levels_b: Tensor, texts: Sequence[Text]) -> Tensor:
        """Return the velocity [B, C, h, w]."""
        velocity: Tensor = self.network(
            hidden_states=noisy_bchw,
            timestep=levels_b * 1000,
            encoder_hidden_states=stacked(texts, "embeds"),
            pooled_projections=stacked(texts, "pooled"),
            return_dict=False,
        )[0]
        return velocity
