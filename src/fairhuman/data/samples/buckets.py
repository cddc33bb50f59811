"""Resolutions of aspect-ratio buckets, and the share of pictures that they crop."""

import math
from bisect import bisect, insort
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Size = tuple[int, int]

_NEAR = 0.02  # aspect ratios that differ by less than this share don't get a bucket each


def bucket_resolutions(size: Size, max_aspect: float, step: int, least_area: float | None = 0.8) -> list[Size]:
    """Resolutions whose sides are multiples of `step`, with `least_area` to 1 times the area of `size`.

    Returns those with longer side / shorter side ≤ max_aspect, by height. Of resolutions whose aspect ratios differ by
    less than 2 %, the one with the largest area is taken. None as `least_area` takes for each side the largest area
    up to that of `size`; for 1024 x 1024 and step 64 these are among SDXL's training resolutions (Podell et al., 2023,
    appendix I). Both sides of `size` must be multiples of `step`; `size` is one of the resolutions in either case.
    """
    area = size[0] * size[1]
    sides = range(step, area // step + 1, step)
    if least_area is None:
        found = {(side, area // side // step * step) for side in sides}
        found |= {(width, height) for height, width in found}
    else:
        units, least = area // step**2, math.ceil(least_area * area / step**2)
        heights = range(1, units + 1)
        found = {(h * step, w * step) for h in heights for w in range(-(-least // h), units // h + 1)}
    within = {(h, w) for h, w in found if max(h, w) <= max_aspect * min(h, w)} | {size}
    return sorted(within if least_area is None else _spaced(size, within))


def _spaced(size: Size, resolutions: Iterable[Size]) -> list[Size]:
    """`size`, then the others by area, without those whose log aspect ratio is near to that of an earlier one."""
    kept, taken = [size], [_log_aspect(size)]
    for other in sorted(resolutions, key=lambda one: (-one[0] * one[1], one)):
        aspect = _log_aspect(other)
        place = bisect(taken, aspect)
        if all(abs(aspect - near) >= _NEAR for near in taken[max(place - 1, 0) : place + 1]):
            insort(taken, aspect)
            kept.append(other)
    return kept


def _log_aspect(size: Size) -> float:
    return math.log(size[0] / size[1])


def log_aspects(sizes: Sequence[Size]) -> NDArray[np.float64]:
    """log(height / width) of each size [n]."""
    heights, widths = np.asarray(sizes, np.float64).reshape(-1, 2).T
    logs: NDArray[np.float64] = np.log(heights / widths)
    return logs


def nearest(aspects_n: NDArray[np.float64], centres_k: NDArray[np.float64]) -> NDArray[np.int64]:
    """Number [n] of the entry of `centres_k`, in any order, that is nearest to each of `aspects_n`."""
    order = np.argsort(centres_k, kind="stable")
    middles = (centres_k[order][1:] + centres_k[order][:-1]) / 2
    found: NDArray[np.int64] = order[np.searchsorted(middles, aspects_n)]
    return found


def nearest_resolutions(sizes: Sequence[Size], resolutions: Sequence[Size]) -> list[Size]:
    """For each size the resolution that crops least."""
    return [resolutions[k] for k in nearest(log_aspects(sizes), log_aspects(resolutions))]


def cropped_share(sizes: Sequence[Size], resolutions: Sequence[Size]) -> float:
    """Return the mean share of a picture's area that is cropped away, without zoom; sizes are (height, width).

    A picture is scaled to cover the resolution of its bucket. With a its aspect ratio and b that of its resolution, the
    share 1 - min(a, b) / max(a, b) is cropped.
    """
    a, b = (np.divide(*np.asarray(one, np.float64).T) for one in (sizes, resolutions))
    return float(np.mean(1.0 - np.minimum(a, b) / np.maximum(a, b)))
