"""Controlled degradation of pictures, whole or inside boxes, which a face or hand metric must detect."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter

from fairhuman.detect.detection import Picture, check_picture
from fairhuman.record import Box

MARGIN = 0.1  # degraded margin around a box, as a fraction of its longer side, since boxes are tight


def pixelate(image: Picture, cells: int, boxes: Sequence[Box] | None = None) -> Picture:
    """Pixelate a picture [H, W, 3] to `cells` squares along the longer side; fewer is worse.

    Each cell takes the mean colour of its pixels. A region whose longer side has at most `cells` pixels is unchanged.

    Args:
        image: RGB, uint8.
        cells: ≥ 1.
        boxes: regions, pixelated one by one with `MARGIN` around each; None = the whole picture.

    Raises:
        ValueError: `cells` is out of range, or the picture isn't RGB, uint8, [H, W, 3].
    """
    if cells < 1:
        raise ValueError(f"cells must be at least 1, not {cells}")

    def squares(region: Picture) -> Picture:
        height, width = region.shape[:2]
        share = cells / max(height, width)
        if share >= 1:
            return region
        small = (max(1, round(width * share)), max(1, round(height * share)))
        coarse = Image.fromarray(region).resize(small, Image.Resampling.BOX)
        return np.asarray(coarse.resize((width, height), Image.Resampling.NEAREST))

    return _changed(image, boxes, squares)


def blur(image: Picture, sigma: float, boxes: Sequence[Box] | None = None) -> Picture:
    """Blur a picture [H, W, 3] with a Gaussian; more is worse, 0 changes nothing.

    Args:
        image: RGB, uint8.
        sigma: standard deviation as a fraction of the region's longer side, ≥ 0.
        boxes: regions, blurred one by one with `MARGIN` around each; None = the whole picture.

    Raises:
        ValueError: `sigma` is negative, or the picture isn't RGB, uint8, [H, W, 3].
    """
    if not sigma >= 0:
        raise ValueError(f"sigma must not be negative, not {sigma}")

    def soft(region: Picture) -> Picture:
        spread = sigma * max(region.shape[:2])
        blurred = gaussian_filter(region.astype(np.float32), (spread, spread, 0), mode="nearest")
        rounded: NDArray[np.uint8] = (blurred + 0.5).clip(0, 255).astype(np.uint8)
        return rounded

    return _changed(image, boxes, soft)


def _changed(image: Picture, boxes: Sequence[Box] | None, change: Callable[[Picture], Picture]) -> Picture:
    image = check_picture(image).copy()
    height, width = image.shape[:2]
    for box in (Box(0, 0, width, height),) if boxes is None else boxes:
        edge = 0 if boxes is None else MARGIN * max(box.x1 - box.x0, box.y1 - box.y0)
        left, top = max(round(box.x0 - edge), 0), max(round(box.y0 - edge), 0)
        right, bottom = min(round(box.x1 + edge), width), min(round(box.y1 + edge), height)
        if left < right and top < bottom:
            image[top:bottom, left:right] = change(image[top:bottom, left:right])
    return image
