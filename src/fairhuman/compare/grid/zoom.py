"""Close-ups at the same place in several pictures: square frames around boxes, in relative coordinates.

A frame is chosen once, from one picture or in advance, and applied to all pictures. Frames chosen separately in each
picture would show every method at its best.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PIL import Image

from fairhuman.record import Box
from fairhuman.report.previews import AROUND, LEAST, cut_square


@dataclass(frozen=True, slots=True)
class ZoomFrame:
    """A square in relative coordinates.

    Attributes:
        x: centre as a fraction of the picture's width.
        y: centre as a fraction of the picture's height.
        side: side as a fraction of the picture's height.
    """

    x: float
    y: float
    side: float


def choose_frames(
    boxes: Mapping[str, Sequence[Box]], size: tuple[int, int], parts: Sequence[str]
) -> dict[str, ZoomFrame]:
    """The frame around the largest box of each part, with `AROUND` times the box's longer side; none without boxes.
    Boxes are in pixels of a picture of (width, height).

    Raises:
        ValueError: a box has no area, or its centre lies outside the picture.
    """
    width, height = size
    frames = {}
    for part in parts:
        for box in boxes.get(part, ()):
            if not can_frame(box, size):
                raise ValueError(f"{part}: a box must have an area and its centre in {width} x {height}, got {box}")
        found = max(boxes.get(part, ()), key=lambda box: box.area, default=None)
        if found is not None:
            side = AROUND * max(found.x1 - found.x0, found.y1 - found.y0, LEAST)
            frames[part] = ZoomFrame(
                (found.x0 + found.x1) / 2 / width, (found.y0 + found.y1) / 2 / height, side / height
            )
    return frames


def can_frame(box: Box, size: tuple[int, int]) -> bool:
    """Whether a box has an area and its centre in a picture of (width, height)."""
    centred = 0 <= box.x0 + box.x1 <= 2 * size[0] and 0 <= box.y0 + box.y1 <= 2 * size[1]
    return box.x0 < box.x1 and box.y0 < box.y1 and centred


def cut(picture: Image.Image, frame: ZoomFrame, pixels: int) -> Image.Image:
    """Cut the framed square, resized to `pixels` a side.

    A frame that leaves the picture is moved inside, one that is larger than the picture made smaller: the same for all
    pictures of one shape.
    """
    width, height = picture.size
    return cut_square(picture, frame.x * width, frame.y * height, frame.side * height, pixels)
