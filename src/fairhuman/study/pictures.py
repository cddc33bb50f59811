"""Anonymised pictures of a study: files that differ only in what they show."""

import io
import secrets
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fairhuman.evaluate.people.degrade import blur, pixelate

QUALITY = 95  # JPEG quality, without chroma subsampling, to avoid artefacts on faces and hands
CELLS, SIGMA = 20, 0.03  # degradation of attention checks: cells along the longer side; blur as a fraction of it
SHARP = "sharp"


def fit_to_smallest(pictures: Mapping[str, Image.Image]) -> dict[str, Image.Image]:
    """Resize all to the smallest width and height among them; centre-cropped if aspect ratios differ."""
    size = (min(one.width for one in pictures.values()), min(one.height for one in pictures.values()))
    return {
        name: one if one.size == size else ImageOps.fit(one, size, Image.Resampling.LANCZOS)
        for name, one in pictures.items()
    }


def degraded_versions(picture: Image.Image, shown: int) -> dict[str, Image.Image]:
    """The pictures of an attention check: the original as `SHARP`, and `shown` - 1 clearly degraded versions."""
    pixels = np.asarray(picture)
    squares = pixelate(pixels, CELLS)
    worse = {"pixelated": squares, "blurred": blur(pixels, SIGMA), "pixelated and blurred": blur(squares, SIGMA / 2)}
    return {SHARP: picture, **{name: Image.fromarray(worse[name]) for name in list(worse)[: shown - 1]}}


def write_alike(pictures: Mapping[str, Image.Image], folder: Path) -> dict[str, str]:
    """Write pictures of the same size under random names, as files of the same length; return the names.

    All use the same encoding without metadata. Shorter files are padded after the end of the image data, where decoders
    stop, with random bytes, which a compressing proxy can't shrink.
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
    # A new image drops the original's metadata.
    Image.fromarray(np.asarray(picture.convert("RGB"))).save(buffer, "JPEG", quality=QUALITY, subsampling=0)
    return buffer.getvalue()
