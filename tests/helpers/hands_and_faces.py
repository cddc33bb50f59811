"""A flat open hand of human proportions, and found hands and faces made of numbers, for tests of scores."""

import numpy as np
from numpy.typing import NDArray

from fairhuman.evaluate.people.detections import PartDetection
from fairhuman.evaluate.people.looks import FACE_POINTS, LOOKS
from fairhuman.record import Box


def open_hand() -> NDArray[np.float64]:
    """21 points x, y, z: wrist at the origin, fingers up (y grows down), in millimetres."""
    knuckles = {2: (-35, -45), 5: (-28, -90), 9: (-8, -93), 13: (10, -88), 17: (28, -78)}
    bones = {
        2: (31.6, 27.3),
        5: (39.8, 22.4, 19.7),
        9: (44.6, 26.3, 21.4),
        13: (41.4, 25.7, 21.3),
        17: (32.7, 18.1, 19.7),
    }
    angles = {2: -40, 5: -10, 9: -2, 13: 6, 17: 15}
    points_n3 = np.zeros((21, 3))
    points_n3[1, :2] = -15, -20
    for start, (x, y) in knuckles.items():
        along = np.array([np.sin(np.radians(angles[start])), -np.cos(np.radians(angles[start])), 0])
        points_n3[start, :2] = x, y
        for step, length in enumerate(bones[start], start=1):
            points_n3[start + step] = points_n3[start + step - 1] + length * along
    return points_n3


def found_hand(box: Box, presence: float = 1.0, apart: float = 0.0, seed: int = 0) -> PartDetection:
    """An open hand in a box; its looks are `apart` pixels (standard deviation) apart."""
    hand_n3 = open_hand()
    scale = (box.y1 - box.y0) / 200
    points_n3 = hand_n3 * scale + [(box.x0 + box.x1) / 2, box.y1, 0]
    noise = np.random.default_rng(seed).normal(0, 1, (len(LOOKS), 21, 2)) * apart
    return _part(box, "left hand", points_n3, 2 * (box.y1 - box.y0), presence, points_n3[:, :2] + noise)


def found_face(box: Box, presence: float = 1.0, apart: float = 0.0, seed: int = 0) -> PartDetection:
    """A face in a box; its looks are `apart` pixels (standard deviation) apart."""
    generator = np.random.default_rng(seed)
    points_n2 = generator.uniform([box.x0, box.y0], [box.x1, box.y1], (len(FACE_POINTS), 2))
    noise = generator.normal(0, 1, (len(LOOKS), len(FACE_POINTS), 2)) * apart
    return _part(box, "face", np.zeros((6, 3)), 1.5 * (box.y1 - box.y0), presence, points_n2 + noise)


def _part(
    box: Box, label: str, points_n3: NDArray[np.float64], size: float, presence: float, looks_lnd: NDArray[np.float64]
) -> PartDetection:
    return PartDetection(
        box=box,
        label=label,
        points=tuple(map(tuple, points_n3.tolist())),
        size=size,
        presence=(presence,) * len(LOOKS),
        looks=tuple(tuple(map(tuple, look)) for look in looks_lnd.tolist()),
    )
