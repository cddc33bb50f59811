"""Depth as 16-bit PNG: no number is rounded on the way, the two kinds stay apart, near is white."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.condition.depth import decode_depth, depth_picture, depth_png, encode_depth
from fairhuman.data.pictures.stored import PictureError

ALL = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def encoded(picture: Image.Image, kind: str = "PNG") -> bytes:
    stream = io.BytesIO()
    picture.save(stream, kind)
    return stream.getvalue()


def test_all_16_bits_come_back() -> None:
    np.testing.assert_array_equal(decode_depth(depth_png(ALL)), ALL)
    np.testing.assert_array_equal(decode_depth(encode_depth(ALL / 1000, "metric_mm")), ALL)
    np.testing.assert_array_equal(decode_depth(encode_depth(ALL * 0.25 - 7, "relative")), ALL)
    with Image.open(io.BytesIO(encode_depth(ALL / 1000, "metric_mm"))) as picture:
        assert (picture.format, picture.mode, picture.size) == ("PNG", "I;16", (256, 256))


def test_a_depth_map_of_another_byte_order_has_the_same_numbers(tmp_path: Path) -> None:
    height, width = 16, 300
    numbers = ALL.reshape(-1)[: height * width].reshape(height, width)
    path = tmp_path / "depth.tif"
    Image.frombytes("I;16B", (width, height), numbers.astype(">u2").tobytes()).save(path)
    with Image.open(path) as picture:
        assert picture.mode == "I;16B"
    found = decode_depth(path)
    np.testing.assert_array_equal(found, numbers)
    assert found.dtype == np.uint16
    assert found.dtype.isnative


def test_synthetic_people_s_depth_is_in_millimetres() -> None:
    metres = np.array([[0.0, 1.2344, 2.5, 65.535, 70.0, 1e-5, -1.0, np.inf, -np.inf, np.nan, 1e300]])
    found = decode_depth(encode_depth(metres, "metric_mm"))
    assert found.tolist() == [[0, 1234, 2500, 65535, 65535, 1, 0, 0, 0, 0, 65535]]


def test_relative_depth_does_not_depend_on_scale_and_shift() -> None:
    depth = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    first = decode_depth(encode_depth(depth, "relative")).astype(int)
    second = decode_depth(encode_depth(depth * 16 + 100, "relative")).astype(int)
    assert np.abs(first - second).max() <= 1
    assert (first.min(), first.max()) == (0, 65535)
    assert first.argmax() == depth.argmax()
    order = depth.ravel().argsort()
    assert (np.diff(first.ravel()[order]) >= 0).all()


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_non_finite_depth_is_farthest_and_does_not_affect_other_pixels(wrong: float) -> None:
    depth = np.array([[1.0, 2.0, 3.0, wrong]])
    assert decode_depth(encode_depth(depth, "relative")).tolist() == [[0, 32768, 65535, 0]]
    assert decode_depth(encode_depth(np.full((2, 2), wrong), "relative")).tolist() == [[0, 0], [0, 0]]


def test_the_largest_numbers_do_not_overflow() -> None:
    largest = np.finfo(np.float64).max
    depth = np.array([[-largest, 0.0, largest]])
    assert decode_depth(encode_depth(depth, "relative")).tolist() == [[0, 32768, 65535]]


@pytest.mark.parametrize("kind", ["relative", "metric_mm"])
@pytest.mark.parametrize("value", [0.0, 1.5])
@pytest.mark.parametrize("size", [(1, 1), (3, 4)])
def test_constant_depth_and_single_pixels_are_black(kind: str, value: float, size: tuple[int, int]) -> None:
    stored = decode_depth(encode_depth(np.full(size, value), kind))  # type: ignore[arg-type]
    picture = depth_picture(stored, kind)  # type: ignore[arg-type]
    assert picture.tolist() == np.zeros(size).tolist()
    assert picture.dtype == np.float32


def test_near_is_white_in_both_kinds() -> None:
    metres = np.array([[1.0, 2.0, 4.0]])
    metric = depth_picture(decode_depth(encode_depth(metres, "metric_mm")), "metric_mm")
    relative = depth_picture(decode_depth(encode_depth(1 / metres, "relative")), "relative")
    assert metric.tolist() == [pytest.approx([1, 1 / 3, 0], abs=1e-6)]
    assert relative.tolist() == [pytest.approx([1, 1 / 3, 0], abs=1e-5)]


def test_the_background_of_synthetic_people_is_as_if_infinitely_far() -> None:
    stored = np.array([[0, 1000, 2000, 4000]], dtype=np.uint16)
    assert depth_picture(stored, "metric_mm").tolist() == [[0, 1, 0.5, 0.25]]


def test_a_picture_keeps_more_than_8_bits() -> None:
    assert len(np.unique(depth_picture(ALL, "relative"))) == 65536
    assert len(np.unique(depth_picture(ALL, "metric_mm"))) > 60000


def test_a_large_map_goes_through() -> None:
    depth = np.linspace(0, 1, 2000, dtype=np.float32)[None].repeat(1500, axis=0)
    found = decode_depth(encode_depth(depth, "relative"))
    assert (found.shape, int(found[0, 0]), int(found[-1, -1])) == ((1500, 2000), 0, 65535)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (encoded(Image.new("RGB", (4, 4), "red")), r"depth must be grey with 16 bits \(.* has mode RGB\)"),
        (encoded(Image.new("L", (4, 4))), "has mode L"),
        (encoded(Image.new("P", (4, 4))), "has mode P"),
        (encoded(Image.new("L", (40, 40)), "JPEG"), "has mode L"),
        (encoded(Image.new("F", (4, 4)), "TIFF"), "32 bits a pixel"),
        (depth_png(ALL)[:400], "cut off or damaged"),
        (b"", "file is empty"),
        (b"depth", "not a picture"),
    ],
)
def test_files_that_are_not_depth_maps_are_rejected(content: bytes, message: str) -> None:
    with pytest.raises(PictureError, match=message):
        decode_depth(content)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"does not exist \(gone.png\)"):
        decode_depth(tmp_path / "gone.png")


def test_wrong_arrays_and_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"numbers \[height, width\], not float64 of shape \[2, 2, 1\]"):
        encode_depth(np.zeros((2, 2, 1)), "relative")
    with pytest.raises(ValueError, match="not float64 of shape"):
        encode_depth(np.zeros((0, 2)), "relative")
    with pytest.raises(ValueError, match="not bool"):
        encode_depth(np.zeros((2, 2), bool), "relative")
    with pytest.raises(ValueError, match="kind must be one of relative, metric_mm, not 'metres'"):
        encode_depth(np.zeros((2, 2)), "metres")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"uint16 \[height, width\], not float32"):
        depth_picture(np.zeros((2, 2), np.float32), "relative")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="kind must be one of"):
        depth_picture(ALL, "near")  # type: ignore[arg-type]
