"""Enlarge tiny pictures before detection, and scale detections back."""

from dataclasses import replace

import numpy as np
from PIL import Image

from fairhuman.detect.detection import Detection, Picture
from fairhuman.record import Box

SMALL_SIDE = 256  # pixels: maximum longer side of pictures that are enlarged


def enlarge(image: Picture, upscale: int) -> tuple[Picture, int]:
    """Enlarge a picture of at most `SMALL_SIDE` by `upscale` (Lanczos); return it and the applied factor."""
    height, width = image.shape[:2]
    if upscale == 1 or max(height, width) > SMALL_SIDE:
        return image, 1
    larger = Image.fromarray(image).resize((width * upscale, height * upscale), Image.Resampling.LANCZOS)
    return np.asarray(larger), upscale


def scale_back(found: Detection, factor: int) -> Detection:
    """Convert a detection to pixels of the picture before it was enlarged by `factor`."""
    if factor == 1:
        return found
    box = found.box
    smaller = Box(box.x0 / factor, box.y0 / factor, box.x1 / factor, box.y1 / factor, box.score)
    points_n3 = None if found.landmarks_n3 is None else found.landmarks_n3 / np.float32(factor)
    return replace(found, box=smaller, landmarks_n3=points_n3)
