"""Human Preference Score v2.1: predicted human preference for a picture given its prompt."""

from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from fairhuman.errors import FairHumanError
from fairhuman.evaluate.networks.extractor import Features
from fairhuman.evaluate.networks.prompt_score import PromptScore, image_tensor, normalize_for_clip
from fairhuman.evaluate.networks.weights import WeightsSource, fingerprint, load_weights, read_state_dict

SOURCE = WeightsSource(
    metric="HPS v2.1", option="hps.weights", hub="xswu/HPSv2:HPS_v2.1_compressed.pt", size="about 2 GB"
)


class HumanPreferenceScore(PromptScore):
    """HPS v2.1, a CLIP fine-tuned on human choices between pictures of the same prompt.

    score = cos(f(picture), g(prompt)), in -1..1, without logit scale; real pictures score about 0.2..0.35. Wu et al.,
    Human Preference Score v2, 2023; weights and preprocessing as in the package hpsv2 1.2.0 (github.com/tgxs002/HPSv2).

    The network sees the whole picture: the longer side is resized to the network's and the rest padded with black.
    hpsv2 resizes a tensor with torchvision's default, which is antialiased since 0.17 and wasn't before. The authors'
    tables of 2023 are without antialiasing, results of newer installations with it; scores of the two are not
    comparable.

    Args:
        weights: path or hub id (`owner/name:file`); None = the original on the hub. A local path needs no internet
            access.
        architecture: open_clip's name of the architecture.
        antialias: whether to antialias when shrinking, as hpsv2 does with torchvision 0.17 and newer.
        batch_size: pictures per forward pass.
        device: torch device.

    Raises:
        WeightsError: the weights can't be found or downloaded, or don't fit the architecture.
        FairHumanError: open_clip isn't installed.
        ValueError: open_clip has no such architecture, or `batch_size` is less than 1.
    """

    name = "hps-v2.1"

    def __init__(
        self,
        weights: str | None = None,
        *,
        architecture: str = "ViT-H-14",
        antialias: bool = True,
        batch_size: int = 16,
        device: torch.device | str = "cpu",
    ) -> None:
        open_clip = _import_open_clip()
        config = open_clip.get_model_config(architecture)
        if config is None:
            raise ValueError(f"architecture must be one of open_clip's, not {architecture!r}")
        path = SOURCE.find(weights)
        network = open_clip.CLIP(**config)
        load_weights(network, read_state_dict(path, "state_dict"), path)
        self._tokenizer = open_clip.get_tokenizer(architecture)
        self._side: int = config["vision_cfg"]["image_size"]
        self._antialias = antialias
        mark = fingerprint(f"hps 1, {architecture}, antialias {antialias}", [path])
        super().__init__(network, mark, self._tokenizer.context_length, batch_size, device)

    def prepare(self, image: Image.Image) -> Tensor:
        """The whole picture padded to a black square, [3, side, side]; see `PromptScore`."""
        return normalize_for_clip(fit_square(image_tensor(image), self._side, self._antialias))

    @staticmethod
    def reported(rows: Features) -> Features:
        """100 cos."""
        return 100.0 * rows

    def _score(self, images_bchw: Tensor, prompts: list[str]) -> Tensor:
        tokens = self._tokenizer(prompts).to(images_bchw.device)
        pictures_bd: Tensor = self._network.encode_image(images_bchw, normalize=True)
        prompts_bd: Tensor = self._network.encode_text(tokens, normalize=True)
        return (pictures_bd * prompts_bd).sum(dim=-1)

    def _count_tokens(self, prompt: str) -> int:
        return len(self._tokenizer.encode(prompt)) + 2


def fit_square(image_chw: Tensor, side: int, antialias: bool) -> Tensor:
    """Resize a picture [C, H, W] to a longer side of `side` and centre it in a black square [C, side, side].

    Bicubic; values beyond 0..1 at sharp edges are not clipped, as in hpsv2.
    """
    scale = side / max(image_chw.shape[1:])
    height, width = (max(1, round(scale * length)) for length in image_chw.shape[1:])
    resized = functional.resize(image_chw, [height, width], InterpolationMode.BICUBIC, antialias=antialias)
    left, top = (side - width) // 2, (side - height) // 2
    square_chw: Tensor = functional.pad(resized, [left, top, side - width - left, side - height - top])
    return square_chw


def _import_open_clip() -> Any:
    try:
        import open_clip
    except ImportError as error:
        raise FairHumanError(f"{SOURCE.metric} needs open_clip: pip install 'fairhuman[evaluate]' ({error})") from error
    return open_clip
