"""Depth estimation with a `transformers` model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairhuman.data.condition.depth import DepthMap
from fairhuman.data.condition.settings import DepthSettings
from fairhuman.detect.detection import Picture, check_picture
from fairhuman.errors import ModelError
from fairhuman.record import DepthKind
from fairhuman.utils.hub import failure, refuse_pickles

# Kind of output by model type; other types need more postprocessing than a resize.
_KINDS: dict[str, DepthKind] = {"dpt": "relative", "depth_anything": "relative"}


class DepthEstimator:
    """Estimates depth maps of pictures with a loaded model.

    Attributes:
        source: name of the model, as stored in a data set.
        kind: kind of the maps: inverse depth for `relative`, metres for `metric_mm`, as expected by `encode_depth`.
        batch_size: pictures that the model reads at once, where memory suffices.
    """

    def __init__(self, settings: DepthSettings, processor: Any, model: Any) -> None:
        from fairhuman.utils.torch_device import Halving  # imports torch

        self.source = settings.model
        self.kind = settings.kind or _kind(model.config)
        self.batch_size = settings.batch_size
        self._processor, self._model, self._halving = processor, model, Halving()

    def __call__(self, pictures: Sequence[Picture]) -> list[DepthMap]:
        """Depth [H, W] float32 of upright RGB pictures [H, W, 3], uint8, each at its own size.

        Raises:
            ValueError: a picture has another type or shape.
            ModelError: the model can't process a picture, such as an extremely long and narrow one, or memory is
                insufficient for a single picture.
        """
        prepared = [self._prepare(check_picture(picture)) for picture in pictures]
        by_shape: dict[tuple[int, ...], list[int]] = {}  # a model may keep the aspect ratio
        for index, pixels_chw in enumerate(prepared):
            by_shape.setdefault(tuple(pixels_chw.shape), []).append(index)
        depths: dict[int, DepthMap] = {}
        for indices in by_shape.values():
            for start in range(0, len(indices), self.batch_size):
                batch = indices[start : start + self.batch_size]
                found = self._halving.results(self._estimate, [prepared[index] for index in batch], self._too_large)
                for index, depth_hw in zip(batch, found, strict=True):
                    depths[index] = _resize(depth_hw, pictures[index].shape[:2])
        return [depths[index] for index in range(len(pictures))]

    def _prepare(self, picture: Picture) -> Any:
        try:
            return self._processor(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"][0]
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            height, width = picture.shape[:2]
            raise ModelError(
                f"depth.model {self.source!r} can't process a picture of {width}x{height} pixels: {error}"
            ) from error

    def _too_large(self, pixels_chw: Any) -> str:
        height, width = pixels_chw.shape[1:]
        return (
            f"depth.model {self.source!r}: not enough memory for a picture, which it reads at {width}x{height}; take a "
            "smaller depth.model, or depth.device=cpu"
        )

    def _estimate(self, prepared: Sequence[Any]) -> list[Any]:
        """The model's output for each picture; on a GPU without TensorFloat-32, as networks of an evaluation."""
        import torch

        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            batch_bchw = torch.stack(list(prepared)).to(self._model.device)
            return list(self._model(pixel_values=batch_bchw).predicted_depth.float().cpu())


def check_depth_model(settings: DepthSettings) -> None:
    """Check early, without loading or network access, that a model is a folder or a possible hub id.

    Raises:
        ModelError: the model is neither.
    """
    folder = Path(settings.model)
    if not folder.is_dir() and settings.model.count("/") != 1:
        raise _load_error(settings, "there is no such folder")
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise _load_error(settings, "the folder has no config.json")
    refuse_pickles(f"depth.model {settings.model!r}", folder)


@contextmanager
def open_depth(settings: DepthSettings) -> Iterator[DepthEstimator]:
    """Load a model for the duration of a `with` block.

    Raises:
        ModelError: the model can't be loaded or isn't for depth estimation, or the device is missing.
    """
    processor, model = _load(settings)
    yield DepthEstimator(settings, processor, model)


def _load(settings: DepthSettings) -> tuple[Any, Any]:
    import torch
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    from fairhuman.utils.torch_device import default_device

    check_depth_model(settings)  # first, because a failing request to the hub takes a minute
    try:
        device = default_device() if settings.device == "auto" else torch.device(settings.device)
        processor = AutoImageProcessor.from_pretrained(settings.model, trust_remote_code=False)
        model = AutoModelForDepthEstimation.from_pretrained(
            settings.model, trust_remote_code=False, use_safetensors=True
        )
        model = model.eval().to(device)
    except Exception as error:  # the hub's client, file parsers and devices raise various errors
        raise _load_error(settings, failure(error, settings.model)) from error
    return processor, model


def _load_error(settings: DepthSettings, reason: str) -> ModelError:
    return ModelError(
        f"depth.model {settings.model!r} on {settings.device!r}: expected a hub id or the folder of a "
        f"transformers model for depth estimation: {reason}"
    )


def _kind(config: Any) -> DepthKind:
    if config.model_type not in _KINDS:
        raise ModelError(f"depth.model must be of the type {' or '.join(_KINDS)}, found {config.model_type}")
    return "metric_mm" if getattr(config, "depth_estimation_type", "") == "metric" else _KINDS[config.model_type]


def _resize(depth_hw: Any, size: tuple[int, ...]) -> DepthMap:
    """Resize bilinearly, which doesn't exceed the range of the model's output."""
    from torch.nn import functional

    resized = functional.interpolate(depth_hw[None, None], size=size, mode="bilinear", align_corners=False)
    return np.asarray(resized[0, 0].numpy())
