"""Depth maps as 16-bit grey PNG, in one of two kinds that must not be mixed, and as conditions for training.

`relative`: inverse depth up to scale and shift, as from estimators such as Depth-Anything; the nearest pixel of a
picture is 65535, the farthest 0. `metric_mm`: millimetres along the optical axis, 1..65535, 0 = background or
unknown, as in synthetic people. The kind is stored beside the PNG.
"""

from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.data.pictures.colours import GREY16
from fairhuman.data.pictures.decode import ANY_SHAPE, open_image
from fairhuman.data.pictures.encode import encode_png
from fairhuman.data.pictures.stored import PictureError, picture_name
from fairhuman.record import DepthKind, Stored

Depth16 = NDArray[np.uint16]
DepthMap = NDArray[np.float32]

NEAREST = 65535


def encode_depth(depth_hw: NDArray[Any], kind: DepthKind) -> bytes:
    """Encode a depth map as PNG: inverse depth in any unit for `relative`, metres for `metric_mm`.

    `relative`: round(65535 (d - min) / (max - min)) over the finite pixels; other pixels count as farthest, and
    a constant map is 0 everywhere. `metric_mm`: round(1000 d), clipped to 1..65535; 0 where d is 0, negative or
    not finite.

    Raises:
        ValueError: the map is empty, isn't [H, W] or isn't numeric; or the kind is unknown.
    """
    _check_kind(kind)
    depth_hw = np.asarray(depth_hw)
    if depth_hw.ndim != 2 or not depth_hw.size or depth_hw.dtype.kind not in "iuf":
        raise ValueError(f"depth must be numbers [height, width], not {depth_hw.dtype} of shape {list(depth_hw.shape)}")
    values = depth_hw.astype(np.float64)
    if kind == "relative":
        stored = NEAREST * _normalise(values, np.isfinite(values))
    else:
        known = np.isfinite(values) & (values > 0)
        stored = np.where(known, (1000 * np.where(known, values, 0).clip(0, NEAREST)).clip(1, NEAREST), 0)
    return depth_png(stored.round().astype(np.uint16))


def depth_png(depth_hw: Depth16) -> bytes:
    """Encode 16-bit numbers [H, W] as PNG, unchanged."""
    return encode_png(Image.fromarray(depth_hw))


def decode_depth(stored: Stored) -> Depth16:
    """Decode the 16-bit numbers [H, W] of a stored depth map exactly.

    Raises:
        PictureError: the file can't be read, or isn't a 16-bit grey image.
    """
    with open_image(stored, ANY_SHAPE) as image:
        if image.mode not in GREY16:
            remedy = "; if that is depth, save np.asarray(image).astype(np.uint16) * 257" if image.mode == "L" else ""
            shown = f"{picture_name(stored)} has mode {image.mode}{remedy}"
            raise PictureError("depth must be grey with 16 bits", shown)
        try:
            return np.asarray(image).astype(np.uint16)  # converts the file's byte order to the machine's
        except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors about a damaged file
            raise PictureError("picture is cut off or damaged", f"{picture_name(stored)}: {error}") from error


def depth_picture(depth_hw: Depth16, kind: DepthKind) -> DepthMap:
    """The input of a depth ControlNet, [H, W] float32 in 0..1, near = 1.

    `relative`: d / 65535. `metric_mm`: inverse depth 1 / d, normalised to 0..1 by its minimum and maximum in the
    picture; unknown pixels are 0, as if infinitely far. A constant map is 0 everywhere. Resize and crop the result,
    not `depth_hw`: the 0 of `metric_mm` must not be interpolated.

    Raises:
        ValueError: the map is empty or isn't uint16 [H, W]; or the kind is unknown.
    """
    _check_kind(kind)
    if depth_hw.dtype != np.uint16 or depth_hw.ndim != 2 or not depth_hw.size:
        raise ValueError(f"depth must be uint16 [height, width], not {depth_hw.dtype} of shape {list(depth_hw.shape)}")
    if kind == "relative":
        return depth_hw.astype(np.float32) / np.float32(NEAREST)
    known = depth_hw > 0
    inverse = np.divide(1.0, depth_hw, out=np.zeros(depth_hw.shape), where=known)
    return _normalise(inverse, np.ones_like(known)).astype(np.float32)


def _normalise(values: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(v - min) / (max - min) over the valid pixels; 0 elsewhere and for constant values."""
    if not valid.any():
        return np.zeros_like(values)
    low, high = values[valid].min(), values[valid].max()
    half = high / 2 - low / 2  # half of the difference, which itself can overflow
    if half == 0:
        return np.zeros_like(values)
    return np.where(valid, (np.where(valid, values, low) / 2 - low / 2) / half, 0.0)


def _check_kind(kind: str) -> None:
    if kind not in get_args(DepthKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(DepthKind))}, not {kind!r}")
