"""Resolutions of aspect-ratio buckets, and the share of pictures that they crop."""

from collections.abc import Sequence

import numpy as np

Size = tuple[int, int]


def bucket_resolutions(size: Size, max_aspect: float, step: int) -> list[Size]:
    """Resolutions with sides that are multiples of `step` and the largest area up to that of `size`.

    Returns all with longer side / shorter side ≤ max_aspect, by height. Both sides of `size` must be multiples of
    `step`, so `size` is one of them. For 1024 x 1024 and step 64 they are among SDXL's training resolutions (Podell
    et al., 2023, appendix I).
    """
    area = size[0] * size[1]
    sides = range(step, area // step + 1, step)
    found = {(side, area // side // step * step) for side in sides}
    found |= {(width, height) for height, width in found}
    return sorted((h, w) for h, w in found if max(h, w) <= max_aspect * min(h, w) or (h, w) == size)


def cropped_share(sizes: Sequence[Size], resolutions: Sequence[Size]) -> float:
    """Return the mean share of a picture's area that is cropped away, without zoom; sizes are (height, width).

    A picture is scaled to cover the resolution of its bucket. With a its aspect ratio and b that of its resolution, the
    share 1 - min(a, b) / max(a, b) is cropped.
    """
    a, b = (np.divide(*np.asarray(one, np.float64).T) for one in (sizes, resolutions))
    return float(np.mean(1.0 - np.minimum(a, b) / np.maximum(a, b)))
