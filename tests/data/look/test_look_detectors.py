"""Precision and recall: exact on written boxes, None left out, and it runs on real photos and people."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.config import build
from fairhuman.data.look.detectors import Benchmark, PartScore, benchmark_data_set, benchmark_detectors
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.detect.detection import Picture
from fairhuman.detect.settings import DetectSettings
from fairhuman.errors import DataError
from fairhuman.record import Box
from fairhuman.synth.body import Body
from fairhuman.synth.render import render
from helpers.tiny_onnx import save_yolo

FOUND = Box(60, 40, 120, 100)


def settings(folder: Path, part: str = "face") -> DetectSettings:
    """Finds what is bright in red."""
    model = str(save_yolo(folder / "tiny.onnx", "v8", ("face", "person"), size=(320, 480)))
    choice = {"face": None, "hand": None, "person": None} | {part: "onnx"}
    return build(DetectSettings, {**choice, "onnx": {"models": {part: model}}})


def picture(box: Box | None) -> Picture:
    image = np.zeros((320, 480, 3), dtype=np.uint8)
    if box is not None:
        image[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1), 0] = 255
    return image


def of(result: Benchmark, overlap: float, part: str = "face") -> PartScore:
    (score,) = [score for score in result.scores if (score.part, score.overlap) == (part, overlap)]
    return score


def test_counts_are_those_of_the_written_boxes(tmp_path: Path) -> None:
    pictures = [picture(FOUND), picture(FOUND), picture(None), picture(FOUND), picture(FOUND)]
    half = Box(60, 40, 120, 64)  # IoU 0.4
    truth: list[list[Box] | None] = [[FOUND], [half, Box(300, 200, 310, 210)], [FOUND], [], None]
    steps: list[tuple[int, int]] = []
    result = benchmark_detectors(
        pictures, {"face": truth}, settings(tmp_path), progress=lambda done, n: steps.append((done, n))
    )
    strict, loose = of(result, 0.5), of(result, 0.3)
    # Three detections count, that of the last picture does not; four true boxes.
    assert (strict.precision.value, strict.precision.n) == (pytest.approx(1 / 3), 3)
    assert (strict.recall.value, strict.recall.n) == (pytest.approx(1 / 4), 4)
    assert (loose.precision.value, loose.recall.value) == (pytest.approx(2 / 3), pytest.approx(2 / 4))
    assert strict.recall.low < strict.recall.value < strict.recall.high
    assert strict.pictures == 4
    assert strict.detector.startswith("onnx tiny.onnx@")
    assert steps == [(done, 5) for done in range(1, 6)]
    assert not result.failures


def test_a_picture_that_breaks_the_detectors_is_left_out_and_named(tmp_path: Path) -> None:
    pictures = [picture(FOUND), np.zeros((4, 4), dtype=np.uint8), picture(FOUND)]
    result = benchmark_detectors(pictures, {"face": [[FOUND]] * 3}, settings(tmp_path), overlaps=(0.9,))
    assert list(result.failures) == [1]
    assert "must have the shape" in result.failures[1]
    assert (of(result, 0.9).recall.value, of(result, 0.9).recall.n, of(result, 0.9).pictures) == (1.0, 2, 2)


def test_invalid_arguments_are_rejected_before_detectors_open(tmp_path: Path) -> None:
    chosen = settings(tmp_path)
    (tmp_path / "tiny.onnx").unlink()
    with pytest.raises(ValueError, match=r"true_boxes\['face'\] must have one entry per picture \(1\), not 2"):
        benchmark_detectors([picture(None)], {"face": [(), ()]}, chosen)
    with pytest.raises(ValueError, match=r"a part with a detector \(face\), not only hand"):
        benchmark_detectors([picture(None)], {"hand": [()]}, chosen)
    with pytest.raises(ValueError, match=r"overlaps must be in \(0, 1\], not 0"):
        benchmark_detectors([picture(None)], {"face": [()]}, chosen, overlaps=(0,))


def test_a_data_set_is_read_and_its_bad_pictures_are_counted(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    rows = []
    for number in range(8):
        Image.fromarray(picture(FOUND)).save(folder / f"{number}.png")
        rows.append({"file_name": f"{number}.png", "caption": "", "faces": [[60, 40, 120, 100]]})
    (folder / "7.png").write_bytes((folder / "7.png").read_bytes()[:400])
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    report = LoadReport()
    result = benchmark_data_set(folder, settings(tmp_path), report, parts=("face",))
    assert (of(result, 0.5).recall.value, of(result, 0.5).recall.n) == (1.0, 7)
    assert len(report.skipped()) == 1
    assert repr(pickle.loads(pickle.dumps(result))) == repr(result), "NaN is not equal to itself"
    with pytest.raises(DataError, match="hand"):
        benchmark_data_set(folder, settings(tmp_path), LoadReport())


@pytest.mark.slow
def test_on_real_photos_the_vote_finds_more_hands_than_a_plain_pass(shared: Path) -> None:
    result = benchmark_data_set(shared / "data" / "wholebody", DetectSettings(), LoadReport())
    vote, plain = (score for score in result.scores if score.part == "hand" and score.overlap == 0.5)
    assert (vote.recall.n, plain.recall.n, vote.pictures) == (33, 33, 25)
    assert vote.recall.value > plain.recall.value
    assert vote.precision.value >= 0.9
    face = of(result, 0.3)
    assert (face.recall.n, face.pictures) == (22, 18)
    assert face.recall.value > 0.7
    assert not result.failures


@pytest.mark.slow
def test_on_synthetic_people_nearly_all_faces_and_hands_are_found() -> None:
    body = Body()
    people = [render(body, 5, number, 512) for number in range(40)]
    truth = {
        "face": [[person.boxes["face"]] if "face" in person.boxes else [] for person in people],
        "hand": [[person.boxes[n] for n in ("left_hand", "right_hand") if n in person.boxes] for person in people],
    }
    result = benchmark_detectors([person.image for person in people], truth, DetectSettings())
    vote, plain = (score for score in result.scores if score.part == "hand" and score.overlap == 0.5)
    assert of(result, 0.5).recall.value >= 0.95
    assert vote.recall.value >= 0.85
    assert vote.recall.value >= plain.recall.value  # equal here; on photos the vote finds more
    assert vote.precision.value >= 0.9
