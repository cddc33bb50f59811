import numpy as np
import pytest
from PIL import Image

from fairhuman.record import Box
from fairhuman.refine.crop import MAX_WORKED_RATIO, RefineCrop, plan_crop


def plan(box: Box, size: tuple[int, int], least: int = 32) -> RefineCrop:
    return plan_crop(box, size, context=2.0, margin=0.15, feather=0.15, least=least, grid=16)


@pytest.mark.parametrize("size", [(100, 100), (97, 131), (203, 61)])
@pytest.mark.parametrize("box", [Box(40, 20, 55, 45), Box(0, 0, 12, 9), Box(70.5, 40.2, 97, 61)])
def test_a_crop_lies_in_the_picture_on_the_grid_and_is_redrawn_around_the_box(size: tuple[int, int], box: Box) -> None:
    crop = plan(box, size)
    left, top, side = crop.square
    assert left >= 0
    assert top >= 0
    assert left + side <= size[0]
    assert top + side <= size[1]
    assert crop.worked % 16 == 0
    assert crop.worked >= 32
    assert crop.weight_hw.shape == (side, side)
    x, y = int((box.x0 + box.x1) / 2) - left, int((box.y0 + box.y1) / 2) - top
    assert crop.weight_hw[y, x] == 1


def test_weights_end_softly_inside_the_picture_and_not_at_its_own_edge() -> None:
    inside = plan(Box(40, 40, 60, 60), (200, 200)).weight_hw
    assert inside[0].max() == inside[-1].max() == inside[:, 0].max() == inside[:, -1].max() == 0
    assert np.abs(np.diff(inside, axis=1)).max() < 0.6
    corner = plan(Box(0, 0, 20, 20), (200, 200)).weight_hw
    assert corner[0, 0] == 1
    assert corner[-1].max() == 0


def test_a_part_longer_than_the_picture_is_high_is_cut_off_softly() -> None:
    crop = plan(Box(20, 5, 180, 35), (200, 40))
    assert crop.square.side == 40
    assert crop.weight_hw[20, 0] < 0.2
    assert crop.weight_hw[20, -1] < 0.2
    assert crop.weight_hw[20, 20] > 0.8


def test_small_parts_are_enlarged_middling_ones_kept_and_large_ones_reduced() -> None:
    small, middling, large = (plan(Box(100, 100, 100 + side, 100 + side), (400, 400)) for side in (8, 20, 90))
    assert (small.square.side, small.worked) == (16, 32)
    assert middling.square.side == middling.worked == 48
    assert large.square.side == 180
    assert large.worked == MAX_WORKED_RATIO * 32


@pytest.mark.parametrize("shape", [(90, 70, 3), (90, 70), (90, 70, 2), (90, 70, 4)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_nothing_outside_of_the_weights_changes_whatever_the_channels(
    shape: tuple[int, ...], dtype: type[np.uint8] | type[np.uint16]
) -> None:
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, np.iinfo(dtype).max + 1, shape).astype(dtype)
    before = pixels.copy()
    crop = plan(Box(30, 30, 45, 50), (70, 90))
    redrawn = Image.fromarray(np.full((crop.worked, crop.worked, 3), (200, 100, 50), np.uint8))
    result = crop.paste(pixels, redrawn)
    left, top, side = crop.square
    weight_hw = np.zeros(shape[:2])
    weight_hw[top : top + side, left : left + side] = crop.weight_hw
    assert (pixels == before).all(), "the picture itself stays"
    assert (result[weight_hw == 0] == before[weight_hw == 0]).all()
    assert result.dtype == dtype
    full = result[weight_hw == 1]
    channels = 1 if len(shape) == 2 else shape[2]
    scale = 257 if dtype is np.uint16 else 1
    if channels in (2, 4):
        assert (result[..., -1] == before[..., -1]).all(), "alpha stays"
    colours = full.reshape(len(full), -1)[:, : 1 if channels < 3 else 3]
    assert (colours == np.array([124] if channels < 3 else [200, 100, 50]) * scale).all()


def test_the_mask_is_white_wherever_a_pixel_may_change() -> None:
    crop = plan(Box(30, 30, 45, 50), (70, 90))
    mask = crop.mask()
    assert mask.size == (crop.worked, crop.worked)
    back = np.asarray(mask.resize((crop.square.side, crop.square.side), Image.Resampling.NEAREST))
    assert ((back == 255) == (crop.weight_hw > 0)).all()
