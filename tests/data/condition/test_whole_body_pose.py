"""Poses by a whole-body detector: its persons' 133 points, in OpenPose's order."""

import numpy as np

from fairhuman.data.condition.people import BODY_POINTS
from fairhuman.data.condition.whole_body import WholeBodyPose
from fairhuman.detect.detection import Detection, Picture, check_picture
from fairhuman.record import Box


class Crowd:
    """Two people with hands, as a whole-body detector gives them: x is a point's number, y the person's."""

    def detect(self, image: Picture) -> list[Detection]:
        height, width = check_picture(image).shape[:2]
        found = []
        for person in (0, 1):
            points = np.array([(number, person, 0) for number in range(133)], np.float32)
            scores = np.full(133, 0.75 - person / 4, np.float32)
            box = Box(0, 0, width, height, 0.5)
            found.append(Detection(box, "person", points, scores))
            found.append(Detection(box, "left hand", points[91:112], scores[91:112]))
        return found

    def __enter__(self) -> "Crowd":
        return self

    def __exit__(self, *_: object) -> None:
        pass


def test_every_person_has_its_points_and_scores() -> None:
    estimate = WholeBodyPose(Crowd(), "crowd 1.0")
    people = estimate(np.zeros((8, 8, 3), np.uint8))
    assert estimate.source == "crowd 1.0"
    assert len(people) == 2
    for number, person in enumerate(people):
        assert person.body[BODY_POINTS.index("nose")].tolist() == [0, number, 0.75 - number / 4]
        assert person.face[:, 0].tolist() == list(range(23, 91))
        assert person.hands[..., 0].tolist() == [list(range(91, 112)), list(range(112, 133))]
        assert set(person.hands[..., 1].ravel().tolist()) == {number}
