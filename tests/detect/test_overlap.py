"""Overlap of boxes: agrees with torchvision, and doubles and matches are what they should be."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.ops import box_iou, nms

from fairhuman.detect.overlap import corners, iou, match_boxes, non_maximum_suppression
from fairhuman.record import Box

NONE = corners([])


def some_boxes(seed: int, n: int) -> np.ndarray:
    generator = np.random.default_rng(seed)
    low = generator.uniform(0, 50, (n, 2))
    return np.concatenate([low, low + generator.uniform(1, 40, (n, 2))], axis=1)


@pytest.mark.parametrize("seed", range(3))
def test_overlap_and_suppression_agree_with_torchvision(seed: int) -> None:
    a, b = some_boxes(seed, 60), some_boxes(seed + 100, 20)
    scores = np.random.default_rng(seed).permutation(60) / 60
    assert iou(a, b) == pytest.approx(box_iou(torch.tensor(a), torch.tensor(b)).numpy(), abs=1e-12)
    for most in (0.1, 0.45, 0.8):
        assert non_maximum_suppression(a, scores, most) == nms(torch.tensor(a), torch.tensor(scores), most).tolist()


def test_boxes_without_area_and_no_boxes_overlap_nothing() -> None:
    flat = corners([Box(1, 1, 1, 5), Box(5, 5, 2, 2)])
    assert iou(flat, flat).tolist() == [[0, 0], [0, 0]]
    assert iou(NONE, flat).shape == (0, 2)
    assert non_maximum_suppression(NONE, np.zeros(0), 0.5) == []
    assert match_boxes(NONE, flat, 0.1) == match_boxes(flat, NONE, 0.1) == []


def test_a_box_is_matched_once_and_the_best_pair_first() -> None:
    truth = corners([Box(0, 0, 10, 10)])
    found = corners([Box(0, 0, 10, 8), Box(0, 0, 10, 10), Box(40, 40, 50, 50)])
    assert match_boxes(found, truth, 0.5) == [(1, 0)]
    assert match_boxes(found, truth, 1.0) == [(1, 0)]
    # Greedy: the pair of 0.9 takes the box that would have given two matches.
    found = corners([Box(0, 0, 10, 9), Box(0, 4, 10, 10)])
    truth = corners([Box(0, 0, 10, 10), Box(0, 0, 10, 7.5)])
    assert match_boxes(found, truth, 0.5) == [(0, 0)]


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.integers(0, 12), st.floats(0.05, 1.0))
def test_matches_are_one_to_one_and_none_is_left_over(seed: int, n: int, m: int, least: float) -> None:
    a, b = some_boxes(seed, n), some_boxes(seed + 1, m)
    pairs, overlap = match_boxes(a, b, least), iou(a, b)
    assert len({i for i, _ in pairs}) == len({j for _, j in pairs}) == len(pairs)
    assert all(overlap[pair] >= least for pair in pairs)
    left = [(i, j) for i in range(n) for j in range(m) if all(i != p and j != q for p, q in pairs)]
    assert all(overlap[pair] < least for pair in left)
