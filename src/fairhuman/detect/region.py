"""Regions of interest: rotated squares that are cut out for a network, and the way back to the picture.

The rules are those of MediaPipe's calculators (`ImageToTensorCalculator`, `RectTransformationCalculator`,
`DetectionsToRectsCalculator`, `AlignmentPointsRectsCalculator`; Apache-2.0,
https://github.com/google-ai-edge/mediapipe/tree/v0.10.21/mediapipe/calculators).
"""

import math
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.detection import Picture

Points = NDArray[np.float32]
Matrix = NDArray[np.float64]


class Region(NamedTuple):
    """A rotated square: centre and side in pixels, and the clockwise angle of its vertical axis in radians."""

    x: float
    y: float
    side: float
    angle: float

    def to_picture(self, side: int) -> Matrix:
        """Affine map [2, 3] from a crop of `side` pixels to the picture, both in pixels from the corner."""
        cos, sin = math.cos(self.angle), math.sin(self.angle)
        linear_22 = np.array([[cos, -sin], [sin, cos]]) * (self.side / side)
        shift_2 = np.array([self.x, self.y]) - linear_22 @ np.full(2, side / 2)
        return np.concatenate([linear_22, shift_2[:, None]], axis=1)

    def points(self, points_nd: Points) -> Points:
        """Points x, y or x, y, z in units of the side, from the region's corner, in pixels of the picture."""
        matrix_23 = self.to_picture(1).astype(np.float32)
        found = points_nd * np.float32(self.side)
        found[:, :2] = points_nd[:, :2] @ matrix_23[:, :2].T + matrix_23[:, 2]
        return found


def whole(image: Picture) -> Region:
    """The smallest square around the whole picture, upright."""
    height, width = image.shape[:2]
    return Region(width / 2, height / 2, max(width, height), 0.0)


def crop(
    image: Picture, region: Region, side: int, *, low: float = 0.0, outside: Literal["edge", "black"] = "edge"
) -> NDArray[np.float32]:
    """The region scaled to [side, side, 3], bilinear, float32 in `low`..1.

    Args:
        image: the picture [H, W, 3], uint8.
        region: what to cut out.
        side: pixels.
        low: value of black; white is 1.
        outside: what lies outside the picture: its edge pixels, or black.
    """
    import cv2

    border = cv2.BORDER_REPLICATE if outside == "edge" else cv2.BORDER_CONSTANT
    # By its corners in float32, as MediaPipe does it: another rounding would move some samples by 1/32 pixel.
    corners_42 = cv2.boxPoints(((region.x, region.y), (region.side, region.side), math.degrees(region.angle)))
    targets_42 = np.array([[0, side], [0, 0], [side, 0], [side, side]], dtype=np.float32)
    matrix_33 = cv2.getPerspectiveTransform(corners_42, targets_42)
    cut = cv2.warpPerspective(image, matrix_33, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
    return np.asarray(cut, dtype=np.float32) * np.float32((1 - low) / 255) + np.float32(low)


def spread(values_hw: NDArray[np.float32], region: Region, image: Picture) -> NDArray[np.float32]:
    """Values of a region, [side, side], at the picture's pixels [H, W], bilinear; 0 outside the region."""
    import cv2

    height, width = image.shape[:2]
    return np.asarray(
        cv2.warpAffine(
            values_hw,
            region.to_picture(len(values_hw)),
            (width, height),
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
        )
    )


def direction(start: Points, end: Points, upright: float) -> float:
    """Angle of a region in -π..π that turns the direction from `start` to `end` to `upright`, in radians.

    `upright` counts counter-clockwise from the x axis: π/2 turns the direction upwards.
    """
    angle = upright - math.atan2(-float(end[1] - start[1]), float(end[0] - start[0]))
    return angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))


def around(x: float, y: float, width: float, height: float, angle: float, *, scale: float, up: float = 0.0) -> Region:
    """The square region around a box by its centre, its longer side times `scale`.

    It is shifted by `up` times the height of the box, along the region's own vertical axis.
    """
    shift = up * height
    return Region(x + shift * math.sin(angle), y - shift * math.cos(angle), max(width, height) * scale, angle)


def around_segment(start: Points, end: Points, upright: float, *, scale: float, up: float = 0.0) -> Region:
    """The square region around `start`, its half side the distance to `end` times `scale`, as `around` shifts it."""
    size = 2 * float(np.hypot(*(end[:2] - start[:2])))
    return around(float(start[0]), float(start[1]), size, size, direction(start, end, upright), scale=scale, up=up)
