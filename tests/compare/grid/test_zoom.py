"""A frame shows the same place in pictures of any size, and never leaves them."""

import numpy as np
import pytest
from PIL import Image

from fairhuman.compare.grid.zoom import ZoomFrame, choose_frames, cut
from fairhuman.record import Box
from fairhuman.report.previews import AROUND


def gradient(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, both in shares of the side."""
    x_w, y_h = (np.arange(width) + 0.5) / width, (np.arange(height) + 0.5) / height
    pixels_hwc = np.zeros((height, width, 3), np.uint8)
    pixels_hwc[..., 0], pixels_hwc[..., 1] = np.round(255 * x_w)[None], np.round(255 * y_h)[:, None]
    return Image.fromarray(pixels_hwc)


def test_frame_is_the_largest_box_with_its_surroundings() -> None:
    boxes = {"hand": [Box(0, 0, 10, 10), Box(40, 60, 60, 70), Box(90, 90, 95, 99)]}
    frames = choose_frames(boxes, (100, 200), ("face", "hand"))
    assert frames == {"hand": ZoomFrame(0.5, 65 / 200, AROUND * 20 / 200)}


@pytest.mark.parametrize("size", [(64, 64), (200, 200), (120, 60), (60, 120)])
@pytest.mark.parametrize(("x", "y"), [(0.5, 0.5), (0.4, 0.6)])
def test_the_same_frame_shows_the_same_place_at_any_size(size: tuple[int, int], x: float, y: float) -> None:
    pixels_hwc = np.asarray(cut(gradient(*size), ZoomFrame(x, y, 0.3), 40), dtype=float)
    assert pixels_hwc.shape == (40, 40, 3)
    assert pixels_hwc[..., 0].mean() / 255 == pytest.approx(x, abs=0.02)
    assert pixels_hwc[..., 1].mean() / 255 == pytest.approx(y, abs=0.02)
    assert np.ptp(pixels_hwc[..., 1]) / 255 == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(("x", "y", "side"), [(0.0, 0.0, 0.2), (1.0, 0.5, 0.4), (0.5, 1.0, 3.0)])
def test_a_frame_stays_inside(x: float, y: float, side: float) -> None:
    white = Image.new("RGB", (50, 30), "white")
    assert cut(white, ZoomFrame(x, y, side), 20).getcolors() == [(400, (255, 255, 255))]


def test_a_frame_beyond_the_edge_is_moved_not_shrunk() -> None:
    pixels_hwc = np.asarray(cut(gradient(100, 100), ZoomFrame(0.0, 0.5, 0.4), 40), dtype=float) / 255
    assert pixels_hwc[:, -1, 0].mean() == pytest.approx(0.4, abs=0.02)


@pytest.mark.parametrize("box", [Box(5, 5, 5, 9), Box(90, 0, 130, 10), Box(float("nan"), 0, 1, 1)])
def test_bad_boxes_are_refused(box: Box) -> None:
    with pytest.raises(ValueError, match=r"face: a box must have an area and its centre in 100 x 100, got Box"):
        choose_frames({"face": [box]}, (100, 100), ("face",))
