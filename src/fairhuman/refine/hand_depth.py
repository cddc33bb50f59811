"""Depth map of a hand from its 21 landmarks, rendered as capsules around the bones and across the palm.

At distance d from the axis of a bone with depth z and radius r, the surface has depth z - √(r² - d²); the nearest
surface is visible. The hand's nearest pixel is 1, its farthest `FARTHEST`, and the background 0, as in depth maps of
isolated hands. Near = 1, the convention of depth ControlNets.
"""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fairhuman.data.condition.depth import DepthMap
from fairhuman.detect.detection import DetectorError, Picture, check_picture
from fairhuman.detect.model_file import describe_signature, find_model, open_session
from fairhuman.evaluate.people.hand_shape import FINGERS, INDEX_KNUCKLE, LITTLE_KNUCKLE

Array = NDArray[np.float64]

FARTHEST = 0.35
# Radii relative to the breadth of the palm (index to little knuckle, about 60 mm): finger base and tip, thumb, palm.
FINGER_RADII, THUMB_RADII, PALM_RADIUS = (0.15, 0.11), (0.19, 0.14), 0.18
_PALM_BONES = ((0, 1), (0, 5), (0, 9), (0, 13), (0, 17), (1, 5), (5, 9), (9, 13), (13, 17), (1, 9))


def capsule_depth(points_n3: Array, height: int, width: int) -> DepthMap:
    """Depth [H, W] float32 in 0..1 of a hand with landmarks x, y, z in pixels; z points away from the viewer.

    Raises:
        ValueError: a size is below 1, the shape isn't [21, 3], or a number isn't finite.
    """
    if min(height, width) < 1 or points_n3.shape != (21, 3) or not np.isfinite(points_n3).all():
        raise ValueError(
            f"expected a size of at least 1 and finite points [21, 3], found {height}, {width}, {points_n3!r}"
        )
    breadth = float(np.linalg.norm(points_n3[INDEX_KNUCKLE] - points_n3[LITTLE_KNUCKLE]))
    surface_hw = np.full((height, width), np.inf)
    for start, end in _PALM_BONES:
        _lay(surface_hw, points_n3[start], points_n3[end], PALM_RADIUS * breadth, PALM_RADIUS * breadth)
    for finger in FINGERS:
        base, tip = THUMB_RADII if finger == FINGERS[0] else FINGER_RADII
        radii = np.linspace(base, tip, 4) * breadth
        for (start, end), (wide, narrow) in zip(pairwise(finger), pairwise(radii.tolist()), strict=True):
            _lay(surface_hw, points_n3[start], points_n3[end], wide, narrow)
    hand_hw = np.isfinite(surface_hw)
    if not hand_hw.any():
        return np.zeros((height, width), np.float32)
    low, high = surface_hw[hand_hw].min(), surface_hw[hand_hw].max()
    beyond_hw = (np.where(hand_hw, surface_hw, low) - low) / max(high - low, breadth)  # a flat hand stays flat
    return np.where(hand_hw, 1 - (1 - FARTHEST) * beyond_hw, 0).astype(np.float32)


def _lay(surface_hw: Array, start: Array, end: Array, wide: float, narrow: float) -> None:
    """Render a capsule into the depth buffer, in place."""
    height, width = surface_hw.shape
    reach = max(wide, narrow) + 1
    low, high = np.minimum(start, end)[:2] - reach, np.maximum(start, end)[:2] + reach
    x0, x1 = (int(np.clip(value, 0, width)) for value in (low[0], high[0] + 1))
    y0, y1 = (int(np.clip(value, 0, height)) for value in (low[1], high[1] + 1))
    if x0 >= x1 or y0 >= y1:
        return
    x, y = np.arange(x0, x1)[None, :] + 0.5, np.arange(y0, y1)[:, None] + 0.5
    way = end - start
    share = (((x - start[0]) * way[0] + (y - start[1]) * way[1]) / (way[0] ** 2 + way[1] ** 2 or 1.0)).clip(0, 1)
    if not way[:2].any() and way[2] < 0:  # the bone points at the viewer, so its near end is visible
        share = np.ones_like(share)
    radius2 = (wide + share * (narrow - wide)) ** 2
    distance2 = (x - start[0] - share * way[0]) ** 2 + (y - start[1] - share * way[1]) ** 2
    depth = start[2] + share * way[2] - np.sqrt(np.maximum(radius2 - distance2, 0))
    below = surface_hw[y0:y1, x0:x1]
    np.minimum(below, np.where(distance2 <= radius2, depth, np.inf), out=below)


class HandDepthModel:
    """An ONNX model that replaces the capsules, such as one that fits a hand mesh and renders its depth.

    It is given by its path or hub id `owner/name:file.onnx`. Its only input is a square RGB crop [1, 3, S, S] in 0..1
    with fixed S. Its first output is inverse depth [1, 1, S, S] or [1, S, S] in any unit, larger = nearer, 0 for
    background.

    Raises:
        DetectorError: the file doesn't exist, onnxruntime is missing, or the model has other inputs or outputs.
    """

    def __init__(self, place: str) -> None:
        self._path: Path = find_model(place)
        self._session: Any = open_session(self._path)
        inputs = self._session.get_inputs()
        shape = inputs[0].shape
        if (
            len(inputs) != 1
            or len(shape) != 4
            or shape[1] != 3
            or not isinstance(shape[2], int)
            or shape[2] != shape[3]
        ):
            raise self._unfit("one input [1, 3, S, S] of a fixed S")
        self._name, self.side = inputs[0].name, int(shape[2])
        self(np.zeros((self.side, self.side, 3), np.uint8))

    def __call__(self, crop: Picture) -> DepthMap:
        """Depth [S, S] float32 in 0..1, near = 1, of a square crop [S, S, 3], uint8, S being `side`.

        Raises:
            DetectorError: the model's output isn't a depth map.
        """
        input_bchw = check_picture(crop).transpose(2, 0, 1)[None].astype(np.float32) / 255
        try:
            depth = np.asarray(self._session.run(None, {self._name: input_bchw})[0])
        except Exception as error:  # errors of onnxruntime share no base class
            raise self._unfit(f"a model of pictures ({' '.join(str(error).split())})") from error
        if depth.size != self.side**2 or depth.shape[-2:] != (self.side, self.side) or not np.isfinite(depth).all():
            raise self._unfit(f"a finite output [1, 1, {self.side}, {self.side}], it gave {list(depth.shape)}")
        depth_hw = depth.reshape(self.side, self.side).clip(0).astype(np.float32)
        return np.asarray(depth_hw / (depth_hw.max() or 1), dtype=np.float32)

    def _unfit(self, expected: str) -> DetectorError:
        return DetectorError(f"{self._path}: expected {expected}; has {describe_signature(self._session)}")
