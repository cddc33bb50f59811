"""What every network of a metric is: pictures in, a row of numbers each out."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fairhuman.errors import FairHumanError

Features = NDArray[np.float32]


class WeightsError(FairHumanError):
    """Weights of a metric are missing, or aren't those of its network; says which file is wanted and where it is."""


class Extractor(Protocol):
    """Gives each picture a row of features that depends on that picture and its prompt alone.

    Not on the batch, the order or the number of processes, but for float32's rounding (relative 1e-4 at most).

    Attributes:
        name: of the features, such as `hps-v2.1`; letters, digits, dots and hyphens.
        fingerprint: of weights and preprocessing, 12 hexadecimal digits; cached features of another one aren't used.
        reads_prompt: whether the prompt counts.
        width: numbers a row.
        batch_size: pictures at once.

    """

    name: str
    fingerprint: str
    reads_prompt: bool
    width: int
    batch_size: int

    def prepare(self, image: Image.Image) -> Tensor:
        """The network's input [3, H, W], float32 on the CPU, of an upright RGB picture; H and W are always the same."""
        ...

    def extract(self, images_bchw: Tensor, prompts: Sequence[str]) -> Features:
        """Features [B, width] of prepared pictures; where prompts don't count, `prompts` isn't looked at."""
        ...
