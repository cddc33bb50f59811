"""Hands, by MediaPipe's palm detector and its full hand landmark model."""

import numpy as np
from numpy.typing import NDArray

from fairhuman.detect.bundled import BundledModel, pixel_points
from fairhuman.detect.detection import Detection, Picture, box_around, check_picture, clipped_box
from fairhuman.record import Box

# MediaPipe names the hand of a mirrored picture, as a selfie shows it: turned back here.
LABELS = {"Left": "right hand", "Right": "left hand"}
FLESH = 0.1  # of the longer side of the box around a hand's key points: how far flesh goes beyond them


class HandDetector(BundledModel):
    """Hands with 21 key points: wrist, then four of each finger from the thumb on, root to tip.

    The score is MediaPipe's *handedness* score: how sure the model is that it is a left or a right hand. It is what
    the paper reports as hand confidence, and it says little about how well the hand is drawn. The box is tight
    around the key points: flesh goes beyond it.

    Args:
        confidence: least score of the palm detector, 0..1.
        most: largest number of hands in a picture.

    """

    MODEL = "hands"

    def __init__(self, confidence: float = 0.5, most: int = 4) -> None:
        if most < 1:
            raise ValueError(f"most must be at least 1, not {most}")
        super().__init__(
            lambda solutions: solutions.hands.Hands(
                static_image_mode=True, max_num_hands=most, model_complexity=1, min_detection_confidence=confidence
            ),
            confidence,
        )

    def detect(self, image: Picture) -> list[Detection]:
        """Hands in a picture [H, W, 3], best first, labelled `left hand` or `right hand` as the person's own.

        Raises:
            ValueError: the picture isn't RGB, uint8, [H, W, 3].

        """
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


def flesh_box(points_n3: NDArray[np.float32], score: float, image: Picture) -> Box | None:
    """The box around a hand's key points with `FLESH` added all around, within the picture; None if none of it is."""
    (x0, y0), (x1, y1) = points_n3[:, :2].min(axis=0).tolist(), points_n3[:, :2].max(axis=0).tolist()
    edge = FLESH * max(x1 - x0, y1 - y0)
    return clipped_box(x0 - edge, y0 - edge, x1 + edge, y1 + edge, score, image)
