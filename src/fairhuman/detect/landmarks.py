"""The landmark networks of hands and faces on a region: presence score, key points, and which hand it is.

Sources: MediaPipe's `hand_landmark_cpu.pbtxt` and `face_landmark_cpu.pbtxt` (Apache-2.0,
https://github.com/google-ai-edge/mediapipe/tree/v0.10.21/mediapipe/modules).
"""

import math
from typing import NamedTuple

import numpy as np

from fairhuman.detect.bundled import Array, Network, sigmoid
from fairhuman.detect.detection import Picture
from fairhuman.detect.region import Region, crop

PRESENT = 0.5  # minimum presence score of a hand, a face or a body, as MediaPipe has it
HAND_DEPTH = 0.4  # z of a hand's network is in units of this share of its input's side


class Landmarks(NamedTuple):
    """Landmarks in a crop.

    Attributes:
        presence: score of the hand or face being there, 0..1.
        points_n3: x, y, z in units of the crop's side.
        right: score of its being a right hand in a mirrored picture, 0..1; NaN for a face.
    """

    presence: float
    points_n3: Array
    right: float = math.nan


class HandNetwork:
    """21 landmarks of a hand: the wrist, then four per finger from root to tip, thumb first."""

    def __init__(self) -> None:
        self._network = Network("hand_landmark_full")
        self.side = self._network.side

    def look(self, crop_hw3: Array) -> Landmarks:
        """The landmarks in a crop [side, side, 3] in 0..1; they mean something if the hand is present."""
        points_n, presence_1, side_1, _ = self._network(crop_hw3)
        points_n3 = points_n.reshape(21, 3) / np.float32(self.side)
        points_n3[:, 2] /= np.float32(HAND_DEPTH)
        return Landmarks(float(presence_1[0]), points_n3, float(side_1[0]))

    def find(self, image: Picture, region: Region) -> Landmarks | None:
        """The hand in a region, its points in pixels of the picture; None if there is none."""
        return _in_picture(self.look(crop(image, region, self.side)), region)


class FaceNetwork:
    """468 landmarks of a face."""

    def __init__(self) -> None:
        self._network = Network("face_landmark")
        self.side = self._network.side

    def look(self, crop_hw3: Array) -> Landmarks:
        """The landmarks in a crop [side, side, 3] in 0..1; they mean something if the face is present."""
        points_n, presence_n = self._network(crop_hw3)
        return Landmarks(float(sigmoid(presence_n).item()), points_n.reshape(468, 3) / np.float32(self.side))

    def find(self, image: Picture, region: Region) -> Landmarks | None:
        """The face in a region, its points in pixels of the picture; None if there is none."""
        return _in_picture(self.look(crop(image, region, self.side)), region)


def _in_picture(found: Landmarks, region: Region) -> Landmarks | None:
    return found._replace(points_n3=region.points(found.points_n3)) if found.presence > PRESENT else None
