"""What is looked for once: in real pictures, whatever the order, the number of processes and the form it is kept in."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.detect.detection import DetectorError, Picture, inside_any
from fairhuman.detect.guard import in_order
from fairhuman.evaluate.metrics.confidences import IMAGE_DETECTIONS
from fairhuman.evaluate.people.detections import ImageDetections, detect_each
from fairhuman.evaluate.people.looks import FACE_POINTS, LOOKS
from fairhuman.record import Box

NAMES = ("aflw_image04476.jpg", "freihand_00000355.jpg", "onehand10k_784.jpg")


def detect(pictures: Sequence[Picture], **options: int) -> list[ImageDetections]:
    return in_order(detect_each(pictures, **options), len(pictures))


@pytest.fixture(scope="module")
def pictures(shared: Path) -> list[Picture]:
    folder = shared / "data" / "wholebody" / "images"
    photos = [np.asarray(Image.open(folder / name).convert("RGB")) for name in NAMES]
    return [*photos, np.full((64, 64, 3), 90, np.uint8)]


@pytest.fixture(scope="module")
def findings(pictures: list[Picture]) -> list[ImageDetections]:
    return detect(pictures)


def test_faces_and_hands_are_found_where_they_are(findings: list[ImageDetections]) -> None:
    assert [(len(one.faces), len(one.hands)) for one in findings] == [(1, 0), (0, 1), (0, 1), (0, 0)]
    (face,), (small,), (hand,) = findings[0].faces, findings[1].hands, findings[2].hands
    for part, true, points in ((face, Box(119, 130, 206, 254), 6), (small, Box(48, 81, 159, 154), 21),
                               (hand, Box(51, 312, 427, 684), 21)):  # fmt: skip
        assert inside_any(((part.box.x0 + part.box.x1) / 2, (part.box.y0 + part.box.y1) / 2), [true])
        assert len(part.points) == points
        assert len(part.presence) == len(part.looks) == len(LOOKS)
        assert np.mean(part.presence) > 0.9
        width = true.x1 - true.x0
        assert width < part.size < 3.5 * width
        assert inside_any(tuple(np.mean(part.looks, axis=(0, 1))), [true])  # also of the picture that was enlarged
    assert np.shape(face.looks) == (len(LOOKS), len(FACE_POINTS), 2)
    assert face.votes is None
    assert hand.votes is not None


def test_findings_come_back_from_json(findings: list[ImageDetections]) -> None:
    for one in findings:
        text = IMAGE_DETECTIONS.dump_json(one)
        assert IMAGE_DETECTIONS.validate_json(text) == one
        assert set(json.loads(text)) == {"faces", "hands"}


@pytest.mark.slow
def test_order_and_processes_change_nothing(pictures: list[Picture], findings: list[ImageDetections]) -> None:
    turned: Sequence[ImageDetections] = detect(pictures[::-1], workers=2)[::-1]
    assert list(turned) == findings


def test_bad_pictures_are_named() -> None:
    with pytest.raises(DetectorError, match=r"picture 0 of 1 \(the first is 0\): ValueError: image must be uint8"):
        detect([np.zeros((64, 64, 3))])  # type: ignore[list-item]


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="upscale must be at least 1, not 0"):
        detect([], upscale=0)
    assert detect([]) == []
