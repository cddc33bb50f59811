"""YOLO-style models: every layout gives the box of the bright thing, in pixels of the picture; errors name the file."""

import subprocess
import sys
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import onnx
import onnxruntime
import pytest

from fairhuman.detect.detection import DetectorError, Picture
from fairhuman.detect.model_file import find_model, hashed_file_name, open_session
from fairhuman.detect.onnx import OnnxDetector, letterbox
from fairhuman.record import Box
from fairhuman.utils.digest import file_digest
from helpers.damage import flip
from helpers.tiny_onnx import Graph, save_yolo

LAYOUTS = ("v8", "v5", "end-to-end")
BOTH = ("face", "hand")


def picture(width: int, height: int, red: Box | None = None, green: Box | None = None) -> Picture:
    image = np.zeros((height, width, 3), dtype=np.uint8)
    for channel, box in enumerate((red, green)):
        if box is not None:
            image[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1), channel] = 255
    return image


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("width", "height"), [(96, 64), (480, 320), (300, 600), (700, 100), (30, 20)])
def test_every_layout_gives_the_box_in_pixels_of_the_picture(
    layout: str, width: int, height: int, tmp_path: Path
) -> None:
    model = save_yolo(tmp_path / "tiny.onnx", layout, ("Human_Face", "hand", "dog"))
    red = Box(round(width * 0.2), round(height * 0.25), round(width * 0.45), round(height * 0.5))
    green = Box(round(width * 0.6), round(height * 0.5), round(width * 0.9), round(height * 0.95))
    with OnnxDetector(str(model), BOTH) as detector:
        found = detector.detect(picture(width, height, red, green))
    pixel = max(width / 96, height / 64)  # of the model's input, in pixels of the picture
    assert [one.label for one in found] == ["face", "hand"]  # each of them once, though the model gives it twice
    for one, truth in zip(found, (red, green), strict=True):
        assert one.score == pytest.approx(0.8, abs=1e-6)
        assert one.source == f"onnx {hashed_file_name(model)}"
        sides = (one.box.x0, one.box.y0, one.box.x1, one.box.y1)
        assert sides == pytest.approx((truth.x0, truth.y0, truth.x1, truth.y1), abs=1.5 * pixel)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_box_is_exact_where_nothing_is_scaled(layout: str, tmp_path: Path) -> None:
    model = save_yolo(tmp_path / "tiny.onnx", layout, ("hand", "face"))
    with OnnxDetector(str(model), ("hand",)) as detector:
        (hand,) = detector.detect(picture(96, 64, Box(10, 20, 30, 50), Box(50, 5, 60, 15)))
    assert (hand.box.x0, hand.box.y0, hand.box.x1, hand.box.y1) == pytest.approx((10, 20, 30, 50), abs=1e-4)


def test_to_original_inverts_the_letterbox() -> None:
    generator = np.random.default_rng(0)
    for _ in range(50):
        height, width = (int(side) for side in generator.integers(1, 900, 2))
        fitted = letterbox(np.zeros((height, width, 3), dtype=np.uint8), 64, 96)
        assert fitted.picture.shape == (64, 96, 3)
        inside = np.argwhere((fitted.picture == 0).all(axis=2))
        (top, left), (bottom, right) = inside.min(axis=0), inside.max(axis=0) + 1
        back = fitted.to_original(np.array([[left, top, right, bottom]], dtype=np.float32))
        assert back[0] == pytest.approx([0, 0, width, height])


def test_overlap_and_confidence_decide_what_is_kept(tmp_path: Path) -> None:
    model = str(save_yolo(tmp_path / "tiny.onnx", "v8", ("hand", "face")))
    image = picture(96, 64, Box(10, 20, 30, 50))  # the double is shifted by a pixel: IoU 0.905
    for overlap, confidence, count in ((0.5, 0.5, 1), (0.95, 0.5, 2), (0.95, 0.75, 1), (0.95, 0.85, 0)):
        with OnnxDetector(model, BOTH, overlap=overlap, confidence=confidence) as detector:
            assert len(detector.detect(image)) == count
    with OnnxDetector(model, BOTH, confidence=0.0) as detector:
        assert detector.detect(picture(96, 64)) == []  # rows of zeros are nothing


def test_one_class_v5_is_distinguished_from_end_to_end(tmp_path: Path) -> None:
    model = save_yolo(tmp_path / "tiny.onnx", "v5", ("hand",), rows=1008)
    with OnnxDetector(str(model), ("hand",)) as detector:
        (hand,) = detector.detect(picture(96, 64, Box(10, 20, 30, 50)))
    assert hand.box.x0 == pytest.approx(10, abs=1e-4)


def test_pose_models_serve_as_box_models_and_sizes_may_be_free(tmp_path: Path) -> None:
    model = save_yolo(tmp_path / "tiny.onnx", "v8", ("face",), task="pose", size=("height", "width"))
    with OnnxDetector(str(model), ("face",)) as detector:
        (face,) = detector.detect(picture(1280, 640, Box(100, 200, 300, 500)))
    assert (face.box.x0, face.box.y1) == pytest.approx((100, 500), abs=3)


def test_names_can_be_given_and_are_needed(tmp_path: Path) -> None:
    model = str(save_yolo(tmp_path / "tiny.onnx", "v8", None))
    with pytest.raises(
        DetectorError, match=r"tiny\.onnx: the metadata must hold the class names .*found task; give the names"
    ):
        OnnxDetector(model, BOTH)
    with OnnxDetector(model, BOTH, names=("left_hand", "cat")) as detector:
        (hand,) = detector.detect(picture(96, 64, Box(10, 20, 30, 50), Box(50, 5, 60, 15)))
    assert hand.label == "left hand"
    with pytest.raises(DetectorError, match=r"no class for face, hand, only dog, cat"):
        OnnxDetector(model, BOTH, names=("dog", "cat"))


def test_models_of_other_kinds_are_rejected_with_their_signature(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match=r"nowhere\.onnx: expected an ONNX file"):
        OnnxDetector(str(tmp_path / "nowhere.onnx"), BOTH)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"\x00\x01not a model")
    with pytest.raises(DetectorError, match=r"broken\.onnx: not a valid ONNX model"):
        OnnxDetector(str(broken), BOTH)
    other = save_yolo(tmp_path / "other.onnx", "v8", ("hand", "face"))
    with pytest.raises(
        DetectorError,
        match=r"other\.onnx: .*images float \[1, 3, 64, 96\].*first output is \[1, 6, 40\] with 3 classes",
    ):
        OnnxDetector(str(other), BOTH, names=("hand", "face", "dog"))
    grey = tmp_path / "grey.onnx"
    graph = Graph()
    graph.save(grey, [1, 1, 64, 64], [graph.add("Identity", "images")], {"names": "['hand']"}, rank=4)
    with pytest.raises(DetectorError, match=r"grey\.onnx: expected one input \[1, 3, height, width\]"):
        OnnxDetector(str(grey), BOTH)
    logits = save_yolo(tmp_path / "logits.onnx", "v8", ("hand", "face"), score_scale=9.0)
    with OnnxDetector(str(logits), BOTH) as detector, pytest.raises(DetectorError, match=r"scores must be in 0\.\.1"):
        detector.detect(picture(96, 64, Box(10, 20, 30, 50)))


def test_boxes_with_nan_are_ignored(tmp_path: Path) -> None:
    rows = np.zeros((1, 20, 6), dtype=np.float32)
    rows[0, 0] = [1, 2, np.nan, 8, 0.9, 0]
    rows[0, 1] = [1, 2, 9, np.inf, 0.9, 0]
    rows[0, 2] = [1, 2, 9, 8, np.nan, 0]
    rows[0, 3] = [1, 2, 9, 8, 0.9, np.nan]
    rows[0, 4] = [9, 8, 1, 2, 0.9, 1]  # inverted
    rows[0, 5] = [300, 300, 400, 400, 0.9, 1]  # outside
    rows[0, 6] = [1, 2, 9, 8, 0.9, 77]
    graph = Graph()
    nothing = graph.add("Mul", graph.add("ReduceSum", "images", keepdims=0), graph.constant(0.0))
    output = graph.add("Add", nothing, graph.constant(rows))
    graph.save(tmp_path / "odd.onnx", [1, 3, 64, 64], [output], {"names": "['hand', 'face']"})
    with OnnxDetector(str(tmp_path / "odd.onnx"), BOTH) as detector:
        found = detector.detect(np.zeros((64, 64, 3), dtype=np.uint8))
    assert [one.box for one in found] == [Box(1, 2, 9, 8, pytest.approx(0.9))]  # row 3: a class that is none is 0


def test_bad_input_and_settings_are_refused_and_closing_twice_is_fine(tmp_path: Path) -> None:
    model = str(save_yolo(tmp_path / "tiny.onnx", "v8", ("hand", "face")))
    with OnnxDetector(model, BOTH) as detector, pytest.raises(ValueError, match="uint8"):
        detector.detect(np.zeros((8, 8, 3)))  # type: ignore[arg-type]
    detector.close()
    with pytest.raises(ValueError, match="OnnxDetector is closed"):
        detector.detect(np.zeros((8, 8, 3), dtype=np.uint8))
    for setting in ("confidence", "overlap"):
        with pytest.raises(ValueError, match=f"{setting} must be in"):
            OnnxDetector(model, BOTH, **{setting: 1.1})  # type: ignore[arg-type]


def test_an_unreachable_hub_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(DetectorError, match=r"someone/yolo:face\.onnx: could not be downloaded; check .*the network"):
        find_model("someone/yolo:face.onnx")
    with pytest.raises(DetectorError, match="no such file"):
        find_model("../../etc:face.onnx")


def test_it_runs_on_a_provider_that_is_there_and_is_imported_when_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    model = str(save_yolo(tmp_path / "tiny.onnx", "v8", ("hand", "face")))
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureProvider", "CPUExecutionProvider"])
    OnnxDetector(model, BOTH).close()
    imported = (
        "import sys, fairhuman.detect.settings; "
        "heavy = {'ai_edge_litert', 'onnxruntime', 'rtmlib', 'mediapipe', 'cv2', 'torch'}; "
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", imported], check=True)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(DetectorError, match=r"pip install 'fairhuman\[detect\]'"):
        OnnxDetector(model, BOTH)


def test_weights_in_other_files_are_part_of_the_name(tmp_path: Path) -> None:
    """Locations of one and two bytes of length; files outside the folder, which onnxruntime refuses, aren't read."""
    (tmp_path / "models").mkdir()
    graph, whole = Graph(), tmp_path / "whole.onnx"
    graph.save(whole, [1, 3, 8, 8], [graph.add("Add", "images", graph.constant(np.ones((1, 3, 8, 8))))], {}, rank=4)
    path, secret = tmp_path / "models" / "hand.onnx", tmp_path / "secret"
    secret.write_bytes(b"1")
    for location in ("weights.bin", "w" * 150):
        onnx.save(onnx.load(whole), path, save_as_external_data=True, location=location, size_threshold=0)
        name = hashed_file_name(path)
        open_session(path)
        weights = path.with_name(location)
        flip(weights)
        assert (hashed_file_name(path) == name, path.name in hashed_file_name(path)) == (False, True)
        flip(weights)
        assert hashed_file_name(path) == name
    model = onnx.load(path, load_external_data=False)
    for location in ("../secret", str(secret)):
        for entry in (entry for tensor in model.graph.initializer for entry in tensor.external_data):
            entry.value = location if entry.key == "location" else entry.value
        path.write_bytes(model.SerializeToString())
        name = hashed_file_name(path)
        assert name == f"hand.onnx@{file_digest(path)[:8]}"
        with pytest.raises(DetectorError, match=r"hand\.onnx: not a valid ONNX model: .*External data"):
            open_session(path)
    path.write_bytes(b"")
    assert hashed_file_name(path) == f"hand.onnx@{file_digest(path)[:8]}"


@pytest.mark.parametrize("text", ["-" * 60_000 + "1", "1+" * 30_000 + "1", "['face', 'hand']" + " " * 2**16])
def test_class_names_that_would_take_all_memory_are_refused(text: str, tmp_path: Path) -> None:
    path = save_yolo(tmp_path / "tiny.onnx", "v8", None)
    model = onnx.load(path)
    model.metadata_props.add(key="names", value=text)
    onnx.save(model, path)
    with pytest.raises(DetectorError, match=r"tiny\.onnx: the metadata must hold the class names .* at most 65536"):
        OnnxDetector(str(path), BOTH)
