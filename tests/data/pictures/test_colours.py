"""Colours: what a profile says is what training sees; sRGB stays as it is, and a bad profile costs no picture."""

import hashlib
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.pictures.colours import CONVERTED, MAX_PROFILE, TOLERANCE, UNUSABLE
from fairhuman.data.pictures.decode import DEFAULT_LIMITS, decode, decode_mask, inspect, pixel_digest
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.rows import CHANGED, read_checked_bytes
from fairhuman.data.pipeline.write import encode_for_storage
from fairhuman.data.samples.views import content_hash
from fairhuman.record import HumanRecord, LabelMap
from fairhuman.refine.canvas import Canvas
from helpers.colour_profiles import ADOBE, P3, SRGB, SWAPPED, cmyk_profile, grey_profile, rgb_profile, to_srgb
from helpers.tiny_pictures import encoded, picture

RED, BLUE = (230, 60, 60), (60, 60, 230)


def reasons(content):
    """Action and reason of what was found, which the header says too."""
    found = decode(content).conversions
    assert found == inspect(content).conversions
    return [(finding.action, finding.reason) for finding in found]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_is_seen_as_viewers_show_it(kind):
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 100, "subsampling": 0}, "AVIF": {"quality": 100}}
    image = Image.new("RGB", (32, 24), RED)
    content = encoded(image, kind, icc_profile=rgb_profile(SWAPPED), **lossless.get(kind, {}))
    seen = np.asarray(decode(content).picture).astype(int)
    assert np.abs(seen - BLUE).max() <= 3
    assert reasons(content) == [("converted", CONVERTED)]


@pytest.mark.parametrize(("primaries", "curve"), [(P3, "sRGB"), (ADOBE, 2.19921875), (SRGB, 1.8)])
def test_wide_spaces_follow_their_formula(primaries, curve):
    image = picture(40, 30)
    seen = decode(encoded(image, icc_profile=rgb_profile(primaries, curve))).picture
    expected = to_srgb(np.asarray(image), primaries, curve)
    assert np.abs(np.asarray(seen) - expected).max() < 2
    assert np.abs(np.asarray(seen) - np.asarray(image, float)).max() > 10


def test_a_profile_that_is_srgb_in_effect_changes_no_bit():
    image = picture(40, 30)
    for profile in (rgb_profile(name="of another name"), rgb_profile(SRGB, "sRGB", "sRGB IEC61966-2.1")):
        content = encoded(image, icc_profile=profile)
        assert np.array_equal(np.asarray(decode(content).picture), np.asarray(image))
        assert reasons(content) == []
        assert pixel_digest(content) == hashlib.sha256(content).digest()
        assert encode_for_storage(content, DEFAULT_LIMITS)[0] == content
    assert TOLERANCE < 4  # no eye sees the difference


def test_a_name_alone_makes_no_profile_srgb():
    content = encoded(Image.new("RGB", (32, 24), RED), icc_profile=rgb_profile(SWAPPED, name="sRGB IEC61966-2.1"))
    assert decode(content).picture.getpixel((3, 3)) == pytest.approx(BLUE, abs=1)


def test_grey_with_a_curve():
    ramp = np.tile(np.arange(256, dtype=np.uint8), (64, 1))
    seen = np.asarray(decode(encoded(Image.fromarray(ramp), icc_profile=grey_profile(1.0))).picture)
    expected = to_srgb(np.repeat(ramp[..., None], 3, -1), SRGB, 1.0)
    assert np.abs(seen - expected).max() < 2
    plain = encoded(Image.fromarray(ramp), icc_profile=grey_profile())
    assert np.array_equal(np.asarray(decode(plain).picture)[..., 0], ramp)
    deep = encoded(Image.fromarray(ramp.astype(np.uint16) * 257), icc_profile=grey_profile(1.0))
    assert np.array_equal(np.asarray(decode(deep).picture), seen)


def test_inks_are_printed_as_their_profile_says():
    inks = Image.new("CMYK", (32, 24), (255, 0, 0, 0))
    inks.paste((0, 0, 0, 0), (0, 0, 16, 24))
    content = encoded(inks, "TIFF", icc_profile=cmyk_profile())
    seen = decode(content).picture
    red, green, blue = seen.getpixel((28, 4))
    assert green > red + 60
    assert green > blue + 60
    assert min(seen.getpixel((4, 4))) >= 254
    assert reasons(content) == [("converted", "CMYK to RGB"), ("converted", CONVERTED)]


@pytest.mark.parametrize("mode", ["RGBA", "P"])
def test_transparent_pixels_lie_on_a_white_that_is_not_converted(mode):
    image = Image.new("RGBA", (32, 32), (*RED, 255))
    image.paste((*RED, 0), (0, 0, 16, 32))
    if mode == "P":
        image = Image.fromarray(np.asarray(image)[..., 3] // 255, "P")
        image.putpalette([0, 255, 0, *RED])
        image.info["transparency"] = 0
    seen = decode(encoded(image, icc_profile=rgb_profile(SWAPPED))).picture
    assert seen.getpixel((0, 0)) == (255, 255, 255)
    assert seen.getpixel((28, 4)) == pytest.approx(BLUE, abs=1)


def png_with_profile(image: Image.Image, packed: bytes) -> bytes:
    """A PNG whose chunk of a profile holds these compressed bytes."""
    plain = encoded(image)
    body = b"iCCP" + b"name\0\0" + packed
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return plain[:33] + chunk + plain[33:]


def test_an_unusable_profile_is_dropped_and_counted():
    image = picture(40, 30)
    swapped = rgb_profile(SWAPPED)
    for content in (
        encoded(image, icc_profile=b"no profile at all"),
        encoded(image, icc_profile=swapped[:300]),
        encoded(image, icc_profile=grey_profile()),
        encoded(image, icc_profile=cmyk_profile()),
        encoded(image, "TIFF", icc_profile=swapped + bytes(MAX_PROFILE)),
        png_with_profile(image, b"not compressed"),
        png_with_profile(image, zlib.compress(swapped + bytes(2**21))),  # longer than Pillow reads
    ):
        found = decode(content)
        assert np.array_equal(np.asarray(found.picture), np.asarray(image))
        assert reasons(content) == [("dropped", UNUSABLE)]
        assert "icc_profile" not in found.picture.info
        assert pixel_digest(content) == hashlib.sha256(content).digest()


def test_random_damage_of_a_profile_never_costs_the_picture():
    generator = np.random.default_rng(0)
    profiles = [rgb_profile(P3), grey_profile(1.8), cmyk_profile()]
    images = [picture(16, 16), picture(16, 16).convert("L"), picture(16, 16).convert("CMYK")]
    for number in range(30):
        content = np.frombuffer(profiles[number % 3], np.uint8).copy()
        content[generator.integers(0, len(content), 1 + number)] = generator.integers(0, 256)
        found = decode(encoded(images[number % 3], "TIFF", icc_profile=content.tobytes()))
        assert found.picture.size == (16, 16)


def test_a_mask_is_no_colour():
    ramp = Image.fromarray(np.tile(np.arange(32, dtype=np.uint8) * 8, (16, 1)))
    content = encoded(ramp, icc_profile=grey_profile(1.0))
    assert np.array_equal(np.asarray(decode_mask(content)), np.asarray(ramp))
    labelled = np.asarray(decode_mask(LabelMap(content, (8,))))
    assert labelled.any(axis=0).nonzero()[0].tolist() == [1]


def test_caches_of_unconverted_pixels_are_not_used():
    content = encoded(picture(40, 30), icc_profile=rgb_profile(P3))
    before = hashlib.sha256(content)
    assert pixel_digest(content) != before.digest()
    assert content_hash(content) == pixel_digest(content).hex() != before.hexdigest()
    record = HumanRecord("a", content, 40, 30, "", location="a.png")
    with pytest.raises(PictureError, match=CHANGED):  # so a build that began before checks it again
        read_checked_bytes(record, before.digest())
    assert read_checked_bytes(record, pixel_digest(content)) == content


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_converted_picture_is_stored_without_its_profile(kind):
    content = encoded(picture(40, 30), kind, icc_profile=rgb_profile(P3))
    stored, suffix = encode_for_storage(content, DEFAULT_LIMITS)
    assert suffix == {"JPEG": "jpg", "PNG": "png"}[kind]
    assert [finding.reason for finding in inspect(stored).conversions] == []
    assert b"ICC" not in stored
    assert b"iCCP" not in stored
    difference = np.asarray(decode(stored).picture, float) - np.asarray(decode(content).picture)
    assert np.abs(difference).mean() <= (0 if kind == "PNG" else 3)


def test_a_refined_picture_is_srgb_throughout():
    image = Image.new("RGBA", (32, 24), (*RED, 128))
    canvas = Canvas.read(encoded(image, icc_profile=rgb_profile(SWAPPED)))
    assert canvas.pixels[3, 3].tolist() == pytest.approx([*BLUE, 128], abs=1)
    written = canvas.png()
    assert [finding.reason for finding in inspect(written).conversions] == ["transparent pixels laid on the background"]
    kept = Canvas.read(encoded(image, icc_profile=rgb_profile()))
    assert kept.pixels[3, 3].tolist() == [*RED, 128]
    assert kept.kept["icc_profile"] == rgb_profile()
