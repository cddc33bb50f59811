"""Pose images in OpenPose's colours, as expected by pose models of ControlNet and T2I-Adapter.

The colours, the darker limbs, the rainbow-coloured hands with blue joints and the white face dots follow
controlnet_aux (src/controlnet_aux/open_pose/util.py, Apache-2.0), which fixes their sizes at 512 pixels. Here they
scale with the picture and have smooth edges.
"""

import colorsys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fairhuman.data.condition.people import PersonPose, Points

Array = NDArray[np.float64]
Colour = tuple[float, ...]

LIMBS = (
    *((1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7)),
    *((1, 8), (8, 9), (9, 10), (1, 11), (11, 12), (12, 13)),
    *((1, 0), (0, 14), (14, 16), (0, 15), (15, 17)),
)
# Colours of the 18 points; darker versions of the first 17 are the colours of the limbs.
COLOURS: tuple[Colour, ...] = (
    *((255, 0, 0), (255, 85, 0), (255, 170, 0), (255, 255, 0), (170, 255, 0), (85, 255, 0)),
    *((0, 255, 0), (0, 255, 85), (0, 255, 170), (0, 255, 255), (0, 170, 255), (0, 85, 255)),
    *((0, 0, 255), (85, 0, 255), (170, 0, 255), (255, 0, 255), (255, 0, 170), (255, 0, 85)),
)
LIMB_BRIGHTNESS = 0.6
HAND_EDGES = tuple((0 if point % 4 == 0 else point, point + 1) for point in range(20))
HAND_COLOURS: tuple[Colour, ...] = tuple(
    tuple(255 * value for value in colorsys.hsv_to_rgb(edge / len(HAND_EDGES), 1, 1)) for edge in range(len(HAND_EDGES))
)
BLUE, WHITE = (0, 0, 255), (255, 255, 255)
# Half widths of lines and radii of points, in pixels of a picture whose shorter side is 512.
LIMB, JOINT, HAND_LINE, HAND_JOINT, FACE_DOT = 4.0, 4.0, 1.0, 4.0, 3.0
_REFERENCE_SIDE, _MIN_SIDE = 512, 64  # below the minimum, lines would vanish, so they don't get thinner


def draw_pose(people: Sequence[PersonPose], height: int, width: int, min_score: float = 0.3) -> Image.Image:
    """Draw people on black, in RGB, at the size of their picture.

    A point is drawn if its score is at least `min_score` and not 0, a line if both its ends are. Parts outside the
    picture are clipped. Later people cover earlier ones.

    Raises:
        ValueError: the size is below 1, or `min_score` is outside 0..1.
    """
    if min(height, width) < 1:
        raise ValueError(f"height and width must be at least 1, not {height} and {width}")
    if not 0 <= min_score <= 1:
        raise ValueError(f"min_score must be in 0..1, not {min_score}")
    canvas = _Canvas(height, width)
    unit = max(min(height, width), _MIN_SIDE) / _REFERENCE_SIDE
    for person in people:
        _draw_body(canvas, person.body, unit, min_score)
        for hand in person.hands:
            _draw_hand(canvas, hand, unit, min_score)
        for dot in np.flatnonzero(is_known(person.face, min_score)):
            canvas.line(person.face[dot], person.face[dot], FACE_DOT * unit, WHITE)
    return canvas.picture()


def is_known(points: Points, min_score: float) -> NDArray[np.bool_]:
    """Which points [..., 3] are drawn."""
    return np.asarray((points[..., 2] >= min_score) & (points[..., 2] > 0))


def is_drawn(person: PersonPose, min_score: float) -> bool:
    """Whether at least one point of a person is drawn."""
    return any(bool(is_known(points, min_score).any()) for points in (person.body, person.hands, person.face))


def _draw_body(canvas: "_Canvas", body: Points, unit: float, min_score: float) -> None:
    known = is_known(body, min_score)
    for (start, end), colour in zip(LIMBS, COLOURS, strict=False):
        if known[start] and known[end]:
            dark = tuple(LIMB_BRIGHTNESS * value for value in colour)
            canvas.ellipse(body[start], body[end], LIMB * unit, dark)
    for joint in np.flatnonzero(known):
        canvas.line(body[joint], body[joint], JOINT * unit, COLOURS[joint])


def _draw_hand(canvas: "_Canvas", hand: Points, unit: float, min_score: float) -> None:
    known = is_known(hand, min_score)
    for (start, end), colour in zip(HAND_EDGES, HAND_COLOURS, strict=True):
        if known[start] and known[end]:
            canvas.line(hand[start], hand[end], HAND_LINE * unit, colour)
    for joint in np.flatnonzero(known):
        canvas.line(hand[joint], hand[joint], HAND_JOINT * unit, BLUE)


class _Canvas:
    """A black picture on which shapes are blended by the share of each pixel that they cover.

    The share is clip(1/2 - d, 0, 1), with d the signed distance in pixels from the pixel's centre to the shape's edge.
    """

    def __init__(self, height: int, width: int) -> None:
        self._pixels_hwc = np.zeros((height, width, 3), np.float32)

    def picture(self) -> Image.Image:
        return Image.fromarray((self._pixels_hwc + 0.5).astype(np.uint8))

    def line(self, start: Points, end: Points, radius: float, colour: Colour) -> None:
        """Draw a line with round ends; a disc if both ends coincide."""
        (x0, y0), (dx, dy) = _start_and_delta(start, end)
        length2 = dx * dx + dy * dy

        def distance(x: Array, y: Array) -> Any:
            share = np.clip(((x - x0) * dx + (y - y0) * dy) / (length2 or 1.0), 0, 1)
            return np.hypot(x - x0 - share * dx, y - y0 - share * dy) - radius

        self._blend(start, end, radius, colour, distance)

    def ellipse(self, start: Points, end: Points, half_width: float, colour: Colour) -> None:
        """Draw an ellipse with the two points at its tips.

        With f = |(u/a, v/b)| and g = |(u/a², v/b²)| the distance is f (f - 1) / g to first order at the edge.
        """
        (x0, y0), (dx, dy) = _start_and_delta(start, end)
        length = float(np.hypot(dx, dy))
        if length < 1:  # shorter than a pixel
            return self.line(start, end, half_width, colour)
        cosine, sine = dx / length, dy / length
        a, b = length / 2, half_width

        def distance(x: Array, y: Array) -> Any:
            x, y = x - (x0 + dx / 2), y - (y0 + dy / 2)
            u, v = (x * cosine + y * sine) / a, (y * cosine - x * sine) / b
            f, g = np.hypot(u, v), np.hypot(u / a, v / b)
            return np.divide(f * (f - 1), g, out=np.full_like(f, -b), where=g > 0)

        return self._blend(start, end, half_width, colour, distance)

    def _blend(
        self, start: Points, end: Points, reach: float, colour: Colour, distance: Callable[[Array, Array], Any]
    ) -> None:
        """Blend a shape that lies within `reach` of the box of two points."""
        height, width = self._pixels_hwc.shape[:2]
        (x0, x1), (y0, y1) = (
            (
                int(np.clip(np.floor(min(start[axis], end[axis]) - reach - 1), 0, side)),
                int(np.clip(np.ceil(max(start[axis], end[axis]) + reach + 1), 0, side)),
            )
            for axis, side in ((0, width), (1, height))
        )
        if x0 < x1 and y0 < y1:
            x, y = (np.arange(low, high, dtype=np.float64) + 0.5 for low, high in ((x0, x1), (y0, y1)))
            share_hw1 = np.clip(0.5 - distance(x[None, :], y[:, None]), 0, 1)[..., None].astype(np.float32)
            below = self._pixels_hwc[y0:y1, x0:x1]
            below += share_hw1 * (np.asarray(colour, np.float32) - below)


def _start_and_delta(start: Points, end: Points) -> tuple[tuple[float, float], tuple[float, float]]:
    x0, y0 = float(start[0]), float(start[1])
    return (x0, y0), (float(end[0]) - x0, float(end[1]) - y0)
