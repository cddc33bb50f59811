"""Settings choose detectors: each part by its own, one file opened once, names known beforehand, all in the guard."""

import pickle
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.config import build
from fairhuman.detect.detection import DetectorError
from fairhuman.detect.guard import Guarded
from fairhuman.detect.settings import DetectSettings, detector_names, open_detectors
from fairhuman.detect.worker import Failure
from fairhuman.errors import RecipeError
from helpers.tiny_onnx import save_pose, save_yolo, save_yolox


def bright(width: int, height: int) -> np.ndarray:
    """Red on the left, green on the right."""
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[height // 4 : height // 2, width // 8 : width // 3, 0] = 255
    image[height // 4 : height // 2, width // 2 : width // 3 * 2, 1] = 255
    return image


def onnx_settings(folder: Path) -> DetectSettings:
    two = save_yolo(folder / "two.onnx", "v8", ("face", "person"))
    hands = save_yolo(folder / "hands.onnx", "end-to-end", ("hand", "face"))
    models = {"face": str(two), "person": str(two), "hand": str(hands)}
    return build(DetectSettings, {"face": "onnx", "hand": "onnx", "person": "onnx", "onnx": {"models": models}})


def test_each_part_comes_from_its_own_model(tmp_path: Path) -> None:
    settings = onnx_settings(tmp_path)
    names = detector_names(settings)
    with open_detectors(settings) as find:
        found = find(bright(480, 320))
    assert {part: [one.label for one in of_part] for part, of_part in found.items()} == {
        "face": ["face"],  # the hands' model knows faces too, but isn't asked for them
        "hand": ["hand"],
        "person": ["person"],
    }
    assert all(one.source == names[part] for part, of_part in found.items() for one in of_part)  # type: ignore[index]
    assert names["face"] == names["person"] != names["hand"]


def test_small_pictures_are_enlarged_and_boxes_come_back_in_their_pixels(tmp_path: Path) -> None:
    settings = onnx_settings(tmp_path)
    with open_detectors(settings) as find, open_detectors(settings.model_copy(update={"upscale": 1})) as as_it_is:
        for finder in (find, as_it_is):
            (face,) = finder(bright(120, 80))["face"]
            assert (face.box.x0, face.box.y0, face.box.x1, face.box.y1) == pytest.approx((15, 20, 40, 40), abs=2.5)


def test_only_configured_parts_are_detected(tmp_path: Path) -> None:
    persons, pose = (
        save_yolox(tmp_path / "p.onnx", channel=2),
        save_pose(tmp_path / "q.onnx", np.full((133, 2), 0.5) + np.eye(133, 2) * 0.1, np.ones(133)),
    )
    settings = build(
        DetectSettings,
        {
            "face": None,
            "hand": None,
            "person": "whole-body",
            "whole_body": {"detector": str(persons), "pose": str(pose)},
        },
    )
    with open_detectors(settings) as find:
        found = find(bright(480, 320))
        with pytest.raises(ValueError, match="uint8"):
            find(np.zeros((8, 8, 3)))  # type: ignore[arg-type]
    assert list(found) == ["person"]
    assert [one.source for one in found["person"]] == [detector_names(settings)["person"]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"face": None, "hand": None, "person": None}, "at least one part needs a detector"),
        ({"hand": "onnx"}, "onnx.models.hand must name a model"),
        ({"person": "whole-body", "whole_body": {"pose": "a.onnx"}}, "whole_body.detector and whole_body.pose"),
        ({"face": "yolo"}, "face"),
        ({"mediapipe": {"hand_votes": 6}}, "mediapipe.hand_votes: .*5.*found 6"),
        ({"mediapipe": {"hand_vote": 2}}, "did you mean 'mediapipe.hand_votes'"),
        ({"onnx": {"models": {"foot": "a.onnx"}}}, "onnx.models.foot"),
        ({"upscale": 0}, "upscale"),
    ],
)
def test_settings_that_make_no_sense_are_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(DetectSettings, values)


def test_a_model_that_is_missing_is_named_by_the_names_and_by_opening(tmp_path: Path) -> None:
    settings = build(
        DetectSettings, {"face": "onnx", "hand": None, "person": None, "onnx": {"models": {"face": "no/such.onnx"}}}
    )
    with pytest.raises(DetectorError, match=r"no/such\.onnx"):
        detector_names(settings)
    with (
        pytest.raises(DetectorError, match=r"a detector can't start: onnx: .*no/such\.onnx"),
        Guarded(partial(open_detectors, settings)),
    ):
        pytest.fail("must not open")


def test_the_bundled_detectors_run_in_the_guard_and_say_their_names(shared: Path) -> None:
    settings = DetectSettings()
    start = pickle.loads(pickle.dumps(partial(open_detectors, settings)))
    with Image.open(shared / "data" / "wholebody" / "images" / "panoptic_ex2_2.flv_000040_l.jpg") as image:
        photo = np.asarray(image.convert("RGB"))
    with Guarded(start) as guarded:
        first, other, again = guarded.call(photo), guarded.call(photo[:, ::-1]), guarded.call(photo)
        assert isinstance(guarded.call(photo[0]), Failure)
    assert not isinstance(first, Failure)
    assert not isinstance(other, Failure)
    assert not isinstance(again, Failure)
    names = detector_names(settings)
    assert {part: {one.source for one in of_part} for part, of_part in first.items()} == {
        "face": {names["face"]},
        "hand": {names["hand"]},
        "person": {names["person"]},
    }
    assert list(names.values()) == [f"mediapipe-0.10.21-litert {model}" for model in ("faces", "hands vote", "person")]
    for part, of_part in first.items():
        assert [one.box for one in of_part] == [one.box for one in again[part]]
