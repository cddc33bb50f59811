"""Hands, by MediaPipe's palm detector and its full hand landmark model."""

from fairhuman.detect.bundled import BundledModel, pixel_points
from fairhuman.detect.detection import Detection, Picture, box_around, check_picture

# MediaPipe names the hand of a mirrored picture, as a selfie shows it: turned back here.
LABELS = {"Left": "right hand", "Right": "left hand"}


class HandDetector(BundledModel):
    """Hands with 21 key points: wrist, then four of each finger from the thumb on, root to tip.

    The score is MediaPipe's *handedness* score: how sure the model is that it is a left or a right hand. It is what
    the paper reports as hand confidence, and it says little about how well the hand is drawn. The box is tight
    around the key points: flesh goes beyond it.

    Args:
        confidence: least score of the palm detector, 0..1.
        most: largest number of hands in a picture.

    """

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
                found.append(Detection(box, LABELS[best.label], points_n3))
        return sorted(found, key=lambda hand: -hand.score)
