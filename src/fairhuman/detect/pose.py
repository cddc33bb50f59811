"""Pose of one person with MediaPipe's full pose model."""

from fairhuman.detect.body import BodyFinder
from fairhuman.detect.bundled import BundledModel
from fairhuman.detect.detection import Detection, Picture, box_around, check_picture


class PoseDetector(BundledModel[BodyFinder]):
    """The most prominent person with 33 key points (BlazePose) and their visibility.

    MediaPipe gives no score for the person. The score here is the mean visibility of the key points, so it is lower
    for a person cut off at the hip. The box surrounds all key points, inferred ones included, and is clipped to the
    picture.
    """

    MODEL = "pose"

    def __init__(self, confidence: float = 0.5) -> None:
        super().__init__(BodyFinder, confidence)

    def detect(self, image: Picture) -> list[Detection]:
        """The person in a picture [H, W, 3]: one detection, or none."""
        image = check_picture(image)
        body = self.networks.find(image, self.confidence)
        box = None if body is None else box_around(body.points_n3, float(body.visibility_n.mean()), image)
        if body is None or box is None:
            return []
        return [Detection(box, "person", body.points_n3, body.visibility_n, source=self.source)]
