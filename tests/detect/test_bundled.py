"""The networks that ship: the files are MediaPipe's own; anchors, merging and regions do what MediaPipe's do."""

import hashlib
import math
import re
from pathlib import Path

import numpy as np
import pytest

from fairhuman.detect import bundled
from fairhuman.detect.anchors import BODIES, FACES, NEAR_FACES, PALMS, Layout, anchor_centres, merge
from fairhuman.detect.body import refine
from fairhuman.detect.bundled import MODELS, Network
from fairhuman.detect.detection import DetectorError
from fairhuman.detect.region import Region, around, around_segment, crop, direction, spread, whole


def test_the_files_are_those_that_the_readme_names() -> None:
    named = dict(re.findall(r"`(\w+\.tflite)`.*`([0-9a-f]{64})`", (MODELS / "README.md").read_text(encoding="utf-8")))
    assert named == {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in MODELS.glob("*.tflite")}
    assert len(named) == 8


def test_a_damaged_file_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundled, "MODELS", tmp_path)
    (tmp_path / "half.tflite").write_bytes((MODELS / "hand_recrop.tflite").read_bytes()[:1000])
    for name in ("none", "half"):
        with pytest.raises(DetectorError, match=rf"{name}\.tflite: can't be loaded .*install it again"):
            Network(name)


@pytest.mark.parametrize("layout", [FACES, NEAR_FACES, PALMS, BODIES], ids=lambda layout: layout.file)
def test_each_output_of_a_detector_has_an_anchor(layout: Layout) -> None:
    network = Network(layout.file)
    boxes, scores = network(np.zeros((network.side, network.side, 3), np.float32))
    centres_n2 = anchor_centres(network.side, layout.grids)
    assert len(boxes) == len(scores) == len(centres_n2)
    stride = layout.grids[0][0]
    assert centres_n2[0] == pytest.approx([stride / 2 / network.side] * 2)
    assert centres_n2[-1] == pytest.approx([1 - layout.grids[-1][0] / 2 / network.side] * 2)


def test_overlapping_candidates_become_their_weighted_mean_and_others_stay() -> None:
    corners = np.array([[[0, 0], [10, 10]], [[2, 0], [12, 10]], [[50, 50], [60, 60]]], np.float32)
    first, second = merge(corners, np.array([0.3, 0.9, 0.5], np.float32))
    assert first[0] == pytest.approx(0.9)
    assert first[1] == pytest.approx(np.array([[1.5, 0], [11.5, 10]]))
    assert (second[0], second[1].tolist()) == (0.5, [[50, 50], [60, 60]])
    flat = np.zeros((2, 2, 2), np.float32)  # without area, nothing overlaps it, not even itself
    assert len(merge(flat, np.array([0.6, 0.7], np.float32))) == 2
    assert merge(np.zeros((0, 2, 2), np.float32), np.zeros(0, np.float32)) == []


def test_a_region_s_corner_and_its_way_back() -> None:
    region = Region(100, 50, 40, math.pi / 2)  # a quarter turn clockwise: the region's top looks to the right
    points = region.points(np.array([[0.5, 0.5, 0.1], [0.5, 0.0, 0], [0.0, 0.5, 0]], np.float32))
    assert points == pytest.approx(np.array([[100, 50, 4], [120, 50, 0], [100, 30, 0]]), abs=1e-4)


def test_a_crop_shows_the_region_upright_and_pads_with_edge_or_black() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, 30:] = 255  # the right half is white
    upright = crop(picture, Region(30, 20, 20, 0.0), 20)
    assert (upright[:, :9].max(), upright[:, 11:].min()) == (0, 1)
    turned = crop(picture, Region(30, 20, 20, math.pi / 2), 20)  # what was right is now on top
    assert (turned[:9].min(), turned[11:].max()) == (1, 0)
    assert crop(picture, Region(60, 20, 20, 0.0), 20)[:, 15:].min() == 1
    assert crop(picture, Region(60, 20, 20, 0.0), 20, low=-1.0, outside="black")[:, 15:].max() == -1
    assert whole(picture) == Region(30, 20, 60, 0)


def test_what_a_network_sees_goes_back_to_its_place() -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    mask = np.zeros((20, 20), np.float32)
    mask[:10] = 1  # the region's upper half
    back = spread(mask, Region(30, 20, 20, math.pi / 2), picture)
    assert back.shape == (40, 60)
    assert back[12:28, 32:38].min() == 1
    assert max(back[:, :29].max(), back[:, 42:].max(), back[:8].max(), back[32:].max()) == 0


def test_regions_are_turned_shifted_and_scaled_like_mediapipe_s() -> None:
    assert direction(np.array([0, 0]), np.array([0, -1]), math.pi / 2) == pytest.approx(0)  # fingers up already
    assert direction(np.array([0, 0]), np.array([1, 0]), math.pi / 2) == pytest.approx(math.pi / 2)
    assert around(10, 20, 4, 8, 0.0, scale=2.6, up=0.5) == pytest.approx(Region(10, 16, 20.8, 0.0))
    assert around(10, 20, 4, 8, math.pi / 2, scale=1, up=0.5) == pytest.approx(Region(14, 20, 8, math.pi / 2))
    segment = around_segment(np.array([5, 5]), np.array([5, 1]), math.pi / 2, scale=1.25)
    assert segment == pytest.approx(Region(5, 5, 10, 0.0))


def test_a_key_point_moves_to_its_heat_nearby_if_there_is_any() -> None:
    points = np.array([[0.5, 0.5, 0.3], [0.5, 0.5, 0], [-0.5, 0.5, 0]], np.float32)
    heat = np.full((64, 64, 3), -100, np.float32)
    heat[34, 30, [0, 2]] = 10
    refined = refine(points, heat)
    assert refined[0] == pytest.approx([30 / 64, 34 / 64, 0.3], abs=1e-5)
    assert refined[1:].tolist() == points[1:].tolist()
