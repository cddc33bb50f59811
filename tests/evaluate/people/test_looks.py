"""Looks at regions: geometry with known answers, and MediaPipe's models on real hands and faces."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.detect.detection import Detection, Picture
from fairhuman.detect.faces import FaceDetector
from fairhuman.detect.hands import HandDetector
from fairhuman.evaluate.people.looks import (
    FACE_POINTS,
    LOOKS,
    FaceLandmarks,
    HandLandmarks,
    agreement,
    face_region,
    hand_region,
    landmarks_of,
)
from fairhuman.record import Box
from helpers.hands_and_faces import open_hand


@pytest.fixture(scope="module")
def photos(shared: Path) -> dict[str, Picture]:
    folder = shared / "data" / "wholebody"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    return {row["file_name"]: np.asarray(Image.open(folder / row["file_name"]).convert("RGB")) for row in rows}


def _hand(points_n3: np.ndarray) -> Detection:
    return Detection(Box(0, 0, 1, 1, 1.0), "hand", points_n3.astype(np.float32))


def _face(eyes: Sequence[tuple[float, float]]) -> Detection:
    points_n3 = np.zeros((6, 3), np.float32)
    points_n3[:2, :2] = eyes
    return Detection(Box(10, 20, 50, 80, 1.0), "face", points_n3)


def test_a_hand_region_holds_the_hand_upright() -> None:
    region = hand_region(_hand(open_hand()))
    assert abs(region.angle) < 0.2
    assert region.side > 2 * 90
    assert -150 < region.y < -40


@pytest.mark.parametrize("angle", [0.5, 1.6, 3.0, -2.0])
def test_a_turned_hand_has_a_turned_region(angle: float) -> None:
    hand = open_hand()
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])  # clockwise in a picture, where y grows down
    plain, turned = hand_region(_hand(hand)), hand_region(_hand(hand @ matrix.T * 2))
    assert turned.side == pytest.approx(2 * plain.side, rel=1e-4)
    assert np.exp(1j * turned.angle) == pytest.approx(np.exp(1j * (plain.angle + angle)), abs=1e-5)
    assert [turned.x, turned.y] == pytest.approx(2 * matrix[:2, :2] @ [plain.x, plain.y], abs=1e-2)


def test_a_face_region_is_level_with_the_eyes() -> None:
    level = face_region(_face([(20, 40), (40, 40)]))
    assert level == pytest.approx((30, 50, 90, 0))
    assert face_region(_face([(20, 40), (40, 60)])).angle == pytest.approx(np.pi / 4)


def test_landmarks_are_needed() -> None:
    with pytest.raises(ValueError, match="a hand must have landmarks"):
        landmarks_of(Detection(Box(0, 0, 1, 1, 1.0), "hand"))


def test_agreement_of_known_looks() -> None:
    points_lnd = np.zeros((3, 4, 2))
    assert agreement(points_lnd, 10, 0.1) == 1
    points_lnd[2, :, 0] = 1  # one look of three is one spread away from the median
    assert agreement(points_lnd, 10, 0.1) == pytest.approx((2 + np.exp(-0.5)) / 3)
    assert agreement(points_lnd * 7 + 100, 70, 0.1) == pytest.approx(agreement(points_lnd, 10, 0.1))


def test_looks_at_a_real_hand_agree_with_the_detector_and_each_other(photos: dict[str, Picture]) -> None:
    picture = photos["images/onehand10k_1402.jpg"]
    with HandDetector() as detector, HandLandmarks() as model:
        (hand,) = detector.detect(picture)
        region = hand_region(hand)
        looks = model.look(picture, region)
    assert looks.points_lnd.shape == (len(LOOKS), 21, 2)
    assert (looks.presence_l > 0.9).all()
    apart_ln = np.linalg.norm(looks.points_lnd - landmarks_of(hand)[:, :2], axis=2)
    assert (apart_ln.mean(axis=1) < 0.06 * region.side / 2).all()
    assert agreement(looks.points_lnd, region.side / 2, 0.1) > 0.8


def test_looks_at_a_real_face_agree_also_mirrored(photos: dict[str, Picture]) -> None:
    picture = photos["images/aflw_image04476.jpg"]
    with FaceDetector() as detector, FaceLandmarks() as model:
        (face,) = detector.detect(picture)
        looks = model.look(picture, face_region(face))
        nothing = model.look(np.full_like(picture, 127), face_region(face))
    width = face.box.x1 - face.box.x0
    plain, mirrored = (looks.points_lnd[[turn.mirrored for turn in LOOKS].index(value)] for value in (False, True))
    assert len(plain) == len(FACE_POINTS)
    assert np.linalg.norm(plain - mirrored, axis=1).max() < 0.1 * width  # unmapped sides would be half a face apart
    right_eye, left_eye = landmarks_of(face)[:2, :2]
    assert np.linalg.norm(plain[[0, 2]].mean(axis=0) - right_eye) < 0.1 * width
    assert np.linalg.norm(plain[[1, 3]].mean(axis=0) - left_eye) < 0.1 * width
    assert (looks.presence_l > 0.9).all()
    assert (nothing.presence_l < 0.1).all()
