"""Overlap of boxes [N, 4]: intersection over union, non-maximum suppression, one-to-one matches."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairhuman.record import Box

Array = NDArray[np.float64]


def corners(boxes: Sequence[Box]) -> Array:
    """Boxes as an array of x0, y0, x1, y1, [N, 4], also for N = 0."""
    return np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes], dtype=np.float64).reshape(-1, 4)


def iou(a_n4: Array, b_m4: Array) -> Array:
    """Intersection over union of each pair of boxes, [N, M] in 0..1; 0 for a box without area."""
    low = np.maximum(a_n4[:, None, :2], b_m4[None, :, :2])
    high = np.minimum(a_n4[:, None, 2:], b_m4[None, :, 2:])
    shared_nm = (high - low).clip(min=0).prod(axis=2)
    area_n, area_m = ((box[:, 2:] - box[:, :2]).clip(min=0).prod(axis=1) for box in (a_n4, b_m4))
    union_nm = area_n[:, None] + area_m[None, :] - shared_nm
    overlap_nm: Array = np.zeros(shared_nm.shape)
    np.divide(shared_nm, union_nm, out=overlap_nm, where=shared_nm > 0)
    return overlap_nm


def non_maximum_suppression(boxes_n4: Array, scores_n: Array, max_iou: float) -> list[int]:
    """Greedy non-maximum suppression: indices of the kept boxes, best first.

    A box is kept if its IoU with every kept box of a higher score is at most `max_iou`; of equal scores the earlier
    box wins.
    """
    order = np.argsort(-scores_n, kind="stable")
    overlap_nn = iou(boxes_n4, boxes_n4)
    kept: list[int] = []
    for index in order.tolist():
        if not kept or overlap_nn[index, kept].max() <= max_iou:
            kept.append(index)
    return kept


def match_boxes(a_n4: Array, b_m4: Array, min_iou: float) -> list[tuple[int, int]]:
    """Match boxes greedily by falling IoU: pairs (index in a, index in b), each box at most once, IoU >= `min_iou`."""
    overlap_nm = iou(a_n4, b_m4)
    pairs: list[tuple[int, int]] = []
    while overlap_nm.size and overlap_nm.max() >= min_iou:
        i, j = (int(index) for index in np.unravel_index(int(overlap_nm.argmax()), overlap_nm.shape))
        pairs.append((i, j))
        overlap_nm[i], overlap_nm[:, j] = -1.0, -1.0
    return pairs
