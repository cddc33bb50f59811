"""One draw for all: picture, boxes, masks and time ids can't slip against each other."""

from collections import Counter

import pytest
import torch
from torchvision import tv_tensors

from fairhuman.record import Box
from fairhuman.regions.masks import boxes_to_mask
from fairhuman.regions.transforms import JointTransform, ViewDraw, as_bounding_boxes, in_frame


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def random_case(seed: int) -> tuple[JointTransform, tuple[int, int], Box]:
    """A transform, a picture's size (height, width) and a box with whole coordinates, so that it can be painted."""
    chance = generator(seed)

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=chance))

    size = (draw(16, 90), draw(16, 90))
    x0, y0 = draw(0, size[1] - 3), draw(0, size[0] - 3)
    box = Box(x0, y0, draw(x0 + 2, size[1]), draw(y0 + 2, size[0]))
    transform = JointTransform(
        resolution=(8 * draw(2, 8), 8 * draw(2, 8)),
        crop="center" if draw(0, 4) == 0 else "random",
        keep_region=0.5,
        zoom=(1.0, 1.0 + draw(0, 10) / 10),
    )
    return transform, size, box


def paint(size: tuple[int, int], box: Box) -> torch.Tensor:
    """A white box on black, uint8 [3, h, w]."""
    picture = torch.zeros(3, *size, dtype=torch.uint8)
    picture[:, int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = 255
    return picture


def edges(profile: torch.Tensor) -> tuple[float, float] | None:
    """First and last place where a profile crosses one half, interpolated; its ends where it starts or ends above."""
    above = (profile > 0.5).nonzero().flatten()
    if not len(above):
        return None
    first, last = int(above[0]), int(above[-1])
    low, high = float(first), float(last + 1)
    if first > 0:
        step = float(profile[first] - profile[first - 1])
        low = first + 0.5 - float(profile[first] - 0.5) / step
    if last + 1 < len(profile):
        step = float(profile[last] - profile[last + 1])
        high = last + 0.5 + float(profile[last] - 0.5) / step
    return low, high


def test_masks_follow_the_crop_and_flip():
    """1,000 random sizes, aspect ratios, crops and flips: the painted box and the mask have the same edges, to 1 px."""
    compared, flips, crops = 0, Counter(), Counter()
    for seed in range(1000):
        transform, size, box = random_case(seed)
        draw = transform.draw(generator(seed), size, [box])
        items = {"picture": tv_tensors.Image(paint(size, box)), "boxes": as_bounding_boxes([box], size)}
        moved = transform.apply(draw, items)
        painted = moved["picture"][0].float() / 255
        mask = boxes_to_mask(moved["boxes"].as_subclass(torch.Tensor), transform.resolution)
        assert painted.shape == mask.shape
        for axis in (0, 1):
            expected, found = (edges(image.amax(dim=axis)) for image in (painted, mask))
            if expected is None or found is None:
                continue  # less than half a pixel in view; the area is compared below
            compared += 1
            assert found == pytest.approx(expected, abs=1.0), (seed, draw, size, box)
        perimeter = 2 * sum(transform.resolution)
        assert abs(float(mask.sum() - painted.sum())) <= perimeter, (seed, draw, size, box)
        flips[draw.flip] += 1
        crops[draw.top > 0, draw.left > 0] += 1
    assert compared > 1500
    assert min(flips.values()) > 400
    assert len(crops) >= 3


def test_the_comparison_notices_a_missing_flip():
    transform = JointTransform((32, 32), flip_probability=1.0)
    box = Box(2, 4, 12, 20)
    draw = transform.draw(generator(0), (32, 32), [box])
    moved = transform.apply(draw, {"picture": tv_tensors.Image(paint((32, 32), box))})
    slipped = boxes_to_mask(as_bounding_boxes([box], (32, 32)).as_subclass(torch.Tensor), (32, 32))
    found, expected = edges(slipped.amax(dim=0)), edges(moved["picture"][0].float().amax(dim=0) / 255)
    assert found is not None
    assert expected is not None
    assert abs(found[0] - expected[0]) > 10


@pytest.mark.parametrize("seed", range(50))
def test_painted_masks_and_conditions_move_with_the_picture(seed):
    transform, size, box = random_case(seed)
    draw = transform.draw(generator(seed), size, [box])
    picture = paint(size, box)
    moved = transform.apply(
        draw,
        {
            "picture": tv_tensors.Image(picture),
            "condition": tv_tensors.Image(picture.clone()),
            "mask": tv_tensors.Mask(picture[0].float() / 255),
            "boxes": as_bounding_boxes([box], size),
        },
    )
    assert torch.equal(moved["picture"], moved["condition"])
    drawn = boxes_to_mask(moved["boxes"].as_subclass(torch.Tensor), transform.resolution)
    painted = moved["mask"].as_subclass(torch.Tensor)
    assert -1e-5 <= float(painted.min()) <= float(painted.max()) <= 1 + 1e-5
    assert float((drawn - painted).abs().sum()) <= sum(transform.resolution) * 2
    # A pixel deep inside or outside must agree: the soft rim of the enlargement is all that may differ.
    agree = (drawn - painted).abs() < 0.5
    assert float(agree.float().mean()) > 0.9


def test_painted_masks_stay_soft():
    ramp = torch.linspace(0, 1, 64).expand(64, 64).contiguous()
    transform = JointTransform((16, 16), flip_probability=0.0)
    draw = transform.draw(generator(0), (64, 64))
    moved = transform.apply(draw, {"mask": tv_tensors.Mask(ramp)})["mask"]
    assert len(moved.unique()) > 10


def test_the_picture_always_covers_the_target():
    for seed in range(300):
        transform, size, box = random_case(seed)
        draw = transform.draw(generator(seed), size, [box])
        for length, start, target in zip(draw.resized_hw, (draw.top, draw.left), transform.resolution, strict=True):
            assert 0 <= start <= length - target
        # Aspect ratio kept, up to rounding to whole pixels.
        assert draw.resized_hw[0] * size[1] == pytest.approx(draw.resized_hw[1] * size[0], abs=max(size))


def test_keep_region_keeps_a_box_in_view_or_filled():
    transform = JointTransform((32, 32), keep_region=1.0, zoom=(1.0, 2.0))
    small, large = Box(70, 3, 78, 10), Box(5, 2, 95, 38)
    for seed in range(200):
        for box in (small, large):
            draw = transform.draw(generator(seed), (40, 100), [box])
            boxes = transform.apply(draw, {"": as_bounding_boxes([box], (40, 100))})[""]
            x0, _, x1, _ = boxes[0].tolist()
            if x1 - x0 <= 31:
                assert x0 >= -1e-3
                assert x1 <= 32 + 1e-3
            elif x1 - x0 >= 34:
                assert x0 <= 1  # crops start at whole pixels
                assert x1 >= 31


def test_keep_region_chooses_among_all_boxes():
    transform = JointTransform((32, 32), keep_region=1.0, flip_probability=0.0)
    boxes = [Box(0, 0, 8, 8), Box(300, 0, 308, 8)]
    lefts = [transform.draw(generator(seed), (32, 320), boxes).left for seed in range(60)]
    assert min(lefts) <= 0 < 276 <= max(lefts)


def test_centre_crop_moves_no_further_than_needed():
    still = JointTransform((32, 32), crop="center", flip_probability=0.0)
    kept = JointTransform((32, 32), crop="center", flip_probability=0.0, keep_region=1.0)
    assert still.draw(generator(0), (32, 100)).left == 34
    assert kept.draw(generator(0), (32, 100), [Box(40, 0, 50, 9)]).left == 34
    assert kept.draw(generator(0), (32, 100), [Box(80, 0, 90, 9)]).left == 58


@pytest.mark.parametrize("crop", ["center", "random"])
def test_crops_keep_the_largest_box_and_all_that_fit_beside_it(crop):
    transform = JointTransform((32, 32), crop=crop, keep_region=1.0, flip_probability=0.0)
    large, beside, far = Box(60, 4, 80, 28), Box(84, 0, 90, 6), Box(2, 2, 20, 20)
    for seed in range(60):
        draw = transform.draw(generator(seed), (32, 100), [far, beside, large])
        assert 58 <= draw.left <= 60, "both are whole, whatever that does to the third"
    same = {transform.draw(generator(seed), (32, 100), [far, beside]) for seed in range(60)}
    assert all(draw.left <= 2 for draw in same)
    assert (len(same) == 1) == (crop == "center"), "a centre crop is the same every time"


def test_a_centre_crop_that_keeps_nothing_is_the_plain_one():
    plain = JointTransform((32, 48), crop="center", flip_probability=0.0)
    kept = JointTransform((32, 48), crop="center", flip_probability=0.0, keep_region=1.0)
    assert plain.draw(generator(0), (90, 60)) == kept.draw(generator(1), (90, 60))


def test_boxes_in_the_frame_of_a_view():
    draw = JointTransform((32, 32), flip_probability=0.0).draw(generator(3), (64, 100))
    box = Box(10, 20, 30, 44)
    moved = JointTransform((32, 32)).apply(draw, {"": as_bounding_boxes([box], (64, 100))})[""]
    torch.testing.assert_close(in_frame([box], draw, (64, 100)).float(), moved.as_subclass(torch.Tensor))


def test_a_draw_takes_the_same_numbers_with_any_settings():
    """Six numbers are always taken: a setting doesn't shift what is drawn after it."""
    plain, rich = JointTransform((32, 32)), JointTransform((32, 32), keep_region=1.0, zoom=(1, 2))
    states = []
    for transform in (plain, rich, plain):
        source = generator(7)
        transform.draw(source, (50, 60), [Box(1, 1, 9, 9)])
        states.append(float(torch.rand(1, generator=source)))
    assert len(set(states)) == 1
    assert plain.draw(generator(3), (50, 60)) == plain.draw(generator(3), (50, 60))


def test_flip_probability():
    flips = sum(JointTransform((8, 8)).draw(generator(seed), (16, 16)).flip for seed in range(2000))
    assert flips == pytest.approx(1000, abs=120)
    assert not any(JointTransform((8, 8), flip_probability=0.0).draw(generator(s), (16, 16)).flip for s in range(99))


def test_time_ids_say_where_the_view_comes_from():
    """Independent statement: flip the *resized* picture first, then cut at (crop_top, crop_left): the same view."""
    for seed in range(100):
        transform, size, box = random_case(seed)
        draw = transform.draw(generator(seed), size, [box])
        picture = torch.randint(0, 256, (3, *size), dtype=torch.uint8, generator=generator(seed))
        view = transform.apply(draw, {"": tv_tensors.Image(picture)})[""]
        whole = JointTransform(draw.resized_hw, flip_probability=0.0)
        resized = whole.apply(ViewDraw(draw.resized_hw, 0, 0, flip=False), {"": tv_tensors.Image(picture)})[""]
        shown = resized.flip(-1) if draw.flip else resized
        original_h, original_w, top, left, target_h, target_w = transform.time_ids(draw, size)
        assert (original_h, original_w) == size
        assert torch.equal(view, shown[:, top : top + target_h, left : left + target_w])


def test_time_ids_of_a_mirrored_crop_by_hand():
    transform = JointTransform((64, 48))
    assert transform.time_ids(ViewDraw((64, 100), 0, 10, flip=False), (128, 200)) == (128, 200, 0, 10, 64, 48)
    assert transform.time_ids(ViewDraw((64, 100), 0, 10, flip=True), (128, 200)) == (128, 200, 0, 42, 64, 48)


@pytest.mark.parametrize(
    "settings",
    [{"flip_probability": 1.5}, {"keep_region": -0.1}, {"zoom": (0.5, 1.0)}, {"zoom": (2.0, 1.0)}, {"crop": "left"}],
)
def test_settings_out_of_range_name_themselves(settings):
    with pytest.raises(ValueError, match=next(iter(settings))):
        JointTransform((8, 8), **settings)


def test_plain_tensors_are_refused():
    with pytest.raises(TypeError, match="depth must be"):
        JointTransform((8, 8)).apply(ViewDraw((8, 8), 0, 0, flip=False), {"depth": torch.zeros(1, 8, 8)})
