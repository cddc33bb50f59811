"""Degraded pictures: worse with the strength, only where they should be."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fairhuman.detect.detection import Picture
from fairhuman.evaluate.people.degrade import MARGIN, blur, pixelate
from fairhuman.record import Box


@pytest.fixture
def picture() -> Picture:
    noise = np.random.default_rng(0).normal(0, 1, (120, 90, 3))
    smooth = gaussian_filter(noise, (4, 4, 0))
    return (128 + 100 * smooth / np.abs(smooth).max()).astype(np.uint8)


def _error(picture: Picture, changed: Picture) -> float:
    return float(np.abs(picture.astype(int) - changed.astype(int)).mean())


@pytest.mark.parametrize(("degrade", "strengths"), [(pixelate, (60, 30, 15, 7, 3)), (blur, (0, 0.01, 0.03, 0.1, 0.3))])
def test_worse_with_the_strength(
    picture: Picture, degrade: Callable[..., Picture], strengths: tuple[float, ...]
) -> None:
    errors = [_error(picture, degrade(picture, strength)) for strength in strengths]
    assert errors == sorted(errors)
    assert errors[-1] > 5


@pytest.mark.parametrize(
    "degrade", [lambda image, boxes: pixelate(image, 4, boxes), lambda image, boxes: blur(image, 0.1, boxes)]
)
def test_only_boxes_and_their_margin_change(picture: Picture, degrade: Callable[..., Picture]) -> None:
    before = picture.copy()
    box = Box(20, 30, 60, 70)
    changed = degrade(picture, [box])
    edge = round(MARGIN * 40)
    outside = np.ones(picture.shape[:2], bool)
    outside[30 - edge : 70 + edge, 20 - edge : 60 + edge] = False
    assert (changed[outside] == picture[outside]).all()
    assert _error(picture[~outside], changed[~outside]) > 3
    assert (picture == before).all()
    assert (degrade(picture, []) == picture).all()
    assert (degrade(picture, [Box(200, 200, 220, 220)]) == picture).all()  # outside of the picture


def test_cells_are_squares_of_their_mean_colour(picture: Picture) -> None:
    squares = pixelate(picture, 12)  # 10 px each
    for y in range(0, 120, 10):
        for x in range(0, 90, 10):
            cell, source = squares[y : y + 10, x : x + 10], picture[y : y + 10, x : x + 10]
            assert (cell == cell[0, 0]).all()
            assert np.abs(cell[0, 0] - source.mean(axis=(0, 1))).max() < 1


def test_more_cells_than_pixels_change_nothing(picture: Picture) -> None:
    assert (pixelate(picture, 120) == picture).all()
    assert (pixelate(picture, 40, [Box(10, 10, 40, 40)]) == picture).all()


def test_blur_is_a_gaussian_of_that_width() -> None:
    point = np.zeros((101, 101, 3), np.uint8)
    point[40:61, 40:61] = 255
    soft = blur(point, 0.04)[50, :, 0].astype(float)
    # The edge of a square, blurred: half its height at the edge, and 84 % one standard deviation inside.
    assert soft[40:42].mean() == pytest.approx(255 / 2, abs=30)
    assert np.interp(39.5 + 0.04 * 101, np.arange(101), soft) == pytest.approx(255 * 0.841, abs=6)


def test_bad_strengths_are_refused(picture: Picture) -> None:
    with pytest.raises(ValueError, match="cells must be at least 1, not 0"):
        pixelate(picture, 0)
    with pytest.raises(ValueError, match=r"sigma must not be negative, not -0\.1"):
        blur(picture, -0.1)
    with pytest.raises(ValueError, match="uint8"):
        blur(picture.astype(float), 0.1)  # type: ignore[arg-type]
