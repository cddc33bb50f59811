"""Pose estimation of one person: body, hands and face, as MediaPipe Holistic does it."""

from typing import NamedTuple

import numpy as np

from fairhuman.data.condition.people import PersonPose, Points, person_from_mediapipe
from fairhuman.detect.body import BodyFinder
from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Picture, check_picture
from fairhuman.detect.holistic import BodyFace, BodyHands


class HolisticNetworks(NamedTuple):
    """What finds the parts of a person."""

    bodies: BodyFinder
    hands: BodyHands
    face: BodyFace


class HolisticPose(BundledModel[HolisticNetworks]):
    """The pose of the most prominent person, with hands and face if they are found.

    The score of a body point is MediaPipe's visibility. MediaPipe gives no score for points of hands and face, so they
    have score 1 if the hand or face was found. The class itself can be the `start` of a guarded process.
    """

    MODEL = "holistic"

    def __init__(self) -> None:
        super().__init__(lambda: HolisticNetworks(BodyFinder(), BodyHands(), BodyFace()))

    def __call__(self, image: Picture) -> list[PersonPose]:
        """The person in an upright RGB picture [H, W, 3], uint8: a list of one, or empty."""
        image = check_picture(image)
        body = self.networks.bodies.find(image)
        if body is None:
            return []
        hands = self.networks.hands.find(image, body)
        parts = hands.get("left hand"), hands.get("right hand"), self.networks.face.find(image, body)
        body_n3 = np.concatenate([body.points_n3[:, :2], body.visibility_n[:, None]], axis=1)
        return [person_from_mediapipe(body_n3, *map(_with_score_1, parts))]


def _with_score_1(points_n3: Points | None) -> Points | None:
    if points_n3 is None:
        return None
    scored_n3 = points_n3.copy()
    scored_n3[:, 2] = np.float32(1)
    return scored_n3
