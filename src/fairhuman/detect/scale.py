"""Tiny pictures are enlarged before detection, and what is found is brought back into their pixels."""

from dataclasses import replace

import numpy as np
from PIL import Image

from fairhuman.detect.detection import Detection, Picture
from fairhuman.record import Box

SMALL_SIDE = 256  # pixels: pictures whose longer side is at most this are upscaled


def enlarged(image: Picture, upscale: int) -> tuple[Picture, int]:
    """A picture of at most `SMALL_SIDE` `upscale` times as large (Lanczos), any other as it is; and the factor."""
    height, width = image.shape[:2]
    if upscale == 1 or max(height, width) > SMALL_SIDE:
        return image, 1
    larger = Image.fromarray(image).resize((width * upscale, height * upscale), Image.Resampling.LANCZOS)
    return np.asarray(larger), upscale


def reduced(found: Detection, factor: int) -> Detection:
    """A detection in pixels of the picture before it was enlarged."""
    if factor == 1:
        return found
    box = found.box
    smaller = Box(box.x0 / factor, box.y0 / factor, box.x1 / factor, box.y1 / factor, box.score)
    points_n3 = None if found.landmarks_n3 is None else found.landmarks_n3 / np.float32(factor)
    return replace(found, box=smaller, landmarks_n3=points_n3)
