"""ImageReward: predicted human preference for a picture given its prompt, as a standardised reward."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig

from fairhuman.evaluate.networks.blip import TEXT, VISION, RewardNetwork, rename_tensors
from fairhuman.evaluate.networks.extractor import Features, WeightsError
from fairhuman.evaluate.networks.prompt_score import PromptScore, centre_square
from fairhuman.evaluate.networks.weights import WeightsSource, fingerprint, load_weights, read_state_dict

SOURCE = WeightsSource(
    metric="ImageReward",
    option="image_reward.weights",
    hub="zai-org/ImageReward:ImageReward.pt",  # called THUDM/ImageReward until 2025
    size="1.8 GB",
)
TOKENIZER = WeightsSource(
    metric="ImageReward",
    option="image_reward.tokenizer",
    hub="google-bert/bert-base-uncased",
    size="less than 1 MB",
    files=("*.json", "*.txt"),
)
MAX_TOKENS = 35
# Mean and standard deviation of the raw reward on the authors' test set (ImageReward.py).
MEAN, STD = 0.16717362830052426, 1.0333394966054072


class ImageReward(PromptScore):
    """ImageReward v1.0, a BLIP trained on human rankings of pictures of the same prompt.

    score = (r - 0.1672) / 1.0333 with the raw reward r: unbounded, about standard normal on the authors' test set.
    Xu et al., ImageReward, NeurIPS 2023; weights and preprocessing as in github.com/THUDM/ImageReward.

    The network sees the centre square of the picture and the first 35 tokens of the prompt (`count_truncated` counts
    longer prompts).

    Args:
        weights: path or hub id (`owner/name:file`); None = the original on the hub.
        tokenizer: folder or hub id (`owner/name`) of bert-base-uncased; None = the original on the hub.
        vision: arguments of `BlipVisionConfig`.
        text: arguments of `BlipTextConfig`.
        batch_size: pictures per forward pass.
        device: torch device.

    Raises:
        WeightsError: weights or tokenizer can't be found or downloaded, or don't fit this network.
        ValueError: `batch_size` is less than 1.
    """

    name = "image-reward"

    def __init__(
        self,
        weights: str | None = None,
        tokenizer: str | None = None,
        *,
        vision: Mapping[str, Any] = VISION,
        text: Mapping[str, Any] = TEXT,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
    ) -> None:
        path, folder = SOURCE.find(weights), TOKENIZER.find(tokenizer)
        self._tokenizer = _load_tokenizer(folder, tokens=text["vocab_size"])
        network = RewardNetwork(BlipVisionConfig(**vision), BlipTextConfig(**text))
        load_weights(network, rename_tensors(read_state_dict(path)), path)
        self._side: int = vision["image_size"]
        mark = fingerprint("image-reward 1", [path, *TOKENIZER.files_of(folder)])
        super().__init__(network, mark, MAX_TOKENS, batch_size, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """The centre square of the picture, [3, side, side]; see `PromptScore`."""
        return centre_square(image, self._side)

    @staticmethod
    def reported(rows: Features) -> Features:
        """100 times the standardised reward, called IR(%) in papers."""
        return 100.0 * rows

    def _score(self, images_bchw: Tensor, prompts: list[str]) -> Tensor:
        read = self._tokenizer(
            prompts, padding="max_length", truncation=True, max_length=MAX_TOKENS, return_tensors="pt"
        ).to(images_bchw.device)
        rewards_b: Tensor = self._network(images_bchw, read.input_ids, read.attention_mask)
        return (rewards_b - MEAN) / STD

    def _count_tokens(self, prompt: str) -> int:
        return len(self._tokenizer(prompt, verbose=False).input_ids)


def _load_tokenizer(folder: Path, tokens: int) -> Any:
    """BERT's tokenizer with BLIP's two special tokens, which matter only for prompts that contain them literally."""
    try:
        tokenizer = BertTokenizer.from_pretrained(folder)
        tokenizer.add_special_tokens({"bos_token": "[DEC]", "extra_special_tokens": ["[ENC]"]})
    except Exception as error:  # the parsers raise many types
        why = " ".join(str(error).split())
        raise WeightsError(
            f"{TOKENIZER.option}: expected the tokenizer of bert-base-uncased in {folder}; {why}"
        ) from error
    if len(tokenizer) != tokens:
        raise WeightsError(
            f"{TOKENIZER.option}: expected {tokens - 2} tokens in {folder}, as bert-base-uncased has, "
            f"found {len(tokenizer) - 2}"
        )
    return tokenizer
