"""The pictures of a study as people get them: alike in everything but what they show."""

import io
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fairhuman.evaluate.people.degrade import blur, pixelate

QUALITY = 95  # of JPEG, with full colour resolution: no artefact that a face or hand could be blamed for
CELLS, SIGMA = 20, 0.03  # of attention checks: squares along the longer side; spread in parts of it
SHARP = "sharp"


def fit(pictures: Mapping[str, Image.Image]) -> dict[str, Image.Image]:
    """All in the smallest width and the smallest height among them: reduced, the middle cut out where shapes differ."""
    size = (min(one.width for one in pictures.values()), min(one.height for one in pictures.values()))
    return {
        name: one if one.size == size else ImageOps.fit(one, size, Image.Resampling.LANCZOS)
        for name, one in pictures.items()
    }


def spoil(picture: Image.Image, shown: int) -> dict[str, Image.Image]:
    """The pictures of an attention check: `SHARP`, the picture itself, and `shown` - 1 that are plainly worse."""
    pixels = np.asarray(picture)
    squares = pixelate(pixels, CELLS)
    worse = {"pixelated": squares, "blurred": blur(pixels, SIGMA), "pixelated and blurred": blur(squares, SIGMA / 2)}
    return {SHARP: picture, **{name: Image.fromarray(worse[name]) for name in list(worse)[: shown - 1]}}


def write_alike(pictures: Mapping[str, Image.Image], folder: Path) -> dict[str, str]:
    """Write pictures of one size under random names, files of one length; return the names.

    One encoding for all, nothing but pixels in it. What a file is short of the longest is filled up behind the end of
    the picture, where decoders stop, with random bytes, which don't shrink when a proxy compresses.
    """
    encoded = {name: _jpeg(picture) for name, picture in pictures.items()}
    length = max(map(len, encoded.values()))
    names = {}
    for name, content in encoded.items():
        names[name] = f"{secrets.token_hex(16)}.jpg"
        (folder / names[name]).write_bytes(content + secrets.token_bytes(length - len(content)))
    return names


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    # A fresh picture: the old one carries what its file said of itself
    Image.fromarray(np.asarray(picture.convert("RGB"))).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
