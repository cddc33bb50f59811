"""Files with several pictures: the first alone counts, and neither the others' number nor size costs anything."""

import io
import struct
import time
import tracemalloc
import warnings
import zlib

import pytest
from PIL import Image

from fairhuman.data.pictures.decode import PictureLimits, decode, inspect, silence_directories
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.write import encode_for_storage
from fairhuman.utils.memory import peak_resident_bytes
from helpers.tiny_pictures import encoded, picture

RED, LIME = Image.new("RGB", (32, 24), "red"), Image.new("RGB", (32, 24), "lime")
KINDS = ("GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF")


def gif_frame(size: tuple[int, int]) -> bytes:
    """A frame of a GIF, without most of its pixels."""
    return b"," + struct.pack("<HHHHB", 0, 0, *size, 0) + b"\x02\x02\x44\x01\0"


def gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    """A GIF whose frame has another size than its screen."""
    head = b"GIF89a" + struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes([255, 0, 0, 0, 255, 0])
    return head + gif_frame(frame) + b";"


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_of_several_pictures_is_used(kind):
    content = encoded(RED, kind, save_all=True, append_images=[LIME, Image.new("RGB", (32, 24), "blue")])
    found = decode(content, PictureLimits(max_pixels=32 * 24))
    assert max(abs(a - b) for a, b in zip(found.picture.getpixel((5, 5)), (255, 0, 0), strict=True)) < 12
    assert found.conversions[0].reason == "only the first frame is used"


def test_the_size_of_a_frame_counts_and_not_that_of_its_screen():
    assert inspect(gif((32, 24), (32, 24))).width == 32
    with pytest.raises(PictureError, match="too many pixels"):
        inspect(gif((32, 24), (60000, 50000)))
    with pytest.raises(PictureError, match="too many pixels"):
        decode(gif((32, 24), (400, 300)), PictureLimits(max_pixels=90_000))


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "MPO"])
def test_a_huge_second_picture_is_never_decoded(kind):
    huge = Image.new("L", (6000, 6000))
    if kind == "GIF":
        content = encoded(RED, "GIF")[:-1] + gif_frame((65000, 65000)) + b";"
    else:
        content = encoded(RED, kind, save_all=True, append_images=[huge])
    before = peak_resident_bytes()
    assert decode(content, PictureLimits(max_pixels=32 * 24)).picture.size == (32, 24)
    assert peak_resident_bytes() - before < 36e6


def test_the_number_of_pictures_costs_nothing():
    lime = Image.new("RGB", (32, 24), "lime")
    chained = encoded(RED.copy(), "TIFF", save_all=True, append_images=[lime] * 300)
    animated = encoded(RED, "GIF")[:-1] + gif_frame((32, 24)) * 100_000 + b";"
    started = time.process_time()
    for content in (chained, animated):
        assert decode(content).picture.size == (32, 24)
    assert time.process_time() - started < 0.5


def test_a_png_that_claims_four_billion_frames():
    plain = encoded(RED)
    body = b"acTL" + struct.pack(">II", 2**31, 0)
    content = plain[:33] + struct.pack(">I", 8) + body + struct.pack(">I", zlib.crc32(body)) + plain[33:]
    found = decode(content)
    assert found.picture.getpixel((3, 3)) == (255, 0, 0)
    assert found.conversions[0].reason == "only the first frame is used"


def test_a_huge_canvas_is_refused_from_the_header():
    webp = bytearray(encoded(picture(32, 24), "WEBP", save_all=True, append_images=[LIME]))
    assert webp[12:16] == b"VP8X"
    webp[24:30] = struct.pack("<I", 16382)[:3] * 2
    before = peak_resident_bytes()
    with pytest.raises(PictureError, match=r"too many pixels|not a picture"):
        inspect(bytes(webp))
    assert peak_resident_bytes() - before < 100e6


@pytest.mark.parametrize("kind", ["ICO", "ICNS", "EPS", "PDF"])
def test_files_of_nested_pictures_and_of_programs_are_none(kind):
    target = io.BytesIO()
    Image.new("RGB", (128, 128), "red").save(target, kind)
    with pytest.raises(PictureError, match="not a picture"):
        inspect(target.getvalue())


def test_a_tiff_whose_tiles_are_larger_than_its_picture_is_refused():
    """Each tile is decoded whole: a small picture in one tile of 40,000 x 40,000 pixels would take 1.5 GB."""
    tags = [
        (256, 32),
        (257, 32),
        (258, 8),
        (259, 8),
        (262, 1),
        (277, 1),
        (322, 40_000),
        (323, 40_000),
        (324, 200),
        (325, 8),
    ]
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags))
    content = head + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags) + bytes(4)
    with pytest.raises(PictureError, match="too many pixels") as found:
        inspect(content.ljust(208, b"\0"))
    assert "in tiles of 1600000000 pixels" in str(found.value)


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_mpo_is_stored_as_a_jpeg(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(RED, "MPO", save_all=True, append_images=[RED.resize((8, 6))], exif=exif)
    assert Image.open(io.BytesIO(content)).format == "MPO"
    stored, kind = encode_for_storage(content, PictureLimits(min_side=1))
    assert kind == "jpg"
    assert (stored == content) == (orientation == 1)
    assert Image.open(io.BytesIO(stored)).format == ("MPO" if orientation == 1 else "JPEG")
    assert decode(stored).picture.size == decode(content).picture.size == RED.size[:: 1 if orientation == 1 else -1]


def orientations(count: int) -> bytes:
    """EXIF whose one entry, the orientation, has many numbers."""
    return struct.pack("<2sHIHHHIII", b"II", 42, 8, 1, 274, 3, count, 26, 0) + b"\1\0" * count


@pytest.mark.parametrize("kind", ["TIFF", "JPEG", "PNG"])
def test_a_directory_with_millions_of_numbers_is_not_unpacked(kind):
    """A number of two bytes takes 8 to 32 in Python."""
    if kind == "TIFF":
        plain = {256: 32, 257: 24, 259: 1, 262: 1, 277: 1, 278: 24, 279: 768}
        entries = [(tag, 3, 1, value) for tag, value in plain.items()]
        entries = sorted([*entries, (258, 3, 3_000_000, 1000), (273, 4, 1, 200)])
        head = struct.pack("<2sHIH", b"II", 42, 8, len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
        content = head.ljust(1000, b"\0") + bytes(6_000_000)
    elif kind == "JPEG":
        content, exif = encoded(RED, "JPEG"), orientations(3_000_000)
        parts = [exif[at : at + 65_000] for at in range(0, len(exif), 65_000)]
        segments = [b"\xff\xe1" + struct.pack(">H", len(part) + 8) + b"Exif\0\0" + part for part in parts]
        content = content[:2] + b"".join(segments) + content[2:]
    else:
        exif = orientations(3_000_000)
        content = encoded(RED, "PNG")
        content = content[:33] + struct.pack(">I", len(exif)) + b"eXIf" + exif + bytes(4) + content[33:]
        at = 33 + 8 + len(exif)
        content = content[:at] + struct.pack(">I", zlib.crc32(b"eXIf" + exif)) + content[at + 4 :]
    tracemalloc.start()
    for read in (inspect, decode):
        with pytest.raises(PictureError, match="a directory of TIFF or EXIF has more than 1048576 numbers"):
            read(content)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 6 * len(content)


def test_odd_entries_of_a_directory_say_nothing_on_the_terminal():
    odd = orientations(9)[:-4]
    content = encoded(RED, "JPEG")
    content = content[:2] + b"\xff\xe1" + struct.pack(">H", len(odd) + 8) + b"Exif\0\0" + odd + content[2:]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        silence_directories()
        assert decode(content).picture.size == (32, 24)
    assert not said
