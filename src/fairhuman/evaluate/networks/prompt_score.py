"""Base class and preprocessing of networks that score a picture against its prompt."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from fairhuman.evaluate.networks.extractor import Features

# Channel means and standard deviations of CLIP's training set, 0..1 (github.com/openai/CLIP, clip.py).
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


class PromptScore(ABC):
    """An `Extractor` of one score per picture, from a network that also reads the prompt; in float32.

    Args:
        network: network with all weights; switched to eval mode and moved to the device.
        fingerprint: hash of weights and preprocessing.
        max_tokens: prompts are truncated to this many tokens, including start and end tokens.
        batch_size: pictures per forward pass.
        device: torch device.

    Raises:
        ValueError: `batch_size` is less than 1.
    """

    name: str
    reads_prompt = True
    width = 1

    def __init__(
        self, network: nn.Module, fingerprint: str, max_tokens: int, batch_size: int, device: torch.device | str
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self.fingerprint = fingerprint
        self.max_tokens = max_tokens
        self.batch_size = batch_size
        self._device = torch.device(device)
        self._network: Any = network.float().eval().requires_grad_(False).to(self._device)

    @abstractmethod
    def prepare(self, image: Image.Image) -> Tensor:
        """The network's input [3, side, side] for an upright RGB picture, float32 on the CPU."""

    def extract(self, images_bchw: Tensor, prompts: Sequence[str]) -> Features:
        """Score [B, 1] of each prepared picture and its prompt.

        Raises:
            ValueError: the numbers of prompts and pictures differ.
        """
        if images_bchw.ndim != 4 or len(images_bchw) != len(prompts):
            raise ValueError(
                f"{self.name}: expected pictures [B, 3, H, W] and B prompts, "
                f"not {tuple(images_bchw.shape)} and {len(prompts)} prompts"
            )
        with torch.inference_mode():
            scores_b = self._score(images_bchw.to(self._device), list(prompts))
        return scores_b[:, None].cpu().numpy()

    def count_truncated(self, prompts: Sequence[str]) -> int:
        """Number of prompts that the network truncates."""
        return sum(self._count_tokens(prompt) > self.max_tokens for prompt in prompts)

    @staticmethod
    @abstractmethod
    def reported(rows: Features) -> Features:
        """Convert scores to the scale that tables report."""

    @abstractmethod
    def _score(self, images_bchw: Tensor, prompts: list[str]) -> Tensor:
        """Score of each picture, [B]."""

    @abstractmethod
    def _count_tokens(self, prompt: str) -> int:
        """Number of tokens of the whole prompt, including start and end tokens."""


def image_tensor(image: Image.Image) -> Tensor:
    """Convert a picture to a tensor [3, H, W], float32, 0..1.

    Raises:
        ValueError: the picture isn't RGB.
    """
    if image.mode != "RGB":
        raise ValueError(f"the picture must be RGB, not {image.mode}")
    image_chw: Tensor = functional.to_dtype(functional.pil_to_tensor(image), torch.float32, scale=True)
    return image_chw


def normalize_for_clip(image_chw: Tensor) -> Tensor:
    """Normalise 0..1 to mean 0 and standard deviation 1 over CLIP's training set."""
    normalized_chw: Tensor = functional.normalize(image_chw, list(CLIP_MEAN), list(CLIP_STD))
    return normalized_chw


def centre_square(image: Image.Image, side: int) -> Tensor:
    """The centre square of a picture as preprocessed for CLIP and ImageReward, [3, side, side].

    The shorter side is resized to `side` with Pillow's antialiased bicubic filter, then the centre square is cropped
    (github.com/openai/CLIP, clip.py; github.com/THUDM/ImageReward, ImageReward.py). The processor of transformers crops
    some pictures one pixel further to one side, where the excess is odd.

    Raises:
        ValueError: the picture isn't RGB.
    """
    resized = functional.resize(image, [side], InterpolationMode.BICUBIC)
    return normalize_for_clip(image_tensor(functional.center_crop(resized, [side, side])))
