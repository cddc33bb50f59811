"""CLIPScore: alignment of picture and prompt as the cosine of their CLIP features."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import CLIPModel, CLIPTokenizer

from fairhuman.evaluate.networks.extractor import Features, WeightsError
from fairhuman.evaluate.networks.prompt_score import PromptScore, centre_square
from fairhuman.evaluate.networks.weights import WeightsSource, fingerprint

SOURCE = WeightsSource(
    metric="CLIPScore",
    option="clip_score.weights",
    hub="openai/clip-vit-large-patch14",
    size="1.7 GB",
    files=("*.json", "*.txt", "*.safetensors"),
)


class CLIPScore(PromptScore):
    """Cosine of CLIP's features of a picture and its prompt, in -1..1; ViT-L/14 by default.

    Hessel et al., CLIPScore, EMNLP 2021, report 2.5 max(cos, 0) with ViT-B/32 and "A photo depicts" before each
    caption; text-to-image papers report 100 max(cos, 0) of the bare prompt, as here. Only scores of the same CLIP are
    comparable.

    The network sees the centre square of the picture and the first 77 tokens of the prompt (`count_truncated` counts
    longer prompts).

    Args:
        weights: folder or hub id (`owner/name`) of a transformers CLIP, with weights as safetensors; None = ViT-L/14.
        batch_size: pictures per forward pass.
        device: torch device.

    Raises:
        WeightsError: the model can't be found or downloaded, isn't a CLIP, or lacks weights.
        ValueError: `batch_size` is less than 1.
    """

    name = "clip-score"

    def __init__(self, weights: str | None = None, *, batch_size: int = 32, device: torch.device | str = "cpu") -> None:
        folder = SOURCE.find(weights)
        network, self._tokenizer = _load(folder)
        self._side: int = network.config.vision_config.image_size
        mark = fingerprint("clip-score 1", SOURCE.files_of(folder))
        super().__init__(network, mark, network.config.text_config.max_position_embeddings, batch_size, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """The centre square of the picture, [3, side, side]; see `PromptScore`."""
        return centre_square(image, self._side)

    @staticmethod
    def reported(rows: Features) -> Features:
        """100 max(cos, 0)."""
        return np.asarray(100.0 * np.maximum(rows, 0.0), dtype=np.float32)

    def _score(self, images_bchw: Tensor, prompts: list[str]) -> Tensor:
        read = self._tokenizer(
            prompts, padding="max_length", truncation=True, max_length=self.max_tokens, return_tensors="pt"
        ).to(images_bchw.device)
        found = self._network(pixel_values=images_bchw, **read)
        cosines_b: Tensor = (found.image_embeds * found.text_embeds).sum(dim=-1)  # both have length 1
        return cosines_b

    def _count_tokens(self, prompt: str) -> int:
        return len(self._tokenizer(prompt, verbose=False).input_ids)


def _load(folder: Path) -> tuple[Any, Any]:
    try:
        network, report = CLIPModel.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
        tokenizer = CLIPTokenizer.from_pretrained(folder)
    except Exception as error:  # the parsers raise many types
        raise WeightsError(
            f"{SOURCE.option}: expected a transformers CLIP in {folder}; {' '.join(str(error).split())}"
        ) from error
    lacking = sorted(report["missing_keys"])
    if lacking:
        raise WeightsError(
            f"{SOURCE.option}: expected a transformers CLIP in {folder}; {len(lacking)} weights are missing, "
            f"such as {lacking[0]}"
        )
    return network, tokenizer
