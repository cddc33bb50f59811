"""Hand detection with MediaPipe's palm detector and full hand landmark model."""

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.bundled import BundledModel, pixel_points
from fairhuman.detect.detection import Detection, Picture, box_around, check_picture, clipped_box
from fairhuman.record import Box

# MediaPipe assumes a mirrored picture (a selfie), so left and right are swapped back here.
LABELS = {"Left": "right hand", "Right": "left hand"}
FLESH_MARGIN = 0.1  # how far flesh extends beyond the key points, as a share of the longer side of their box


class HandDetector(BundledModel):
    """Hands with 21 key points: the wrist, then four per finger from root to tip, thumb first.

    The score is MediaPipe's *handedness* score: the confidence that the hand is a left or a right one. The paper
    reports it as hand confidence, but it says little about how well the hand is drawn. The box is tight around the key
    points; flesh extends beyond it.
    """

    MODEL = "hands"

    def __init__(self, confidence: float = 0.5, max_hands: int = 4) -> None:
        if max_hands < 1:
            raise ValueError(f"max_hands must be at least 1, not {max_hands}")
        super().__init__(
            lambda solutions: solutions.hands.Hands(
                static_image_mode=True, max_num_hands=max_hands, model_complexity=1, min_detection_confidence=confidence
            ),
            confidence,
        )

    def detect(self, image: Picture) -> list[Detection]:
        """Hands in a picture [H, W, 3], best first; `left hand` and `right hand` are the person's own."""
        image = check_picture(image)
        result = self._process(image)
        found = []
        for hand, side in zip(result.multi_hand_landmarks or (), result.multi_handedness or (), strict=True):
            points_n3 = pixel_points(hand.landmark, image)
            best = side.classification[0]
            box = box_around(points_n3, min(best.score, 1.0), image)
            if box is not None:
                found.append(Detection(box, LABELS[best.label], points_n3, source=self.source))
        return sorted(found, key=lambda hand: -hand.score)


def box_with_flesh(points_n3: NDArray[np.float32], score: float, image: Picture) -> Box | None:
    """The box around a hand's key points plus `FLESH_MARGIN`, clipped to the picture; None if nothing is left."""
    (x0, y0), (x1, y1) = points_n3[:, :2].min(axis=0).tolist(), points_n3[:, :2].max(axis=0).tolist()
    margin = FLESH_MARGIN * max(x1 - x0, y1 - y0)
    return clipped_box(x0 - margin, y0 - margin, x1 + margin, y1 + margin, score, image)
