"""Z-Image, the base model.

Sources: diffusers, `pipelines/z_image/pipeline_z_image.py` and
`examples/dreambooth/train_dreambooth_lora_z_image.py`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from diffusers import ZImagePipeline
from torch import Tensor

from fairhuman.bases.base import Base, in_chat
from fairhuman.data.samples.batch import Text


class ZImage(Base):
    """Qwen3's last hidden layer but one; the network is conditioned on 1 - σ and predicts x - ε.

    Pictures and captions are lists, which the network pads and masks itself.
    """

    kind = ZImagePipeline
    targets: ClassVar = {"attention": ("to_q", "to_k", "to_v", "to_out.0")}
    width = "cap_feat_dim"

    def as_read(self, caption: str) -> str:
        """Return the caption in the chat template, as the pipeline does."""
        return in_chat(self.pipeline.tokenizer, caption, thinking=True)

    def encode(self, caption: str) -> Text:
        """Return embeddings [n, D] of the caption's n tokens, 512 at most."""
        device = self.pipeline.text_encoder.device
        found = self.pipeline.encode_prompt([caption], device, do_classifier_free_guidance=False)
        return {"embeds": found[0][0]}

    def read(self, prompt: str, negative_prompt: str, guidance: float) -> dict[str, Any]:
        """Return the encoded texts as lists."""
        given = super().read(prompt, negative_prompt, guidance)
        return {name: list(value) if isinstance(value, Tensor) else value for name, value in given.items()}

    def scale(self, guidance: float) -> float:
        """Return guidance + 1: the pipeline adds `guidance` times c - u to c."""
        return guidance + 1.0

    def predict(self, noisy_bchw: Tensor, levels_b: Tensor, texts: Sequence[Text]) -> Tensor:
        """Return the velocity [B, C, h, w]."""
        pictures = list(noisy_bchw[:, :, None].unbind(0))
        found = self.network(pictures, 1 - levels_b, [text["embeds"] for text in texts], return_dict=False)[0]
        return -torch.stack(list(found))[:, :, 0]
