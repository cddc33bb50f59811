"""The bundled detectors: on photos with true boxes, on nothing, on bad input, and how they start and end."""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.detect.detection import Detector, DetectorError, Picture, inside_any
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.hands import HandDetector
from fairhuman.detect.pose import PoseDetector
from fairhuman.detect.rates import DETECTORS, find_parts
from fairhuman.record import Box
from fairhuman.synth.body import Body
from fairhuman.synth.render import render

Photo = tuple[Picture, dict[str, list[Box]], list[str | None]]


@pytest.fixture(scope="module")
def photos(shared: Path) -> dict[str, Photo]:
    """Name to picture, true boxes of face and hand, and the side of each hand where it is known."""
    folder = shared / "data" / "wholebody"
    if not folder.is_dir():
        pytest.skip(f"needs the photos in {folder}")
    found = {}
    for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        with Image.open(folder / row["file_name"]) as image:
            picture = np.asarray(image.convert("RGB"))
        boxes = {
            part: [Box(*box) for box in row[column] or ()] for part, column in (("face", "faces"), ("hand", "hands"))
        }
        found[row["file_name"]] = picture, boxes, [info.get("side") for info in row.get("hands_info") or ()]
    return found


@pytest.fixture(scope="module")
def faces() -> Iterator[FaceDetector]:
    with FaceDetector() as detector:
        yield detector


@pytest.fixture(scope="module")
def hands() -> Iterator[HandDetector]:
    with HandDetector() as detector:
        yield detector


@pytest.fixture(scope="module")
def pose() -> Iterator[PoseDetector]:
    with PoseDetector() as detector:
        yield detector


def test_faces_are_found_where_they_are(photos: dict[str, Photo], faces: FaceDetector) -> None:
    closeups = [(p, boxes["face"]) for name, (p, boxes, _) in photos.items() if boxes["face"] and "wflw" not in name]
    found = [(faces.detect(picture), boxes) for picture, boxes in closeups]
    assert len(closeups) == 15
    assert sum(bool(detections) for detections, _ in found) >= 11
    assert all(inside_any(face.centre, boxes) for detections, boxes in found for face in detections)
    assert all(0.5 <= face.score <= 1 and face.label == "face" for detections, _ in found for face in detections)


def test_face_points_are_where_a_face_has_them(photos: dict[str, Photo], faces: FaceDetector) -> None:
    picture = photos["images/aflw_image04476.jpg"][0]
    (face,) = faces.detect(picture)
    assert face.landmarks_n3 is not None
    assert face.landmarks_n3.shape == (6, 3)
    right_eye, left_eye, nose, mouth, right_ear, left_ear = face.landmarks_n3
    assert right_eye[0] < left_eye[0]
    assert right_ear[0] < left_ear[0]
    assert max(right_eye[1], left_eye[1]) < nose[1] < mouth[1]
    for x, y, z in (right_eye, left_eye, nose, mouth):
        assert inside_any((x, y), [face.box])
        assert z == 0


def test_hands_are_found_where_they_are(photos: dict[str, Photo], hands: HandDetector) -> None:
    annotated = [(picture, boxes["hand"]) for picture, boxes, _ in photos.values() if boxes["hand"]]
    found = [(hands.detect(picture), boxes) for picture, boxes in annotated]
    assert len(annotated) == 25
    assert sum(bool(detections) for detections, _ in found) >= 14
    assert all(inside_any(hand.centre, boxes) for detections, boxes in found for hand in detections)
    for hand in (hand for detections, _ in found for hand in detections):
        assert hand.landmarks_n3 is not None
        assert (hand.landmarks_n3.shape, hand.landmarks_n3.dtype) == ((21, 3), np.float32)
        assert 0.5 <= hand.score <= 1


def test_a_hand_s_side_is_the_person_s_own(photos: dict[str, Photo], hands: HandDetector) -> None:
    sides = {name: sides[0] for name, (_, _, sides) in photos.items() if "rhd" in name}
    assert set(sides.values()) == {"left", "right"}
    for name, side in sides.items():
        (hand,) = hands.detect(photos[name][0])
        assert hand.label == f"{side} hand"
        mirrored, *_ = hands.detect(photos[name][0][:, ::-1])  # not contiguous in memory either
        assert mirrored.label != hand.label


def test_a_pose_is_found_where_a_person_is(photos: dict[str, Photo], pose: PoseDetector) -> None:
    (person,) = pose.detect(photos["images/coco_000000000785.jpg"][0])  # a skier, upright, whole
    assert person.landmarks_n3 is not None
    assert person.visibility_n is not None
    assert person.landmarks_n3.shape == (33, 3)
    assert person.visibility_n.shape == (33,)
    assert person.score == pytest.approx(float(person.visibility_n.mean()))
    nose, left_hip, left_ankle = person.landmarks_n3[[0, 23, 27], 1]
    assert nose < left_hip < left_ankle
    face = photos["images/coco_000000000785.jpg"][1]["face"]
    assert inside_any((float(person.landmarks_n3[0, 0]), float(person.landmarks_n3[0, 1])), face)


def check_order(some: list[Picture], detectors: Sequence[Detector]) -> None:
    """Results don't depend on the pictures before, and all boxes lie inside their picture."""
    for detector in detectors:
        forwards = [[found.box for found in detector.detect(picture)] for picture in some]
        backwards = [[found.box for found in detector.detect(picture)] for picture in reversed(some)]
        assert forwards == backwards[::-1]
        assert any(forwards)
        for picture, boxes in zip(some, forwards, strict=True):
            height, width = picture.shape[:2]
            assert all(0 <= box.x0 < box.x1 <= width and 0 <= box.y0 < box.y1 <= height for box in boxes)


def test_results_do_not_depend_on_the_order_of_photos(
    photos: dict[str, Photo], faces: FaceDetector, hands: HandDetector, pose: PoseDetector
) -> None:
    check_order([photo[0] for photo in list(photos.values())[::5]], (faces, hands, pose))


def test_results_do_not_depend_on_the_order_of_rendered_people(
    body: Body, faces: FaceDetector, hands: HandDetector, pose: PoseDetector
) -> None:
    """Photos are not part of the repository; rendered people are there in every checkout."""
    check_order([render(body, 0, number, 384).image for number in range(4)], (faces, hands, pose))


def test_processes_do_not_change_what_is_found(photos: dict[str, Photo]) -> None:
    some = [photo[0] for photo in list(photos.values())[10:17]]
    one, two = (find_parts(some, workers=workers) for workers in (1, 2))
    for first, second in zip(one, two, strict=True):
        assert first.keys() == second.keys() == {"face", "hand", "pose"}
        assert all([f.box for f in first[part]] == [s.box for s in second[part]] for part in first)
    assert sum(len(found["hand"]) for found in one) >= 3


@pytest.mark.parametrize("size", [(1, 1), (512, 512), (3, 3000)])
@pytest.mark.parametrize("brightness", [0, 255])
def test_nothing_is_found_in_a_blank_picture(
    size: tuple[int, int], brightness: int, faces: FaceDetector, hands: HandDetector, pose: PoseDetector
) -> None:
    blank = np.full((*size, 3), brightness, dtype=np.uint8)
    assert [detector.detect(blank) for detector in (faces, hands, pose)] == [[], [], []]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((8, 8, 3), dtype=np.float32), r"uint8 \(0\.\.255\), not float32"),
        (np.zeros((8, 8), dtype=np.uint8), r"\[height, width, 3\].*\[8, 8\]"),
        (np.zeros((8, 8, 4), dtype=np.uint8), r"\[height, width, 3\].*\[8, 8, 4\]"),
        (np.zeros((3, 8, 8), dtype=np.uint8), r"\[height, width, 3\].*\[3, 8, 8\]"),
        (np.zeros((0, 8, 3), dtype=np.uint8), r"not empty, but has \[0, 8, 3\]"),
        ([[[0, 0, 0]]], "numpy array, not list"),
    ],
)
def test_what_is_not_a_picture_is_refused(
    image: object, message: str, faces: FaceDetector, hands: HandDetector, pose: PoseDetector
) -> None:
    for detector in (faces, hands, pose):
        with pytest.raises(ValueError, match=message):
            detector.detect(image)  # type: ignore[arg-type]


@pytest.mark.parametrize("part", DETECTORS)
def test_a_closed_detector_says_so_and_may_be_closed_again(part: str) -> None:
    with DETECTORS[part]() as detector:
        pass
    with pytest.raises(ValueError, match="is closed"):
        detector.detect(np.zeros((8, 8, 3), dtype=np.uint8))
    detector.close()  # type: ignore[attr-defined]


def test_settings_out_of_range_are_refused() -> None:
    for detector in (FaceDetector, HandDetector, PoseDetector):
        with pytest.raises(ValueError, match=r"confidence must be in 0\.\.1, not 1\.5"):
            detector(confidence=1.5)
    with pytest.raises(ValueError, match="max_hands must be at least 1, not 0"):
        HandDetector(max_hands=0)


@pytest.mark.parametrize("missing", ["ai_edge_litert.interpreter", "cv2"])
def test_without_a_package_the_detectors_import_and_say_what_to_install(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = "{'ai_edge_litert', 'cv2', 'mediapipe', 'torch'}"
    imported = f"import sys, fairhuman.detect.rates; assert not {heavy} & sys.modules.keys(), sys.modules.keys()"
    subprocess.run([sys.executable, "-c", imported], check=True)
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(DetectorError, match=r"pip install 'fairhuman\[detect\]'"):
        FaceDetector()
