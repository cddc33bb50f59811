"""Whole-body pose through rtmlib on tiny real models: parts from key points, boxes in pixels of the picture."""

from pathlib import Path

import numpy as np
import pytest

from fairhuman.detect.detection import Detection, DetectorError, Picture
from fairhuman.detect.model_file import hashed_file_name
from fairhuman.detect.whole_body import WholeBodyDetector
from helpers.tiny_onnx import save_pose, save_raw_yolox, save_yolox

FACE, LEFT, RIGHT = slice(23, 91), slice(91, 112), slice(112, 133)


def body() -> np.ndarray:
    """Key points in shares of the pose model's input: the face above, a hand on each side."""
    points = np.full((133, 2), 0.5)
    corners = np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    for where, (x, y) in ((FACE, (0.4, 0.2)), (LEFT, (0.7, 0.5)), (RIGHT, (0.2, 0.5))):
        count = where.stop - where.start
        points[where] = np.array([x, y]) + 0.1 * corners[np.arange(count) % 4]
    return points


def scene(width: int, height: int, box: tuple[int, int, int, int], channel: int = 0) -> Picture:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[box[1] : box[3], box[0] : box[2], channel] = 255
    return image


def detect(folder: Path, scores: np.ndarray, image: Picture, confidence: float = 0.3) -> dict[str, Detection]:
    # What is red in RGB is blue, the last channel, in BGR: the person detector gets BGR.
    persons, pose = save_yolox(folder / "persons.onnx", channel=2), save_pose(folder / "pose.onnx", body(), scores)
    with WholeBodyDetector(str(persons), str(pose), confidence) as detector:
        found = detector.detect(image)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    assert all(one.source.startswith("rtmlib-") and hashed_file_name(pose) in one.source for one in found)
    return {one.label: one for one in found}


@pytest.mark.parametrize(("width", "height", "box"), [(64, 64, (20, 8, 44, 56)), (640, 320, (100, 40, 220, 280))])
def test_parts_lie_where_the_pose_puts_them(
    width: int, height: int, box: tuple[int, int, int, int], tmp_path: Path
) -> None:
    found = detect(tmp_path, np.full(133, 0.9), scene(width, height, box))
    assert set(found) == {"person", "face", "left hand", "right hand"}
    pixel = max(width, height) / 64
    x0, y0, x1, y1 = box
    person = found["person"].box
    assert (person.x0, person.y0, person.x1, person.y1) == pytest.approx(box, abs=1.5 * pixel)
    # RTMPose looks at the box 1.25 times as large, made as wide as 3 through 4 of its height.
    tall = 1.25 * max(y1 - y0, (x1 - x0) * 4 / 3)
    left, top, wide = (x0 + x1) / 2 - tall * 3 / 8, (y0 + y1) / 2 - tall / 2, tall * 3 / 4
    for label, (x, y), edge in (
        ("face", (0.4, 0.2), 0.0),
        ("left hand", (0.7, 0.5), 0.1),
        ("right hand", (0.2, 0.5), 0.1),
    ):
        one = found[label]
        beyond = edge * 0.1 * tall
        expected = (
            max(left + x * wide - beyond, 0),
            top + y * tall - beyond,
            left + (x + 0.1) * wide + beyond,
            top + (y + 0.1) * tall + beyond,
        )
        assert (one.box.x0, one.box.y0, one.box.x1, one.box.y1) == pytest.approx(expected, abs=2.5 * pixel)
        assert one.score == pytest.approx(0.9)
    assert [len(found[label].landmarks_n3) for label in ("person", "face", "left hand")] == [133, 68, 21]  # type: ignore[arg-type]
    assert found["face"].visibility_n is not None


def test_low_score_parts_and_points_are_left_out(tmp_path: Path) -> None:
    scores = np.full(133, 0.9)
    scores[LEFT] = 0.2
    scores[RIGHT.start : RIGHT.start + 12 : 4] = 0.0  # rtmlib puts points without a score outside of the picture
    scores[FACE] = 3.0  # SimCC's scores aren't probabilities
    found = detect(tmp_path, scores, scene(64, 64, (20, 8, 44, 56)))
    assert set(found) == {"person", "face", "right hand"}
    assert found["face"].score == 1.0
    assert found["right hand"].box.x0 > 8
    assert set(detect(tmp_path, scores * 0, scene(64, 64, (20, 8, 44, 56)), confidence=0.0)) == {"person"}


def test_the_pose_model_is_given_rgb(tmp_path: Path) -> None:
    found = detect(tmp_path, np.full(133, 0.9), scene(64, 64, (20, 8, 44, 56)))
    assert found["person"].score == pytest.approx(0.9)  # halved where its middle isn't red
    persons, pose = tmp_path / "persons.onnx", tmp_path / "pose.onnx"
    save_yolox(persons, channel=0)
    with WholeBodyDetector(str(persons), str(pose)) as detector:
        scores = {one.label: one.score for one in detector.detect(scene(64, 64, (20, 8, 44, 56), channel=2))}
    assert scores["person"] == pytest.approx(0.45)


def test_only_the_person_class_of_yolox_is_used(tmp_path: Path) -> None:
    persons, pose = tmp_path / "persons.onnx", save_pose(tmp_path / "pose.onnx", body(), np.full(133, 0.9))
    image = scene(128, 128, (20, 8, 60, 88))
    boxes = {}
    for number in (0, 1):
        save_raw_yolox(persons, classes=3, found=number, channel=2)
        with WholeBodyDetector(str(persons), str(pose)) as detector:
            boxes[number] = [one.box for one in detector.detect(image) if one.label == "person"]
    assert boxes[1] == []
    (person,) = boxes[0]
    assert (person.x0, person.y0, person.x1, person.y1) == pytest.approx((20, 8, 60, 88), abs=3)


def test_no_person_gives_no_pose(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert detect(tmp_path, np.full(133, 0.9), np.zeros((40, 30, 3), dtype=np.uint8)) == {}
    assert capfd.readouterr().out == ""


def test_models_of_other_kinds_are_rejected(tmp_path: Path) -> None:
    persons, pose = tmp_path / "persons.onnx", tmp_path / "pose.onnx"
    save_yolox(persons)
    save_pose(pose, body()[:17], np.ones(17))
    with pytest.raises(DetectorError, match=r"pose\.onnx: expected two SimCC outputs \[1, 133, bins\]; has images"):
        WholeBodyDetector(str(persons), str(pose))
    with pytest.raises(DetectorError, match=r"pose\.onnx: expected two SimCC outputs"):
        WholeBodyDetector(str(persons), str(save_yolox(pose)))
    with pytest.raises(DetectorError, match=r"pose\.onnx: expected YOLOX: an output \[1, N, 5\]"):
        WholeBodyDetector(str(save_pose(pose, body(), np.ones(133))), str(pose))
    with pytest.raises(DetectorError, match=r"nowhere\.onnx: expected an ONNX file"):
        WholeBodyDetector(str(persons), str(tmp_path / "nowhere.onnx"))
    (tmp_path / "broken.onnx").write_bytes(b"\x00\x01")
    with pytest.raises(DetectorError, match=r"broken\.onnx: not a valid ONNX model"):
        WholeBodyDetector(str(tmp_path / "broken.onnx"), str(persons))
    with pytest.raises(ValueError, match=r"confidence must be in 0\.\.1, not 2"):
        WholeBodyDetector(str(persons), str(persons), confidence=2)


def test_bad_input_is_refused_and_closing_twice_is_fine(tmp_path: Path) -> None:
    persons, pose = save_yolox(tmp_path / "p.onnx"), save_pose(tmp_path / "q.onnx", body(), np.ones(133))
    with WholeBodyDetector(str(persons), str(pose)) as detector, pytest.raises(ValueError, match="uint8"):
        detector.detect(np.zeros((8, 8), dtype=np.float32))  # type: ignore[arg-type]
    detector.close()
    with pytest.raises(ValueError, match="WholeBodyDetector is closed"):
        detector.detect(np.zeros((8, 8, 3), dtype=np.uint8))
