"""Depth of pictures without one, by a `transformers` model for depth estimation."""

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

# What the models' outputs are; those of other types need more than a resize to become depth.
_KINDS: dict[str, DepthKind] = {"dpt": "relative", "depth_anything": "relative"}


class DepthEstimator:
    """Pictures to depth maps, by a loaded model.

    Attributes:
        source: name of the model, for the data set.
        kind: what the maps are: inverse depth for `relative`, metres for `metric_mm`, as `encode_depth` takes them.

    """

    def __init__(self, settings: DepthSettings, processor: Any, model: Any) -> None:
        self.source = settings.model
        self.kind = settings.kind or _kind(model.config)
        self._batch_size = settings.batch_size
        self._processor, self._model = processor, model

    def __call__(self, pictures: Sequence[Picture]) -> list[DepthMap]:
        """Depth [H, W] float32 of upright RGB pictures [H, W, 3], uint8, at their own sizes.

        Raises:
            ValueError: a picture has another type or shape.
            ModelError: the model can't take a picture, such as one that is extremely long and narrow.

        """
        prepared = [self._prepare(check_picture(picture)) for picture in pictures]
        by_shape: dict[tuple[int, ...], list[int]] = {}  # a model may keep the aspect ratio
        for index, pixels_chw in enumerate(prepared):
            by_shape.setdefault(tuple(pixels_chw.shape), []).append(index)
        depths: dict[int, DepthMap] = {}
        for alike in by_shape.values():
            for start in range(0, len(alike), self._batch_size):
                batch = alike[start : start + self._batch_size]
                found = self._estimate([prepared[index] for index in batch])
                for index, depth_hw in zip(batch, found, strict=True):
                    depths[index] = _resized(depth_hw, pictures[index].shape[:2])
        return [depths[index] for index in range(len(pictures))]

    def _prepare(self, picture: Picture) -> Any:
        try:
            return self._processor(images=Image.fromarray(picture), return_tensors="pt")["pixel_values"][0]
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            height, width = picture.shape[:2]
            raise ModelError(
                f"depth.model {self.source!r} must take a picture of {width}x{height} pixels, but: {error}"
            ) from error

    def _estimate(self, prepared: list[Any]) -> Any:
        import torch

        with torch.inference_mode():
            batch_bchw = torch.stack(prepared).to(self._model.device)
            return self._model(pixel_values=batch_bchw).predicted_depth.float().cpu()


def check_depth_model(settings: DepthSettings) -> None:
    """Say early, without loading, that a model is neither a folder of one nor a possible hub id; a hub isn't asked.

    Raises:
        ModelError: names it and the rule.

    """
    place = Path(settings.model)
    if not place.is_dir() and settings.model.count("/") != 1:
        raise _unfit(settings, "there is no such folder")
    if place.is_dir() and not (place / "config.json").is_file():
        raise _unfit(settings, "the folder has no config.json")


@contextmanager
def open_depth(settings: DepthSettings) -> Iterator[DepthEstimator]:
    """Load a model for the time of a `with` block.

    Raises:
        ModelError: it can't be loaded, isn't one for depth, or the device isn't there.

    """
    processor, model = _load(settings)
    yield DepthEstimator(settings, processor, model)


def _load(settings: DepthSettings) -> tuple[Any, Any]:
    import torch
    from transformers import AutoImageProcessor, AutoModelForDepthEstimation

    check_depth_model(settings)  # the hub would be asked for a minute
    automatic = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(automatic if settings.device == "auto" else settings.device)
        processor = AutoImageProcessor.from_pretrained(settings.model)
        model = AutoModelForDepthEstimation.from_pretrained(settings.model).eval().to(device)
    except Exception as error:  # the hub's client, the parsers of files and devices have errors of their own
        raise _unfit(settings, " ".join(str(error).split())) from error
    return processor, model


def _unfit(settings: DepthSettings, reason: str) -> ModelError:
    return ModelError(
        f"depth.model {settings.model!r} on {settings.device!r}: expected a hub id or the folder of a "
        f"transformers model for depth estimation: {reason}"
    )


def _kind(config: Any) -> DepthKind:
    if config.model_type not in _KINDS:
        raise ModelError(f"depth.model must be of the type {' or '.join(_KINDS)}, found {config.model_type}")
    return "metric_mm" if getattr(config, "depth_estimation_type", "") == "metric" else _KINDS[config.model_type]


def _resized(depth_hw: Any, size: tuple[int, ...]) -> DepthMap:
    """Bilinear, so that nothing is nearer or farther than what the model has said."""
    from torch.nn import functional

    resized = functional.interpolate(depth_hw[None, None], size=size, mode="bilinear", align_corners=False)
    return np.asarray(resized[0, 0].numpy())
