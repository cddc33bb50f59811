"""Poses of pictures without one, by MediaPipe Holistic: body, hands and face of one person."""

import numpy as np

from fairhuman.data.condition.people import PersonPose, Points, person_from_mediapipe
from fairhuman.detect.bundled import BundledModel, pixel_points
from fairhuman.detect.detection import Picture, check_picture


class HolisticPose(BundledModel):
    """The most prominent person in a picture, with hands and face where they are found.

    Body points have MediaPipe's visibility as score. MediaPipe gives no score for points of hands and face: theirs is 1
    where the hand or the face was found. The class is its own `start` for a guarded process.

    Args:
        confidence: least score of MediaPipe's person detector, 0..1.

    """

    MODEL = "holistic"

    def __init__(self, confidence: float = 0.5) -> None:
        super().__init__(
            lambda solutions: solutions.holistic.Holistic(
                static_image_mode=True, model_complexity=1, min_detection_confidence=confidence
            ),
            confidence,
        )

    def __call__(self, image: Picture) -> list[PersonPose]:
        """The person in an upright RGB picture [H, W, 3], uint8: one, or none.

        Raises:
            ValueError: the picture has another type or shape.

        """
        image = check_picture(image)
        found = self._process(image)
        if found.pose_landmarks is None:
            return []
        body_n3 = pixel_points(found.pose_landmarks.landmark, image)
        body_n3[:, 2] = [point.visibility for point in found.pose_landmarks.landmark]
        hands_and_face = (found.left_hand_landmarks, found.right_hand_landmarks, found.face_landmarks)
        return [person_from_mediapipe(body_n3, *(_sure_points(part, image) for part in hands_and_face))]


def _sure_points(part: object, image: Picture) -> Points | None:
    if part is None:
        return None
    points_n3 = pixel_points(part.landmark, image)  # type: ignore[attr-defined]
    points_n3[:, 2] = np.float32(1)
    return points_n3
