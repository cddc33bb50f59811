"""The 2048 features of FID and KID: the Inception network of 2015 as implemented by torch-fidelity."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from fairhuman.errors import FairHumanError
from fairhuman.evaluate.networks.extractor import Features, WeightsError
from fairhuman.evaluate.networks.weights import fingerprint, read_state_dict
from fairhuman.regions.boxes import shorten

FILE = "pt_inception-2015-12-05-6726825d.pth"  # of pytorch-fid; torch-fidelity's `weights-inception-...` is the same
PAGE = "https://github.com/toshas/torch-fidelity/releases/tag/v0.2.0"
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
SIDE = 299


class Inception:
    """An `Extractor` of the pooled features before the last layer, on which FID is defined; in float32.

    A picture is resized to 299 x 299 regardless of its aspect ratio, bilinearly and without antialiasing, as in
    TensorFlow 1; pixels become (value - 128) / 128. Results equal those of torch-fidelity 0.4.0 on the same uint8
    picture.

    Only distances on the published weights are called FID and KID: `published` tells by the file's SHA-256, and other
    weights get another `name`.

    Args:
        weights: the file `pt_inception-2015-12-05-6726825d.pth` (95.6 MB); nothing is downloaded.
        batch_size: pictures per forward pass.
        device: torch device. On CUDA, TensorFloat-32 (on by default in convolutions) changes features by about 1e-3.

    Raises:
        WeightsError: the file doesn't exist or holds other weights.
        FairHumanError: torch-fidelity isn't installed.
        ValueError: `batch_size` is less than 1.
    """

    reads_prompt = False
    width = 2048

    def __init__(
        self, weights: str | Path | None = None, *, batch_size: int = 32, device: torch.device | str = "cpu"
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        path = find_weights(weights)
        network = _network(path)
        # All layers but the last, in the order of the network's forward, which itself accepts only uint8.
        self._trunk = nn.Sequential(*list(network.children())[:-1]).to(device)
        self._device = torch.device(device)
        self.batch_size = batch_size
        with path.open("rb") as file:
            self.published = hashlib.file_digest(file, "sha256").hexdigest() == SHA256
        self.name = "inception-2015" if self.published else "inception-other"
        self.fingerprint = fingerprint("inception 1, torch-fidelity's bilinear 299", [path])

    def prepare(self, image: Image.Image) -> Tensor:
        """The network's input [3, 299, 299], about -1..1."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x as resize

        if image.mode != "RGB":
            raise ValueError(f"the picture must be RGB, not {image.mode}")
        image_chw = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
        resized: Tensor = resize(image_chw[None], size=(SIDE, SIDE), align_corners=False)[0]
        return (resized - 128) / 128

    def extract(self, images_bchw: Tensor, prompts: Sequence[str] = ()) -> Features:  # noqa: ARG002 - part of every Extractor
        """Features [B, 2048] of prepared pictures; prompts are ignored."""
        with torch.inference_mode():
            features_bd: Tensor = self._trunk(images_bchw.to(self._device)).flatten(1)
        return features_bd.cpu().numpy()


def find_weights(weights: str | Path | None, section: str = "") -> Path:
    """Path of the weights file; `section` is what the setting's name begins with in the recipe.

    Raises:
        WeightsError: there is no such file; says where to get it.
    """
    path = Path(weights).expanduser() if weights else None
    if path is None or not path.is_file():
        why = "none is given" if path is None else f"there is no file {str(path)!r}"
        raise WeightsError(
            f"FID and KID need the weights {FILE} (95.6 MB; {PAGE} has them as weights-inception-2015-12-05-6726825d"
            f".pth); {why}; give the path of a copy as {section}inception.weights=PATH"
        )
    return path


def _network(path: Path) -> nn.Module:
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise FairHumanError(f"FID and KID need torch-fidelity: pip install 'fairhuman[evaluate]' ({error})") from error
    state = read_state_dict(path)
    copy = io.BytesIO()  # torch-fidelity unpickles arbitrary objects, so pass a copy that holds only tensors
    torch.save(state, copy)
    copy.seek(0)
    try:
        network: nn.Module = FeatureExtractorInceptionV3("inception", ["2048"], feature_extractor_weights_path=copy)
    except RuntimeError as error:  # missing or unknown names, or other shapes
        what = shorten(" ".join(str(error).split()), 300)
        raise WeightsError(f"{path}: expected the weights {FILE}; {what}") from error
    return network
