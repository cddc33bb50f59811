"""Aspect-ratio buckets: their resolutions, and what they crop."""

from collections.abc import Sequence

import numpy as np

Size = tuple[int, int]


def bucket_resolutions(size: Size, max_aspect: float, step: int) -> list[Size]:
    """Resolutions with sides that are multiples of `step`, and the largest area that isn't larger than that of `size`.

    All those with longer side / shorter side ≤ max_aspect, by height; both sides of `size` are multiples of `step`, so
    it is one of them. For 1024 x 1024 and step 64 they are among those SDXL was trained on (Podell et al., 2023,
    appendix I).
    """
    area = size[0] * size[1]
    sides = range(step, area // step + 1, step)
    found = {(side, area // side // step * step) for side in sides}
    found |= {(width, height) for height, width in found}
    return sorted((h, w) for h, w in found if max(h, w) <= max_aspect * min(h, w) or (h, w) == size)


def cropped_share(sizes: Sequence[Size], resolutions: Sequence[Size]) -> float:
    """Return the share of a picture's area that lies outside its view, mean over pictures; without zoom.

    A picture is scaled to cover its resolution: with a its aspect ratio and b that of its resolution, 1 - min(a, b) /
    max(a, b) of it is outside.

    Args:
        sizes: (height, width) of each picture.
        resolutions: at which each one is shown.

    """
    a, b = (np.divide(*np.asarray(one, np.float64).T) for one in (sizes, resolutions))
    return float(np.mean(1.0 - np.minimum(a, b) / np.maximum(a, b)))
