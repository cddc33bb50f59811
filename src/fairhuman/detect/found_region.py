"""What is found of a region: its boxes and its mask."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fairhuman.record import Box

# Found by the bundled models (`body_parts`).
BODY_PARTS = ("head", "upper_body", "legs", "feet", "eyes", "mouth", "left_hand", "right_hand")

SAME_PART = 0.5  # of a part of one person; if more of it is another's, it is one part
LEAST_PIECE = 1e-4  # of the picture's area; smaller islands of a mask are noise

Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class FoundRegion:
    """A region of one picture.

    Attributes:
        boxes: one for each piece (each eye, each shoe), with its score in 0..1, best first; never empty.
        mask_hw: all pieces, of the picture's size; None: the finder gives boxes alone.
        persons: of a part of the body, the number of each box's person: 0 is the most prominent one.
        searched: number of persons in the picture of whom parts were looked for.
    """

    boxes: tuple[Box, ...]
    mask_hw: Mask | None = None
    persons: tuple[int, ...] | None = None
    searched: int | None = None


def region_of(pieces: Sequence[tuple[Mask, float]]) -> FoundRegion | None:
    """The region of masks [H, W] and their scores, each piece with the tightest box; None if all are empty."""
    found = [(mask_hw, box) for mask_hw, score in pieces if (box := tight_box(mask_hw, score)) is not None]
    if not found:
        return None
    found.sort(key=lambda one: -(one[1].score or 0.0))
    return FoundRegion(tuple(box for _, box in found), np.logical_or.reduce([mask_hw for mask_hw, _ in found]))


def of_persons(parts: Sequence[FoundRegion | None]) -> FoundRegion | None:
    """The region of one part of all persons, from that of each with its mask; None if it is found of nobody.

    Of a person of whom it isn't found it is None. If more than half of a part is an earlier person's, it is that one
    found once more.
    """
    kept: list[tuple[int, FoundRegion]] = []
    masks: list[Mask] = []
    for person, part in enumerate(parts):
        if part is None or part.mask_hw is None:
            continue
        if all((part.mask_hw & other_hw).sum() <= SAME_PART * part.mask_hw.sum() for other_hw in masks):
            kept.append((person, part))
            masks.append(part.mask_hw)
    if not kept:
        return None
    boxes = sorted(
        ((box, person) for person, part in kept for box in part.boxes), key=lambda one: -(one[0].score or 0.0)
    )
    return FoundRegion(
        tuple(box for box, _ in boxes), np.logical_or.reduce(masks), tuple(person for _, person in boxes), len(parts)
    )


def pieces_of(probability_hw: NDArray[np.float32], threshold: float, largest: float) -> FoundRegion | None:
    """The connected pieces with at least `threshold`, each with its mean probability as the score.

    Pieces of more than the share `largest` of the picture, and islands of less than `LEAST_PIECE`, are none.
    """
    from scipy.ndimage import label

    pieces_hw, count = label(probability_hw >= threshold)
    areas = np.bincount(pieces_hw.ravel(), minlength=count + 1) / pieces_hw.size
    kept = [number for number in range(1, count + 1) if LEAST_PIECE <= areas[number] <= largest]
    masks = [pieces_hw == number for number in kept]
    return region_of([(mask_hw, float(probability_hw[mask_hw].mean())) for mask_hw in masks])


def tight_box(mask_hw: Mask, score: float) -> Box | None:
    """The tightest box of a mask [H, W]; None if it is empty."""
    rows, columns = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    if rows.size == 0:
        return None
    x0, y0, x1, y1 = float(columns[0]), float(rows[0]), columns[-1] + 1.0, rows[-1] + 1.0
    return Box(x0, y0, float(x1), float(y1), score)


def shrunk(region: FoundRegion, factor: int) -> FoundRegion | None:
    """A region of a picture that was enlarged by `factor`, in the picture's own pixels; None if no pixel is left.

    A pixel of the mask is one of which the region covers at least half.
    """
    if factor == 1:
        return region
    boxes = tuple(Box(b.x0 / factor, b.y0 / factor, b.x1 / factor, b.y1 / factor, b.score) for b in region.boxes)
    if region.mask_hw is None:
        return replace(region, boxes=boxes)
    height, width = region.mask_hw.shape
    cells = region.mask_hw.reshape(height // factor, factor, width // factor, factor)
    mask_hw = cells.mean(axis=(1, 3)) >= 0.5
    return replace(region, boxes=boxes, mask_hw=mask_hw) if mask_hw.any() else None
