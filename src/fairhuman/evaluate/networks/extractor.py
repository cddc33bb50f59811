"""Interface of the metrics' networks: pictures in, one feature row per picture out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fairhuman.errors import FairHumanError

Features = NDArray[np.float32]


class WeightsError(FairHumanError):
    """Weights of a metric are missing or don't fit its network; names the file and where to get it."""


class Extractor(Protocol):
    """Computes a feature row per picture, which depends only on that picture and its prompt.

    Rows don't depend on batch, order or number of processes, except for float32 rounding (relative 1e-4 at most).

    Attributes:
        name: name of the features, such as `hps-v2.1`; letters, digits, dots and hyphens.
        fingerprint: hash of weights and preprocessing, 12 hexadecimal digits; part of the cache's name.
        reads_prompt: whether features depend on the prompt.
        width: features per row.
        batch_size: pictures per forward pass.
    """

    name: str
    fingerprint: str
    reads_prompt: bool
    width: int
    batch_size: int

    def prepare(self, image: Image.Image) -> Tensor:
        """The network's input [3, H, W] for an upright RGB picture, float32 on the CPU; H and W are constant.

        Raises:
            ValueError: the picture isn't RGB.
        """
        ...

    def extract(self, images_bchw: Tensor, prompts: Sequence[str]) -> Features:
        """Features [B, width] of prepared pictures; `prompts` is ignored unless `reads_prompt`."""
        ...
