"""Depth as one 16-bit grey PNG, in one of two kinds that must never be mixed, and the picture of it for training.

`relative`: inverse depth up to scale and shift, as estimators such as Depth-Anything give it; the nearest pixel of a
picture is 65535, the farthest 0. `metric_mm`: millimetres along the optical axis, 1..65535, 0 = nothing there or not
known, as synthetic people have it. The kind is stored beside the PNG.
"""

import io
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.data.pictures.decode import GREY16, PictureLimits, inspect
from fairhuman.data.pictures.stored import PictureError, picture_name, read_bytes
from fairhuman.record import DepthKind, Stored

Depth16 = NDArray[np.uint16]
DepthMap = NDArray[np.float32]

NEAREST = 65535
# A condition is as large as its picture, which was held against the user's limits.
ANY_SHAPE = PictureLimits(min_side=1, max_aspect=1e6)


def encode_depth(depth_hw: NDArray[Any], kind: DepthKind) -> bytes:
    """PNG of a depth map: inverse depth in any unit for `relative`, metres for `metric_mm`.

    `relative`: round(65535 (d - min) / (max - min)) over the finite pixels; what isn't finite counts as farthest, and
    a constant map is 0 everywhere. `metric_mm`: round(1000 d), from 1 up and at most 65535; 0 where d is 0, negative or
    not finite.

    Raises:
        ValueError: not [H, W] with a pixel at least, not numbers, an unknown kind.

    """
    _check_kind(kind)
    depth_hw = np.asarray(depth_hw)
    if depth_hw.ndim != 2 or not depth_hw.size or depth_hw.dtype.kind not in "iuf":
        raise ValueError(f"depth must be numbers [height, width], not {depth_hw.dtype} of shape {list(depth_hw.shape)}")
    values = depth_hw.astype(np.float64)
    if kind == "relative":
        stored = NEAREST * _spread(values, np.isfinite(values))
    else:
        known = np.isfinite(values) & (values > 0)
        stored = np.where(known, (1000 * np.where(known, values, 0).clip(0, NEAREST)).clip(1, NEAREST), 0)
    return depth_png(stored.round().astype(np.uint16))


def depth_png(depth_hw: Depth16) -> bytes:
    """PNG of 16-bit numbers [H, W] as they are."""
    stream = io.BytesIO()
    Image.fromarray(depth_hw).save(stream, "PNG")
    return stream.getvalue()


def decode_depth(stored: Stored) -> Depth16:
    """The 16-bit numbers [H, W] of a stored depth map, none of them rounded.

    Raises:
        PictureError: can't be read, or isn't a grey picture of 16 bits, as a colour picture or a mask isn't.

    """
    facts = inspect(stored, ANY_SHAPE)
    if facts.mode not in GREY16:
        remedy = "; if that is depth, save np.asarray(image).astype(np.uint16) * 257" if facts.mode == "L" else ""
        raise PictureError("depth must be grey with 16 bits", f"{picture_name(stored)} has mode {facts.mode}{remedy}")
    try:
        with Image.open(io.BytesIO(read_bytes(stored)), formats=[facts.kind]) as image:
            return np.asarray(image).astype(np.uint16)  # from the byte order of the file to that of the machine
    except (OSError, SyntaxError, ValueError) as error:  # Pillow's errors about a damaged file
        raise PictureError("picture is cut off or damaged", f"{picture_name(stored)}: {error}") from error


def depth_picture(depth_hw: Depth16, kind: DepthKind) -> DepthMap:
    """What a depth ControlNet sees, [H, W] float32 in 0..1, near = 1.

    `relative`: d / 65535. `metric_mm`: inverse depth 1 / d, spread over 0..1 between its smallest and largest value in
    the picture; where nothing is known it is 0, as if infinitely far. A constant map is 0 everywhere. Resize and crop
    the result, not `depth_hw`: a 0 of `metric_mm` isn't a number to be blended.

    Raises:
        ValueError: not uint16 [H, W] with a pixel at least, an unknown kind.

    """
    _check_kind(kind)
    if depth_hw.dtype != np.uint16 or depth_hw.ndim != 2 or not depth_hw.size:
        raise ValueError(f"depth must be uint16 [height, width], not {depth_hw.dtype} of shape {list(depth_hw.shape)}")
    if kind == "relative":
        return depth_hw.astype(np.float32) / np.float32(NEAREST)
    known = depth_hw > 0
    inverse = np.divide(1.0, depth_hw, out=np.zeros(depth_hw.shape), where=known)
    return _spread(inverse, np.ones_like(known)).astype(np.float32)


def _spread(values: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(v - min) / (max - min) over what is counted, 0 elsewhere and for constant values."""
    if not counted.any():
        return np.zeros_like(values)
    low, high = values[counted].min(), values[counted].max()
    half = high / 2 - low / 2  # the difference of the largest floats isn't finite
    if half == 0:
        return np.zeros_like(values)
    return np.where(counted, (np.where(counted, values, low) / 2 - low / 2) / half, 0.0)


def _check_kind(kind: str) -> None:
    if kind not in get_args(DepthKind):
        raise ValueError(f"kind must be one of {', '.join(get_args(DepthKind))}, not {kind!r}")
