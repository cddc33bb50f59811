"""The hands and the face of the most prominent person, searched where the pose has them.

Sources: MediaPipe's graphs in `modules/holistic_landmark` (Apache-2.0,
https://github.com/google-ai-edge/mediapipe/tree/v0.10.21/mediapipe/modules/holistic_landmark).
"""

import math

import numpy as np

from fairhuman.detect.anchors import NEAR_FACES, AnchorDetector
from fairhuman.detect.body import Body
from fairhuman.detect.bundled import Array, Network
from fairhuman.detect.detection import Picture
from fairhuman.detect.landmarks import FaceNetwork, HandNetwork
from fairhuman.detect.region import Region, around, around_segment, crop, direction

# BlazePose's key points of each hand: wrist, knuckles of the little and the index finger.
HANDS = {"left hand": (15, 17, 19), "right hand": (16, 18, 20)}
FACE = slice(0, 11)
RIGHT_EYE, LEFT_EYE = 5, 2
VISIBLE = 0.1  # minimum visibility of the wrist of a hand that is searched
FACE_CONFIDENCE = 0.5


class BodyHands:
    """Finds the hands of a body."""

    def __init__(self) -> None:
        self._recrop, self._landmarks = Network("hand_recrop"), HandNetwork()

    def find(self, image: Picture, body: Body) -> dict[str, Array]:
        """`left hand` and `right hand`, those that are found, to 21 points x, y, z in pixels [21, 3]."""
        found = {}
        for label, (wrist, little, index) in HANDS.items():
            if body.visibility_n[wrist] > VISIBLE:
                region = self._region(image, *body.points_n3[[wrist, little, index], :2])
                hand = self._landmarks.find(image, region)
                if hand is not None:
                    found[label] = hand.points_n3
        return found

    def _region(self, image: Picture, wrist_2: Array, little_2: Array, index_2: Array) -> Region:
        """A first region around the knuckles, and from it a better one by a network of its own."""
        middle_2 = np.asarray((2 * index_2 + little_2) / 3, dtype=np.float32)
        size = 2 * float(np.hypot(*(middle_2 - wrist_2)))
        angle = direction(wrist_2, middle_2, math.pi / 2)
        rough = around(float(middle_2[0]), float(middle_2[1]), size, size, angle, scale=2.7, up=0.1)
        side = self._recrop.side
        if rough.side <= 0:
            return rough
        (values_n,) = self._recrop(crop(image, rough, side))
        centre_2, rim_2 = rough.points(values_n.reshape(2, 2) / np.float32(side))
        return around_segment(centre_2, rim_2, -math.pi / 2, scale=1.0, up=0.1)


class BodyFace:
    """Finds the face of a body."""

    def __init__(self) -> None:
        self._detector, self._landmarks = AnchorDetector(NEAR_FACES), FaceNetwork()

    def find(self, image: Picture, body: Body) -> Array | None:
        """468 points x, y, z in pixels [468, 3]; None if there is no face."""
        points_n2 = body.points_n3[FACE, :2]
        angle = direction(points_n2[RIGHT_EYE], points_n2[LEFT_EYE], 0.0)
        near = self._detector.find(image, FACE_CONFIDENCE, _around_points(points_n2, angle, scale=3.0))
        if not near:
            return None
        points_n2 = near[0].points_n2  # the first two are the eyes
        region = _around_points(points_n2, direction(points_n2[0], points_n2[1], 0.0), scale=2.0, up=0.1)
        face = self._landmarks.find(image, region)
        return None if face is None else face.points_n3


def _around_points(points_n2: Array, angle: float, *, scale: float, up: float = 0.0) -> Region:
    """The region around the upright box of points."""
    (x0, y0), (x1, y1) = points_n2.min(axis=0).tolist(), points_n2.max(axis=0).tolist()
    return around((x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, angle, scale=scale, up=up)
