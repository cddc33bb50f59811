"""Pose estimation with MediaPipe Holistic: body, hands and face of one person."""

import numpy as np

from fairhuman.data.condition.people import PersonPose, Points, person_from_mediapipe
from fairhuman.detect.bundled import pixel_points
from fairhuman.detect.detection import Picture, check_picture
from fairhuman.detect.hand_vote import HolisticModel


class HolisticPose(HolisticModel):
    """The pose of the most prominent person, with hands and face if they are found.

    The score of a body point is MediaPipe's visibility. MediaPipe gives no score for points of hands and face, so they
    have score 1 if the hand or face was found. The class itself can be the `start` of a guarded process.
    """

    def __call__(self, image: Picture) -> list[PersonPose]:
        """The person in an upright RGB picture [H, W, 3], uint8: a list of one, or empty."""
        image = check_picture(image)
        found = self._process(image)
        if found.pose_landmarks is None:
            return []
        body_n3 = pixel_points(found.pose_landmarks.landmark, image)
        body_n3[:, 2] = [point.visibility for point in found.pose_landmarks.landmark]
        hands_and_face = (found.left_hand_landmarks, found.right_hand_landmarks, found.face_landmarks)
        return [person_from_mediapipe(body_n3, *(_points_with_score_1(part, image) for part in hands_and_face))]


def _points_with_score_1(part: object, image: Picture) -> Points | None:
    if part is None:
        return None
    points_n3 = pixel_points(part.landmark, image)  # type: ignore[attr-defined]
    points_n3[:, 2] = np.float32(1)
    return points_n3
