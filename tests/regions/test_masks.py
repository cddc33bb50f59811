"""Masks: exact areas, soft edges, unions, and what arrives on the latent grid."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from fairhuman.regions.masks import boxes_to_mask, to_latent_grid, union
from fairhuman.regions.settings import MaskSettings


def boxes(*rows: tuple[float, float, float, float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, 4)


def test_rectangle_covers_pixels_by_their_share():
    mask = boxes_to_mask(boxes((1.25, 0.5, 3.0, 2.0)), (3, 4))
    expected = torch.tensor([[0, 0.375, 0.5, 0], [0, 0.75, 1, 0], [0, 0, 0, 0]])
    torch.testing.assert_close(mask, expected)


@given(st.tuples(*[st.floats(0, 20)] * 2), st.tuples(*[st.floats(0, 20)] * 2))
def test_area_of_a_rectangle_is_exact(start, extent):
    x1, y1 = min(start[0] + extent[0], 32), min(start[1] + extent[1], 24)
    mask = boxes_to_mask(boxes((*start, x1, y1)), (24, 32))
    area = max(x1 - start[0], 0) * max(y1 - start[1], 0)
    assert float(mask.sum()) == pytest.approx(area, rel=1e-4, abs=1e-3)
    assert 0 <= float(mask.min()) <= float(mask.max()) <= 1


@pytest.mark.parametrize("size", [3.0, 7.3, 20.0])
def test_area_of_an_ellipse(size):
    mask = boxes_to_mask(boxes((5.2, 4.7, 5.2 + size, 4.7 + size)), (32, 32), MaskSettings(shape="ellipse"))
    assert float(mask.sum()) == pytest.approx(math.pi / 4 * size**2, rel=0.02)
    assert float(mask[round(4.7 + size / 2), round(5.2 + size / 2)]) == 1.0


def test_ellipse_of_a_cut_box_is_the_cut_of_the_ellipse():
    settings = MaskSettings(shape="ellipse")
    whole = boxes_to_mask(boxes((2, 4, 18, 16)), (20, 20), settings)
    cut = boxes_to_mask(boxes((-8, 4, 8, 16)), (20, 10), settings)
    torch.testing.assert_close(cut, whole[:, 10:])


def test_padding_is_a_share_of_the_longer_side():
    mask = boxes_to_mask(boxes((10, 10, 14, 20)), (32, 32), MaskSettings(padding=0.1))
    torch.testing.assert_close(mask, boxes_to_mask(boxes((9, 9, 15, 21)), (32, 32)))


def test_overlap_counts_once_and_order_does_not_matter():
    a, b = (2.5, 2.5, 8, 8), (6, 6, 12, 12)
    both = boxes_to_mask(boxes(a, b), (16, 16))
    assert torch.equal(both, boxes_to_mask(boxes(b, a), (16, 16)))
    assert torch.equal(both, union([boxes_to_mask(boxes(a), (16, 16)), boxes_to_mask(boxes(b), (16, 16))]))
    assert float(both.sum()) == pytest.approx(5.5**2 + 36 - 4)


def test_no_boxes_give_an_empty_mask():
    assert float(boxes_to_mask(boxes(), (4, 5)).sum()) == 0


def test_soft_edge_stays_soft_and_keeps_its_area():
    hard = boxes_to_mask(boxes((20, 12, 40, 52)), (64, 64))
    soft = boxes_to_mask(boxes((20, 12, 40, 52)), (64, 64), MaskSettings(soft_edge=2.0))
    assert float(soft.sum()) == pytest.approx(float(hard.sum()), rel=1e-3)
    assert 0 <= float(soft.min()) <= float(soft.max()) <= 1
    assert ((soft > 0.05) & (soft < 0.95)).sum() > 100
    # Half way at the edge: the mean of the two pixels beside it is 1/2.
    assert float(soft[25, 19] + soft[25, 20]) == pytest.approx(1.0, abs=0.01)


def test_boxes_outside_the_frame_blur_into_it():
    settings = MaskSettings(soft_edge=2.0)
    wide = boxes_to_mask(boxes((-10, -10, 30, 30)), (16, 16), settings)
    assert float(wide.min()) > 0.999  # no fading at the border of the frame
    beside = boxes_to_mask(boxes((-6, 2, 0, 14)), (16, 16), settings)
    assert float(beside[8, 0]) > 0.3


def test_small_soft_masks_survive_the_latent_grid():
    hand = boxes_to_mask(boxes((9.0, 9.0, 14.0, 14.0)), (64, 64))[None, None]
    on_grid = to_latent_grid(hand, 8)
    assert float(on_grid.sum()) * 64 == pytest.approx(25.0)
    assert float(hand[0, 0, 4::8, 4::8].sum()) == pytest.approx(1.0)  # one whole cell, by luck ...
    moved = boxes_to_mask(boxes((13.0, 13.0, 18.0, 18.0)), (64, 64))[None, None]
    assert float(moved[0, 0, 4::8, 4::8].sum()) == 0.0  # ... or none: that is what the nearest pixel gives
    assert float(to_latent_grid(moved, 8).sum()) * 64 == pytest.approx(25.0)
    soft = boxes_to_mask(boxes((20, 20, 44, 44)), (64, 64), MaskSettings(soft_edge=6.0))[None, None]
    values = to_latent_grid(soft, 8)
    assert ((values > 0.01) & (values < 0.99)).float().mean() > 0.3  # not made hard on the way


@given(st.integers(0, 2**31), st.sampled_from([1, 2, 3, 4, 8]), st.integers(1, 4), st.integers(1, 4))
def test_latent_grid_keeps_the_area(seed, factor, rows, columns):
    masks = torch.rand(2, 3, rows * factor, columns * factor, generator=torch.Generator().manual_seed(seed))
    grid = to_latent_grid(masks, factor)
    assert grid.shape == (2, 3, rows, columns)
    torch.testing.assert_close(grid.sum((2, 3)) * factor**2, masks.sum((2, 3)))


def test_latent_grid_without_regions():
    assert to_latent_grid(torch.zeros(2, 0, 16, 24), 8).shape == (2, 0, 2, 3)


def test_contracts():
    with pytest.raises(ValueError, match="60x64"):
        to_latent_grid(torch.zeros(1, 1, 60, 64), 8)
    with pytest.raises(ValueError, match="four dimensions"):
        to_latent_grid(torch.zeros(64, 64), 8)
    with pytest.raises(ValueError, match=r"\[n, 4\]"):
        boxes_to_mask(torch.zeros(2, 5), (8, 8))
    with pytest.raises(ValueError, match="at least one"):
        union([])
    with pytest.raises(ValidationError):
        MaskSettings(soft_edge=-1)
