"""How boxes overlap: intersection over union, suppression of doubles, one-to-one matches. Boxes are arrays [N, 4]."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairhuman.record import Box

Array = NDArray[np.float64]


def corners(boxes: Sequence[Box]) -> Array:
    """Boxes as x0, y0, x1, y1, [N, 4]; also where N is 0."""
    return np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes], dtype=np.float64).reshape(-1, 4)


def iou(a_n4: Array, b_m4: Array) -> Array:
    """Intersection over union of each pair of boxes, [N, M] in 0..1; 0 where a box has no area."""
    low = np.maximum(a_n4[:, None, :2], b_m4[None, :, :2])
    high = np.minimum(a_n4[:, None, 2:], b_m4[None, :, 2:])
    shared_nm = (high - low).clip(min=0).prod(axis=2)
    area_n, area_m = ((box[:, 2:] - box[:, :2]).clip(min=0).prod(axis=1) for box in (a_n4, b_m4))
    union_nm = area_n[:, None] + area_m[None, :] - shared_nm
    overlap_nm: Array = np.zeros(shared_nm.shape)
    np.divide(shared_nm, union_nm, out=overlap_nm, where=shared_nm > 0)
    return overlap_nm


def without_doubles(boxes_n4: Array, scores_n: Array, most_overlap: float) -> list[int]:
    """Indices of the boxes that overlap no better one by more than `most_overlap` (IoU), best first.

    Greedy non-maximum suppression; among equal scores the earlier box is the better one.
    """
    order = np.argsort(-scores_n, kind="stable")
    overlap_nn = iou(boxes_n4, boxes_n4)
    kept: list[int] = []
    for index in order.tolist():
        if not kept or overlap_nn[index, kept].max() <= most_overlap:
            kept.append(index)
    return kept


def matches(a_n4: Array, b_m4: Array, least_overlap: float) -> list[tuple[int, int]]:
    """Pairs (index in a, index in b), greedily by falling IoU; each box at most once, no pair below `least_overlap`."""
    overlap_nm = iou(a_n4, b_m4)
    pairs: list[tuple[int, int]] = []
    while overlap_nm.size and overlap_nm.max() >= least_overlap:
        i, j = (int(index) for index in np.unravel_index(int(overlap_nm.argmax()), overlap_nm.shape))
        pairs.append((i, j))
        overlap_nm[i], overlap_nm[:, j] = -1.0, -1.0
    return pairs
