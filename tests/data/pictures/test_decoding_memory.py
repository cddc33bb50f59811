"""Memory of decoding: a stated number of bytes a pixel, for one picture and for the threads of a process."""

import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from fairhuman.data.pictures.decode import BYTES_PER_PIXEL, ROOM, decode, decode_mask
from fairhuman.data.pictures.room import DecodingRoom
from fairhuman.record import DerivedMask, LabelMap
from fairhuman.utils.memory import peak_resident_bytes
from helpers.colour_profiles import P3, rgb_profile
from helpers.tiny_pictures import encoded, picture

SIDE = 2400
REFS = Path("/proc/self/clear_refs")


def peak_of(action) -> int:
    """Bytes that an action adds to the resident memory of this process at its peak."""
    REFS.write_text("5")  # resets the peak
    before = peak_resident_bytes()
    action()
    return peak_resident_bytes() - before


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    return exif


@pytest.mark.skipif(not REFS.exists(), reason="needs Linux to measure a peak")
@pytest.mark.parametrize(
    ("mode", "kind", "options", "bound"),
    [
        ("RGB", "PNG", {}, 6),
        ("RGB", "JPEG", {"exif": turned()}, 9.5),
        ("RGB", "PNG", {"icc_profile": rgb_profile(P3)}, 12),
        ("RGBA", "PNG", {}, 12),
        ("P", "PNG", {"transparency": 0}, 9.5),
        ("I;16", "PNG", {}, 10),
        ("RGB", "WEBP", {}, BYTES_PER_PIXEL),
    ],
    ids=["rgb", "turned", "profile", "rgba", "palette", "grey16", "webp"],
)
def test_decoding_holds_a_bounded_number_of_bytes_a_pixel(mode, kind, options, bound):
    image = Image.new(mode, (SIDE, SIDE)) if mode != "I;16" else Image.fromarray(np.zeros((SIDE, SIDE), np.uint16))
    content = encoded(image, kind, **options)
    del image
    assert peak_of(lambda: decode(content)) < bound * SIDE**2 + 4e6


@pytest.mark.skipif(not REFS.exists(), reason="needs Linux to measure a peak")
@pytest.mark.parametrize("mode", ["1", "L", "I;16"])
def test_a_label_map_holds_few_bytes_a_pixel_however_many_labels(mode):
    image = Image.new(mode, (SIDE, SIDE)) if mode != "I;16" else Image.fromarray(np.zeros((SIDE, SIDE), np.uint16))
    mask = LabelMap(encoded(image), tuple(range(1, 2000)))
    del image
    assert peak_of(lambda: decode_mask(mask)) < 6 * SIDE**2 + 4e6


@pytest.mark.parametrize(
    "make", [lambda content: LabelMap(content, (1,)), lambda content: DerivedMask(content, alpha=True)]
)
def test_masks_wait_for_room_as_pictures_do(monkeypatch, make):
    asked = []
    holding = ROOM.holding
    monkeypatch.setattr(ROOM, "holding", lambda amount: asked.append(amount) or holding(amount))
    decode_mask(make(encoded(Image.new("L", (40, 30)))))
    assert asked == [BYTES_PER_PIXEL * 40 * 30]


def test_a_jpeg_for_a_thumbnail_is_decoded_small():
    content = encoded(picture(1600, 1200), "JPEG", exif=turned())
    found = decode(content, longest=300).picture
    assert found.size == (300, 400)
    whole = decode(content).picture.resize(found.size, Image.Resampling.BOX)
    assert np.abs(np.asarray(found, float) - np.asarray(whole)).mean() < 2
    assert decode(encoded(picture(160, 120)), longest=30).picture.size == (160, 120)


def test_threads_hold_no_more_than_the_room_together():
    room, now, most = DecodingRoom(100), [], []
    lock = threading.Lock()

    def hold(amount):
        with room.holding(amount):
            with lock:
                now.append(amount)
                most.append(sum(now))
            threading.Event().wait(0.002)
            with lock:
                now.remove(amount)

    threads = [threading.Thread(target=hold, args=(amount,)) for amount in [40, 30, 250, 60, 10, 100, 90, 20] * 3]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=10)
    assert len(most) == 24
    assert now == []
    assert max(most) == 250  # alone
    assert max(amount for amount in most if amount != 250) <= 100


# A process of its own, as one that has run for long may have freed memory to decode in.
SHORT_OF_MEMORY = """
import resource, sys
from pathlib import Path
from fairhuman.data.pictures.decode import decode
large, small = (Path(name).read_bytes() for name in sys.argv[1:])
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
before = resource.getrlimit(resource.RLIMIT_AS)
resource.setrlimit(resource.RLIMIT_AS, (used + 2**24, before[1]))
try:
    decode(large)
except Exception as error:
    print(type(error).__name__, error)
resource.setrlimit(resource.RLIMIT_AS, before)
print(decode(small).picture.size)
"""


@pytest.mark.skipif(not REFS.exists(), reason="needs Linux to limit the memory")
def test_a_lack_of_memory_is_not_the_pictures_fault(tmp_path):
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    large.write_bytes(encoded(Image.new("1", (9000, 9000))))
    small.write_bytes(encoded(picture(32, 32)))
    command = [sys.executable, "-c", SHORT_OF_MEMORY, large, small]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert re.match(r"DataError .*not enough memory to decode it", said), "no PictureError, which leaves a record out"
    assert said.endswith("(32, 32)\n")


def test_room_is_given_back_when_decoding_fails():
    with pytest.raises(Exception, match="cut off"):
        decode(encoded(picture(128, 128))[:2000])
    assert ROOM._held == 0
