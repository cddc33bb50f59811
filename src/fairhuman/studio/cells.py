"""Masks as runs of cells, which a page can read and write without a picture's codec.

A mask of W x H pixels is a list of run lengths in the order of rows, which begin with a run outside the region (it may
be 0) and add up to W * H.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from fairhuman.data.pictures.encode import encode_png

Mask = NDArray[np.bool_]


def runs_of(mask_hw: Mask) -> list[int]:
    """The run lengths of a mask."""
    flat = mask_hw.ravel()
    changes = np.flatnonzero(np.diff(flat)) + 1
    lengths = np.diff(np.concatenate([[0], changes, [flat.size]])).tolist()
    return [0, *lengths] if flat.size and flat[0] else lengths


def mask_of(runs: Sequence[int], width: int, height: int) -> Mask:
    """The mask [height, width] of run lengths.

    Raises:
        ValueError: a run is negative, or they don't add up to the picture's pixels.
    """
    if min(runs, default=0) < 0 or sum(runs) != width * height:
        raise ValueError(f"the runs of a mask must add up to {width} x {height}, not {sum(runs)}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.repeat(inside, runs).reshape(height, width)


def boxes_around(mask_hw: Mask, most: int) -> list[list[int]]:
    """[x0, y0, x1, y1] around each part of a mask, largest first; cells that touch at a corner are one part.

    With more than `most` parts there is one box around all of them.
    """
    parts, number = ndimage.label(mask_hw, structure=np.ones((3, 3)))
    found = ndimage.find_objects(parts if number <= most else mask_hw.astype(np.int32))
    boxes = [[columns.start, rows.start, columns.stop, rows.stop] for rows, columns in found]
    return sorted(boxes, key=lambda box: -(box[2] - box[0]) * (box[3] - box[1]))


def png_of(mask_hw: Mask) -> bytes:
    """A mask as a PNG of one bit a pixel, white = region."""
    return encode_png(Image.fromarray(mask_hw), optimize=True)
