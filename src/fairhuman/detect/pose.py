"""Pose of one person with MediaPipe's full pose model (its wheel lacks the lite and the heavy model)."""

import numpy as np

from fairhuman.detect.bundled import BundledModel, pixel_points
from fairhuman.detect.detection import Detection, Picture, box_around, check_picture


class PoseDetector(BundledModel):
    """The most prominent person with 33 key points (BlazePose) and their visibility.

    MediaPipe gives no score for the person. The score here is the mean visibility of the key points, so it is lower
    for a person cut off at the hip. The box surrounds all key points, inferred ones included, and is clipped to the
    picture.
    """

    MODEL = "pose"

    def __init__(self, confidence: float = 0.5) -> None:
        super().__init__(
            lambda solutions: solutions.pose.Pose(
                static_image_mode=True, model_complexity=1, min_detection_confidence=confidence
            ),
            confidence,
        )

    def detect(self, image: Picture) -> list[Detection]:
        """The person in a picture [H, W, 3]: one detection, or none."""
        image = check_picture(image)
        landmarks = self._process(image).pose_landmarks
        if landmarks is None:
            return []
        points_n3 = pixel_points(landmarks.landmark, image)
        visibility_n = np.array([point.visibility for point in landmarks.landmark], dtype=np.float32)
        box = box_around(points_n3, float(visibility_n.mean()), image)
        return [] if box is None else [Detection(box, "person", points_n3, visibility_n, source=self.source)]
