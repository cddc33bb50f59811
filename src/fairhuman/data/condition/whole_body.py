"""Pose estimation with a whole-body detector (RTMW, DWPose): everybody, with hands and face."""

import numpy as np

from fairhuman.data.condition.people import PersonPose, person_from_whole_body
from fairhuman.detect.detection import Detector, Picture


class WholeBodyPose:
    """Poses from a detector with COCO-WholeBody's 133 key points, best first, with the detector's scores."""

    def __init__(self, detector: Detector, source: str) -> None:
        self._detector = detector
        self.source = source

    def __call__(self, image: Picture) -> list[PersonPose]:
        """People in an upright RGB picture [H, W, 3], uint8."""
        return [
            person_from_whole_body(np.column_stack([found.landmarks_n3[:, :2], found.visibility_n]))
            for found in self._detector.detect(image)
            if found.label == "person" and found.landmarks_n3 is not None and found.visibility_n is not None
        ]
