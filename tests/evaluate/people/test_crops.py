"""Crops: squares that hold their box, stay inside and count what they leave out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from fairhuman.evaluate.people.crops import GROWTH, MIN_SIDE, plan_crops
from fairhuman.record import Box
from fairhuman.regions.squares import Square, crop_square, square_around

FACE = Box(100.0, 80.0, 140.0, 120.0)


@st.composite
def boxes_in_pictures(draw: st.DrawFn) -> tuple[Box, int, int]:
    width, height = draw(st.integers(1, 400)), draw(st.integers(1, 400))
    x0, x1 = sorted(draw(st.tuples(*[st.floats(0, width)] * 2)))
    y0, y1 = sorted(draw(st.tuples(*[st.floats(0, height)] * 2)))
    return Box(x0, y0, x1, y1), width, height


@given(boxes_in_pictures(), st.floats(1, 4))
def test_a_square_lies_in_the_picture_and_holds_its_box(case: tuple[Box, int, int], growth: float) -> None:
    box, width, height = case
    left, top, side = square_around(box, width, height, growth)
    assert left >= 0
    assert top >= 0
    assert 1 <= side <= min(width, height)
    assert left + side <= width
    assert top + side <= height
    if max(box.x1 - box.x0, box.y1 - box.y0) <= side - 2:  # a pixel on each side for rounding
        assert left <= box.x0 + 0.5
        assert top <= box.y0 + 0.5
        assert left + side >= box.x1 - 0.5
        assert top + side >= box.y1 - 0.5


@pytest.mark.parametrize(
    ("box", "square"),
    [
        (FACE, Square(90, 70, 60)),
        (Box(100, 90, 140, 110), Square(90, 70, 60)),  # the longer side counts
        (Box(0, 0, 40, 40), Square(0, 0, 60)),  # moved right and down, same size
        (Box(280, 160, 300, 200), Square(240, 140, 60)),  # moved left and up
        (Box(50, 0, 250, 200), Square(50, 0, 200)),  # no larger than the picture
    ],
)
def test_squares_follow_the_rule(box: Box, square: Square) -> None:
    assert square_around(box, 300, 200, 1.5) == square


def test_a_cut_has_the_pixels_of_the_picture() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, size=(50, 70, 3), dtype=np.uint8)
    found = np.asarray(crop_square(Image.fromarray(pixels), Square(30, 10, 40)))
    assert np.array_equal(found, pixels[10:50, 30:70])


@pytest.mark.parametrize("square", [Square(31, 10, 40), Square(30, 11, 40), Square(-1, 0, 5), Square(0, -1, 5)])
def test_a_square_outside_of_the_picture_is_refused(square: Square) -> None:
    with pytest.raises(ValueError, match="70 x 50 pixels"):
        crop_square(Image.new("RGB", (70, 50)), square)


def test_what_gives_no_crop_is_counted() -> None:
    small, least = Box(0, 0, MIN_SIDE - 1, 5), Box(0, 0, MIN_SIDE, 5)
    plan = plan_crops([(), (FACE, small), (small,), (FACE, least)], [(300, 200)] * 4)
    assert [place for place, _ in plan.crops] == [1, 3, 3]
    assert plan.crops[0][1] == square_around(FACE, 300, 200, GROWTH)
    assert (plan.pictures, plan.without_box, plan.too_small) == (4, 1, 2)


def test_each_picture_has_its_own_size() -> None:
    plan = plan_crops([(FACE,), (FACE,)], [(300, 200), (141, 121)])
    assert [square for _, square in plan.crops] == [Square(90, 70, 60), Square(81, 61, 60)]


def test_an_empty_set_gives_an_empty_plan() -> None:
    plan = plan_crops([], [])
    assert (plan.crops, plan.pictures) == ((), 0)


def test_bad_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="each of 1 pictures, not 2"):
        plan_crops([()], [(1, 1)] * 2)
    with pytest.raises(ValueError, match=r"min_side must be at least 1, not 0\.5"):
        plan_crops([()], [(1, 1)], min_side=0.5)
