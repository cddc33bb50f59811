from pathlib import Path

import numpy as np
import pytest

from fairhuman.detect.detection import DetectorError
from fairhuman.refine.hand_depth import FARTHEST, HandDepthModel, capsule_depth
from helpers.hands_and_faces import open_hand
from helpers.tiny_onnx import Graph


def hand_in_picture() -> np.ndarray:
    return open_hand() * 0.5 + [64, 115, 0]


def test_near_is_one_what_is_no_hand_is_zero_and_the_hand_lies_between() -> None:
    hand_n3 = hand_in_picture()
    hand_n3[:, 2] = np.linspace(0, 40, 21)
    depth_hw = capsule_depth(hand_n3, 128, 128)
    assert depth_hw.dtype == np.float32
    assert depth_hw.max() == 1
    assert depth_hw.min() == 0
    assert depth_hw[depth_hw > 0].min() >= FARTHEST - 1e-6
    assert depth_hw[2, 2] == 0
    for x, y, _ in hand_n3:
        assert depth_hw[int(y), int(x)] > 0


def test_a_finger_that_is_nearer_is_brighter_and_covers_the_one_behind() -> None:
    hand_n3 = hand_in_picture()
    hand_n3[5:9, 2] = -20  # the index finger comes forward
    depth_hw = capsule_depth(hand_n3, 128, 128)
    order = [depth_hw[int(hand_n3[tip, 1]), int(hand_n3[tip, 0])] for tip in (7, 11, 15, 19)]
    assert order[0] > max(order[1:])
    hand_n3[9:13] = hand_n3[5:9] + np.array([0, 0, 30])  # the middle finger behind it
    behind = capsule_depth(hand_n3, 128, 128)
    alone = hand_n3.copy()
    alone[5:9, 2] = 30
    hidden = capsule_depth(alone, 128, 128)
    x, y = int(hand_n3[7, 0]), int(hand_n3[7, 1])
    assert behind[y, x] > hidden[y, x] or behind[y, x] == 1


def test_a_bone_is_round_its_middle_is_nearer_than_its_edge() -> None:
    hand_n3 = hand_in_picture()
    depth_hw = capsule_depth(hand_n3, 128, 128)
    x, y = ((hand_n3[6] + hand_n3[7]) / 2)[:2].astype(int)
    row = depth_hw[y, x - 8 : x + 9]
    assert row[8] > row[row > 0].min()


def test_a_flat_hand_stays_flat() -> None:
    depth_hw = capsule_depth(hand_in_picture(), 128, 128)
    assert depth_hw[depth_hw > 0].min() > 0.7


def test_a_hand_that_lies_outside_is_black_and_wrong_input_is_refused() -> None:
    assert not capsule_depth(hand_in_picture() + np.array([500, 0, 0]), 64, 48).any()
    assert capsule_depth(hand_in_picture() - [60, 60, 0], 64, 48).shape == (64, 48)
    with pytest.raises(ValueError, match="finite"):
        capsule_depth(np.full((21, 3), np.inf), 8, 8)


def test_a_file_that_is_no_depth_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="no such file"):
        HandDepthModel(str(tmp_path / "none.onnx"))
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    with pytest.raises(DetectorError, match=r"bad\.onnx"):
        HandDepthModel(str(tmp_path / "bad.onnx"))


def test_a_model_by_path_gives_depth_in_0_to_1_and_one_of_another_shape_is_named(tmp_path: Path) -> None:
    graph = Graph()
    grey = graph.add("ReduceMean", "images", axes=[1], keepdims=1)
    graph.save(tmp_path / "depth.onnx", [1, 3, 16, 16], [graph.add("Mul", grey, graph.constant(7.0))], {}, rank=4)
    model = HandDepthModel(str(tmp_path / "depth.onnx"))
    crop = np.zeros((16, 16, 3), np.uint8)
    crop[4:8, 4:8] = 200
    crop[8:12, 8:12] = 100
    depth_hw = model(crop)
    assert depth_hw.shape == (16, 16)
    assert depth_hw[5, 5] == 1
    assert depth_hw[9, 9] == pytest.approx(0.5)
    assert depth_hw[0, 0] == 0
    graph = Graph()
    graph.save(tmp_path / "small.onnx", [1, 3, 16, 16], [graph.add("ReduceMean", "images", axes=[1, 2])], {}, rank=4)
    with pytest.raises(DetectorError, match=r"small\.onnx: expected a finite output \[1, 1, 16, 16\]"):
        HandDepthModel(str(tmp_path / "small.onnx"))
    graph = Graph()
    graph.save(tmp_path / "long.onnx", [1, 3, 16, 24], [graph.add("ReduceMean", "images", axes=[1])], {}, rank=4)
    with pytest.raises(DetectorError, match="one input"):
        HandDepthModel(str(tmp_path / "long.onnx"))
