"""Nearest plausible hand to 21 landmarks: human bone lengths and joint angles within their range.

First, a flat right palm of human proportions is fitted (Procrustes): with P = Σ (p - p̄) cᵀ over the template's wrist
and knuckles c [2], and P = U S Vᵀ,

    [across, up] = U Vᵀ,  scale = tr(S) / Σ |c - c̄|²,  palmar = across x up for a right hand, - across x up for a left

Then each finger is rebuilt from its knuckle, with human bone lengths and the detected directions clipped to the range
of each joint. A finger bends in one plane and may deviate sideways a little from its rest direction.

Bone lengths are means of Buryanov, Kotiuk, Proportions of hand segments, International Journal of Morphology
28(3):755-758, 2010, as in `evaluate.people.hand_shape`. Knuckle positions and joint ranges are rounded values of a
typical hand.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from fairhuman.evaluate.people.hand_shape import FINGERS, PROPORTIONS, THUMB, hand_shape

Array = NDArray[np.float64]

PALM = (0, 5, 9, 13, 17)
# Positions of `PALM` in millimetres from the wrist: across (towards the thumb) and up (towards the fingers).
PLACES = np.array([(0, 0), (26, 92), (4, 94), (-15, 88), (-32, 78)], dtype=np.float64)
THUMB_PLACE = (24.0, 22.0)
THUMB_METACARPAL = 46.2
PROXIMAL = {2: 31.6, 5: 39.8, 9: 44.6, 13: 41.4, 17: 32.7}  # length of the proximal phalanx by its base landmark
LENGTHS = {
    base: (length, *(share * length for (start, _), _, share in PROPORTIONS if start == base))
    for base, length in PROXIMAL.items()
}
OWN_DIRECTIONS = {5: 8.0, 9: 1.0, 13: -5.0, 17: -11.0}  # rest directions in degrees from up towards the thumb
SPREAD = 12.0  # maximum sideways deviation from the rest direction in degrees
KNUCKLE, MIDDLE, END = (-20.0, 90.0), (0.0, 110.0), (-5.0, 80.0)  # flexion range of each joint in degrees
THUMB_DIRECTION = (0.68, 0.66, 0.32)  # across, up, palmar, at rest
THUMB_CONES = (40.0, 50.0, 70.0)  # maximum angle in degrees of each bone from the rest direction or the previous bone
LEAST_PALM = 4.0  # minimum pixels from wrist to middle knuckle
LEAST_PLANE = 0.05  # minimum ratio of the palm's second to its first singular value; below it, the plane is undefined


def repaired_hand(points: Sequence[Sequence[float]] | Array, label: str = "hand") -> Array | None:
    """The nearest plausible hand [21, 3] to the landmarks; None if the palm is too small or too thin.

    Args:
        points: landmarks x, y, z in pixels [21, 3]; y points down, z away from the viewer.
        label: `left hand` or `right hand`; for any other label, the side that fits better is used.

    Raises:
        ValueError: the shape isn't [21, 3], or a number isn't finite.
    """
    points_n3 = np.asarray(points, dtype=np.float64)
    if points_n3.shape != (21, 3) or not np.isfinite(points_n3).all():
        raise ValueError(f"points must be finite and of the shape [21, 3], not {list(points_n3.shape)}: {points!r}")
    palm = _palm(points_n3)
    if palm is None:
        return None
    sides = {"right hand": (1,), "left hand": (-1,)}.get(label, (1, -1))
    hands = [_hand(points_n3, *palm, side) for side in sides]
    return min(hands, key=lambda hand_n3: float(np.linalg.norm(hand_n3 - points_n3)))


def _palm(points_n3: Array) -> tuple[Array, float, Array, Array] | None:
    """Origin, scale in pixels per millimetre, and axes across and up of the fitted palm."""
    found_n3 = points_n3[list(PALM)]
    places_n2 = PLACES - PLACES.mean(axis=0)
    u_32, s_2, v_22 = np.linalg.svd((found_n3 - found_n3.mean(axis=0)).T @ places_n2, full_matrices=False)
    scale = float(s_2.sum() / (places_n2**2).sum())
    if scale * PLACES[2, 1] < LEAST_PALM or s_2[1] < LEAST_PLANE * s_2[0]:
        return None
    axes_32 = u_32 @ v_22
    origin = found_n3.mean(axis=0) - scale * axes_32 @ PLACES.mean(axis=0)
    return origin, scale, axes_32[:, 0], axes_32[:, 1]


def _hand(points_n3: Array, origin: Array, scale: float, across: Array, up: Array, side: int) -> Array:
    """Rebuild the hand for one side; the sideways spread is reduced until no fingers collide."""
    axes_33 = np.stack([across, up, side * np.cross(across, up)])
    local_n3 = (points_n3 - origin) @ axes_33.T / scale
    hand_n3 = np.zeros((21, 3))
    for spread in (1.0, 0.5, 0.0):
        hand_n3 = _local_hand(local_n3, spread)
        if hand_shape(hand_n3).plausibility == 1:
            break
    result: Array = origin + scale * hand_n3 @ axes_33
    return result


def _local_hand(local_n3: Array, spread: float) -> Array:
    """The hand in millimetres across, up and palmar from the wrist."""
    hand_n3 = np.zeros((21, 3))
    hand_n3[list(PALM), :2] = PLACES
    hand_n3[1, :2] = THUMB_PLACE
    for joint, direction in zip(THUMB[1:], _thumb(local_n3), strict=True):
        length = THUMB_METACARPAL if joint == 2 else LENGTHS[2][joint - 3]
        hand_n3[joint] = hand_n3[joint - 1] + length * direction
    for base, *joints in FINGERS[1:]:
        for joint, length, direction in zip(
            joints, LENGTHS[base], _finger(local_n3[base : base + 4], OWN_DIRECTIONS[base], spread), strict=True
        ):
            hand_n3[joint] = hand_n3[joint - 1] + length * direction
    return hand_n3


def _thumb(local_n3: Array) -> list[Array]:
    before = np.array(THUMB_DIRECTION) / np.linalg.norm(THUMB_DIRECTION)
    directions = []
    for joint, limit in zip(THUMB[1:], THUMB_CONES, strict=True):
        before = _within(local_n3[joint] - local_n3[joint - 1], before, np.radians(limit))
        directions.append(before)
    return directions


def _finger(chain_43: Array, own: float, spread: float) -> list[Array]:
    """Directions of the three bones of a finger."""
    bones_33 = np.diff(chain_43, axis=0)
    x, y, z = bones_33[0]
    aside = np.degrees(np.arctan2(x, np.hypot(y, z))) - own if bones_33[0].any() else 0.0
    angle = np.radians(own + spread * np.clip(aside, -SPREAD, SPREAD))
    forward, palmar = np.array([np.sin(angle), np.cos(angle), 0.0]), np.array([0.0, 0.0, 1.0])
    bend, directions = 0.0, []
    for bone, (least, most) in zip(bones_33, (KNUCKLE, MIDDLE, END), strict=True):
        found = np.degrees(np.arctan2(bone @ palmar, bone @ forward)) if bone.any() else bend
        bend += float(np.clip((found - bend + 180) % 360 - 180, least, most))
        directions.append(np.cos(np.radians(bend)) * forward + np.sin(np.radians(bend)) * palmar)
    return directions


def _within(vector: Array, axis: Array, limit: float) -> Array:
    """The unit vector nearest to `vector` within `limit` radians of a unit `axis`; the axis if `vector` is zero."""
    length = float(np.linalg.norm(vector))
    if length == 0:
        return axis
    direction = vector / length
    aside = direction - (direction @ axis) * axis
    if float(np.arctan2(np.linalg.norm(aside), direction @ axis)) <= limit or not aside.any():
        return direction if direction @ axis > 0 or aside.any() else axis
    return np.asarray(np.cos(limit) * axis + np.sin(limit) * aside / np.linalg.norm(aside))
