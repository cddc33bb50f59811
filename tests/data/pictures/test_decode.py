"""Pictures: upright, RGB, whole, or refused with a reason."""

import errno
import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageFile, PngImagePlugin, TiffImagePlugin

from fairhuman.data.pictures.decode import PictureLimits, decode, decode_mask, inspect
from fairhuman.data.pictures.stored import PictureError, byte_length, read_bytes
from fairhuman.errors import DataError
from fairhuman.record import DerivedMask, LabelMap
from helpers.tiny_pictures import encoded, picture


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_the_header_agrees(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # A picture with one bright corner, top left as it is stored.
    stored = np.zeros((40, 60, 3), np.uint8)
    stored[:20, :20] = 255
    data = encoded(Image.fromarray(stored), kind, exif=exif)
    facts, upright = inspect(data), decode(data).picture
    assert (facts.width, facts.height) == upright.size == ((40, 60) if orientation > 4 else (60, 40))
    corners = {(0, 0): "tl", (1, 0): "tr", (1, 1): "br", (0, 1): "bl"}
    width, height = upright.size
    brightest = max(corners, key=lambda at: upright.getpixel((at[0] * (width - 1), at[1] * (height - 1)))[0])
    expected = {1: "tl", 2: "tr", 3: "br", 4: "bl", 5: "tl", 6: "tr", 7: "br", 8: "bl"}[orientation]
    assert corners[brightest] == expected


TURNED = Image.Exif()
TURNED[0x0112] = 6
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'


def png_texts(**texts: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for name, text in texts.items():
        info.add_text(name.replace("_", " "), text)
    return info


def raw_profile() -> str:
    """EXIF as ImageMagick writes it."""
    content = b"Exif\0\0" + TURNED.tobytes().removeprefix(b"Exif\0\0")
    return f"\nexif\n{len(content):8}\n{content.hex()}\n"


def exif_behind_pixels(image: Image.Image) -> bytes:
    content = encoded(image, exif=TURNED)
    at = content.index(b"eXIf") - 4
    end = at + 12 + int.from_bytes(content[at : at + 4], "big")
    return content[:at] + content[end:-12] + content[at:end] + content[-12:]


@pytest.mark.parametrize("mode", ["RGB", "L", "LA"])
@pytest.mark.parametrize("where", ["raw profile", "xmp", "xmp of tiff", "behind the pixels"])
def test_header_and_pixels_agree_on_the_orientation(where, mode):
    image = Image.new(mode, (60, 40))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = XMP.encode()
    content = {
        "raw profile": lambda: encoded(image, pnginfo=png_texts(Raw_profile_type_exif=raw_profile())),
        "xmp": lambda: encoded(image, pnginfo=png_texts(**{"XML:com.adobe.xmp": XMP})),
        "xmp of tiff": lambda: encoded(image, "TIFF", tiffinfo=tags),
        "behind the pixels": lambda: exif_behind_pixels(image),
    }[where]()
    facts = inspect(content)
    upright = (40, 60) if where in ("raw profile", "xmp") else (60, 40)
    assert (facts.width, facts.height) == decode(content).picture.size == upright
    assert decode_mask(DerivedMask(content, alpha=True)).size == upright
    if mode == "L":
        assert decode_mask(LabelMap(content, (0,))).size == upright


def test_16_bit_grey_is_scaled():
    ramp = np.linspace(0, 65535, 32 * 32).round().astype(np.uint16).reshape(32, 32)
    found = decode(encoded(Image.fromarray(ramp)))
    np.testing.assert_array_equal(np.asarray(found.picture)[..., 0], np.round(ramp / 257).astype(np.uint8))
    assert "1/257" in found.conversions[0].reason


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_laid_on_white(mode):
    layered = Image.new("RGBA", (32, 32), (200, 0, 0, 255))
    layered.paste((255, 0, 255, 0), (0, 0, 16, 32))
    if mode == "P":
        layered = layered.convert("RGB").quantize(4)
        layered.info["transparency"] = layered.getpixel((0, 0))
    found = decode(encoded(layered.convert(mode)))
    assert found.picture.mode == "RGB"
    assert found.picture.getpixel((4, 4)) == (255, 255, 255)
    assert found.picture.getpixel((28, 4)) != (255, 255, 255)
    assert "transparent" in found.conversions[0].reason


def test_half_transparent_pixels_are_mixed():
    found = decode(encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 128)))).picture.getpixel((3, 3))
    assert found[0] == pytest.approx(127, abs=1)


@pytest.mark.parametrize(("mode", "kind"), [("L", "PNG"), ("CMYK", "JPEG"), ("1", "PNG"), ("P", "GIF")])
def test_other_modes_become_rgb(mode, kind):
    found = decode(encoded(picture(32, 32).convert(mode), kind))
    assert found.picture.mode == "RGB"
    assert found.conversions[0].reason == f"{mode} to RGB"
    grey = picture(32, 32).convert("RGB")
    if mode == "CMYK":
        assert np.abs(np.asarray(found.picture, float) - np.asarray(grey, float)).mean() < 6


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (32, 32), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    found = decode(data)
    assert found.picture.getpixel((5, 5)) == (255, 0, 0)
    assert found.conversions[0] == inspect(data).conversions[0]
    assert (found.conversions[0].action, found.conversions[0].reason) == ("warned", "only the first frame is used")


def test_plain_rgb_is_untouched():
    found = decode(encoded(picture(33, 44)))
    assert found.conversions == ()
    np.testing.assert_array_equal(np.asarray(found.picture), np.asarray(picture(33, 44)))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF"])
def test_truncated_pictures_are_rejected(kind):
    data = encoded(picture(128, 128), kind)
    for share in (0.5, 0.9):
        with pytest.raises(PictureError) as caught:
            decode(data[: int(len(data) * share)])
        assert caught.value.finding.action == "skipped"


def test_load_truncated_images_is_rejected(monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES must be False"):
        decode(encoded(picture(32, 32)))


def test_limits_are_checked_on_the_header():
    limits = PictureLimits(min_side=20, max_aspect=3, max_pixels=5000)
    for size, reason in [((19, 19), "too small"), ((20, 61), "long and narrow"), ((80, 80), "too many pixels")]:
        with pytest.raises(PictureError, match=reason):
            inspect(encoded(Image.new("RGB", size)), limits)
    assert inspect(encoded(Image.new("RGB", (20, 60))), limits).height == 60


def test_pillows_global_limit_is_left_alone():
    before = Image.MAX_IMAGE_PIXELS
    huge = encoded(Image.new("1", (16000, 16000)))  # 256 Mpixel
    large = encoded(Image.new("1", (10000, 10000)))  # 100 Mpixel: Pillow would only warn
    for data in (huge, large):
        with pytest.raises(PictureError, match="too many pixels"):
            inspect(data)
    assert before == Image.MAX_IMAGE_PIXELS


def test_missing_empty_and_other_files(tmp_path):
    empty = tmp_path / "empty.jpg"
    empty.touch()
    for source, reason in [
        (tmp_path / "none.jpg", "does not exist"),
        (tmp_path, "can't be read: not a regular file"),
        (empty / "a.jpg", "can't be read: Not a directory"),
        (tmp_path / "a\0b.jpg", "can't be read: .*embedded null "),
        (empty, "empty"),
        (b"", "empty"),
        (b"<html>", "not a picture"),
        (b"\x89PNG\r\n\x1a\n", "not a picture"),
    ]:
        with pytest.raises(PictureError, match=reason):
            inspect(source)


def test_name_and_content_differ(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(picture(32, 32), "WEBP"))
    assert [finding.action for finding in inspect(path).conversions] == ["warned"]
    assert "content is WEBP" in decode(path).conversions[0].reason


def test_floats_have_no_known_range():
    with pytest.raises(PictureError, match="range"):
        inspect(encoded(Image.fromarray(np.zeros((32, 32), np.float32)), "TIFF"))


def test_transparent_parts_of_a_mask_are_outside():
    mask = Image.new("LA", (32, 32), (255, 255))
    mask.paste((255, 0), (0, 0, 16, 32))
    found = decode_mask(encoded(mask))
    assert found.mode == "L"
    assert (found.getpixel((3, 3)), found.getpixel((30, 3))) == (0, 255)


def test_errors_travel_from_workers():
    error = pickle.loads(pickle.dumps(PictureError("too small", "a.png")))
    assert (str(error), error.finding.reason) == ("too small (a.png)", "too small")


@pytest.mark.parametrize("look", [inspect, decode, decode_mask, byte_length])
def test_files_that_are_not_regular_are_rejected_without_blocking(tmp_path, look):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "dangling.jpg").symlink_to(tmp_path / "nowhere.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name, reason in {
        "pipe.jpg": "can't be read: not a regular file",
        "folder.jpg": "can't be read: not a regular file",
        "dangling.jpg": "file does not exist",
        "loop.jpg": f"can't be read: {os.strerror(errno.ELOOP)}",
    }.items():
        with pytest.raises(PictureError) as caught:
            look(tmp_path / name)
        assert caught.value.finding == ("skipped", reason, name)


def test_all_bytes_of_a_file_or_the_reason(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"content")
    assert read_bytes(path) == read_bytes(b"content") == b"content"
    assert byte_length(path) == byte_length(b"content") == 7
    with pytest.raises(PictureError, match="can't be read: Is a directory"):
        read_bytes(tmp_path)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="needs a file whose reading the system refuses")
def test_a_file_that_opens_and_cannot_be_read():
    # A process's own memory is a regular file that opens; reading its first page is an I/O error, as on a bad disk.
    with pytest.raises(PictureError, match="can't be read: Input/output error"):
        read_bytes(Path("/proc/self/mem"))


def grey_png(values_hw: np.ndarray, bits: int) -> bytes:
    """A grey PNG of 1, 2, 4, 8 or 16 bits a pixel, which Pillow can't write; a row's pixels must fill bytes."""
    height, width = values_hw.shape
    flat = ((values_hw[..., None].astype(np.uint16) >> np.arange(bits)[::-1]) & 1).astype(np.uint8)
    lines = b"".join(b"\0" + np.packbits(row).tobytes() for row in flat.reshape(height, -1))

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(lines)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_label_maps_of_grey_png_are_read_without_loss(bits):
    values_hw = np.random.default_rng(bits).integers(0, min(2**bits, 18), (24, 32))
    labels = (1, 3, 11)
    found = decode_mask(LabelMap(grey_png(values_hw, bits), labels))
    assert (found.mode, found.size) == ("L", (32, 24))
    assert np.array_equal(np.asarray(found), np.isin(values_hw, labels) * np.uint8(255))


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_label_maps_of_palette_png_are_read_by_index(bits):
    values_hw = np.random.default_rng(bits).integers(0, min(2**bits, 18), (24, 32)).astype(np.uint8)
    image = Image.fromarray(values_hw, "L")
    image.putpalette(bytes([7, 7, 7] * 256))  # all of one colour: nothing but the index can tell them apart
    found = decode_mask(LabelMap(encoded(image, bits=bits, transparency=0), (1, 11)))
    assert np.array_equal(np.asarray(found), np.isin(values_hw, (1, 11)) * np.uint8(255))


def test_label_maps_are_turned_upright():
    values_hw = np.zeros((24, 32), np.uint8)
    values_hw[:4] = 5
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    found = decode_mask(LabelMap(encoded(Image.fromarray(values_hw), exif=exif), (5,)))
    assert found.size == (24, 32)
    assert np.array_equal(np.asarray(found)[:, -4:], np.full((32, 4), 255))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (encoded(picture(32, 24)), "label map has not one number a pixel"),
        (encoded(picture(32, 24).convert("L"), "JPEG"), "label map is in a lossy format"),
        (grey_png(np.ones((24, 32), np.uint8), 8)[:50], "picture is cut off or damaged"),
    ],
    ids=["colours", "jpeg", "cut"],
)
def test_invalid_label_maps_are_rejected(content, reason):
    with pytest.raises(PictureError, match=reason):
        decode_mask(LabelMap(content, (1,)))
