"""Plausibility of 21 hand landmarks as a human hand: five separate fingers, no colliding bones, human proportions.

All criteria use MediaPipe's three dimensions, x, y and z in pixels (weak perspective), because in the image plane a
finger that points at the viewer has no length, and adjacent fingers overlap. z itself is an estimate, so tolerances are
wide.

Limits: MediaPipe draws a smooth hand with five fingers over almost anything, so even six fingers or a blob mostly have
a plausible skeleton. Presence and agreement of several looks detect whether there is a hand at all
(`fairhuman.evaluate.people.strict`); this measure adds fingers that coincide, cross or are stretched.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

THUMB = (1, 2, 3, 4)
FINGERS = (THUMB, (5, 6, 7, 8), (9, 10, 11, 12), (13, 14, 15, 16), (17, 18, 19, 20))
INDEX_KNUCKLE, LITTLE_KNUCKLE = 5, 17

# Lengths of a finger's bones divided by that of its proximal phalanx: middle phalanx, and distal phalanx including the
# fingertip, where landmarks end. Means of Buryanov, Kotiuk, Proportions of hand segments, International Journal of
# Morphology 28(3):755-758, 2010. For the thumb, whose landmarks 2, 3, 4 are the ends of its two phalanges, distal
# divided by proximal.
PROPORTIONS = (
    ((2, 3), (3, 4), 0.87),
    ((5, 6), (6, 7), 0.56), ((5, 6), (7, 8), 0.49),
    ((9, 10), (10, 11), 0.59), ((9, 10), (11, 12), 0.48),
    ((13, 14), (14, 15), 0.62), ((13, 14), (15, 16), 0.51),
    ((17, 18), (18, 19), 0.56), ((17, 18), (19, 20), 0.60),
)  # fmt: skip
# Allowed range as a multiple of the mean proportion. People vary less; the rest allows for errors in MediaPipe's depth:
# in 38 photographed and rendered hands, proportions were between 0.27 and 1.47 of the mean.
LEAST, MOST = 0.3, 1.7
# Half a finger's width divided by the distance of the outer knuckles: two fingers whose joints are closer on average
# count as one. In the 38 hands above, the closest fingers were 0.20 apart.
HALF_BREADTH = 0.15
CLEARANCE = 0.05  # relative to the same distance: bones that cross with a smaller depth gap collide


@dataclass(frozen=True, slots=True)
class HandShape:
    """Criteria of one hand.

    Attributes:
        fingers: number of separate fingers, 1..5.
        crossings: pairs of fingers with colliding bones, 0..10.
        proportions: share of bone proportions within the human range, 0..1.
    """

    fingers: int
    crossings: int
    proportions: float

    @property
    def plausibility(self) -> float:
        """fingers / 5 · (1 - crossings / 10) · proportions, in 0..1."""
        return self.fingers / 5 * (1 - self.crossings / 10) * self.proportions


def hand_shape(points: Sequence[Sequence[float]] | Array) -> HandShape:
    """Criteria of 21 landmarks x, y, z [21, 3] in any unit.

    They are invariant to scaling, mirroring and rotation in the image plane. From another viewpoint, other bones may
    cross in the image.

    Raises:
        ValueError: the shape isn't [21, 3], or a number isn't finite.
    """
    points_n3 = np.asarray(points, dtype=np.float64)
    if points_n3.shape != (21, 3) or not np.isfinite(points_n3).all():
        raise ValueError(f"points must be finite and of the shape [21, 3], not {list(points_n3.shape)}: {points!r}")
    breadth = float(np.linalg.norm(points_n3[INDEX_KNUCKLE] - points_n3[LITTLE_KNUCKLE]))
    return HandShape(
        fingers=_fingers(points_n3, HALF_BREADTH * breadth),
        crossings=sum(_cross(points_n3, a, b, CLEARANCE * breadth) for a, b in combinations(FINGERS, 2)),
        proportions=float(np.mean([_in_range(points_n3, *proportion) for proportion in PROPORTIONS])),
    )


def _fingers(points_n3: Array, nearest: float) -> int:
    """Number of fingers farther than `nearest` from all previous ones, averaged over the joints beyond the knuckle."""
    chains = [points_n3[list(finger[1:])] for finger in FINGERS]
    apart: list[Array] = []
    for chain_33 in chains:
        if all(np.linalg.norm(chain_33 - other_33, axis=1).mean() > nearest for other_33 in apart):
            apart.append(chain_33)
    return len(apart)


def _cross(points_n3: Array, first: Sequence[int], second: Sequence[int], clearance: float) -> bool:
    """Whether bones of two fingers cross in the image with a depth gap below `clearance`."""
    for a, b in pairwise(first):
        for c, d in pairwise(second):
            gap = _depth_between(points_n3[a], points_n3[b], points_n3[c], points_n3[d])
            if gap is not None and gap < clearance:
                return True
    return False


def _depth_between(a_3: Array, b_3: Array, c_3: Array, d_3: Array) -> float | None:
    """Depth gap between bones a-b and c-d where they cross in the image; None if they don't."""
    along_3, other_3 = b_3 - a_3, d_3 - c_3
    determinant = along_3[0] * other_3[1] - along_3[1] * other_3[0]
    if determinant == 0:
        return None
    start_3 = c_3 - a_3
    s = (start_3[0] * other_3[1] - start_3[1] * other_3[0]) / determinant
    t = (start_3[0] * along_3[1] - start_3[1] * along_3[0]) / determinant
    if not (0 < s < 1 and 0 < t < 1):
        return None
    return abs(float(start_3[2] + t * other_3[2] - s * along_3[2]))


def _in_range(points_n3: Array, base: tuple[int, int], bone: tuple[int, int], mean: float) -> bool:
    length_base, length_bone = (np.linalg.norm(points_n3[a] - points_n3[b]) for a, b in (base, bone))
    return bool(LEAST * mean * length_base <= length_bone <= MOST * mean * length_base and length_base > 0)
