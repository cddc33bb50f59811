"""Anonymised pictures of a study: files that differ only in what they show."""

import io
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from fairhuman.data.pictures.encode import encode_jpeg
from fairhuman.evaluate.people.degrade import blur, pixelate

QUALITY = 95  # JPEG quality, without chroma subsampling, to avoid artefacts on faces and hands
CELLS, SIGMA = 20, 0.03  # degradation of attention checks: cells along the longer side; blur as a fraction of it
SHARP = "sharp"
PASSES = 4  # encodings of an equalized picture; after these, one more or less makes no difference that can be measured
SHARE = 7 / 8  # side of an equalized picture; not a multiple of the 8 x 8 blocks' grid, so the blocks don't stay

Tables = tuple[tuple[int, ...], ...]  # quantisation tables of a JPEG, 64 numbers each


@dataclass(frozen=True, slots=True)
class Recoding:
    """An encoding that all pictures go through, so that none shows which encoding it had before."""

    tables: Tables
    sampling: str

    def apply(self, picture: Image.Image) -> Image.Image:
        """Encode a picture as JPEG in its own size, and decode it, `PASSES` times."""
        tables = [list(table) for table in self.tables]
        recoded = picture.convert("RGB")
        for _ in range(PASSES):
            buffer = io.BytesIO()
            recoded.save(buffer, "JPEG", qtables=tables, subsampling=self.sampling)
            with Image.open(buffer) as encoded:
                recoded = encoded.convert("RGB")
        return recoded


def smallest_size(sizes: Iterable[tuple[int, int]]) -> tuple[int, int]:
    """The smallest width and the smallest height."""
    widths, heights = zip(*sizes, strict=True)
    return min(widths), min(heights)


def equalized(pictures: Mapping[str, Image.Image], recoding: Recoding) -> dict[str, Image.Image]:
    """Recode all, then resize all once, to 7/8 of the smallest width and height among them."""
    size = smallest_size(picture.size for picture in pictures.values())
    target = (max(1, round(size[0] * SHARE)), max(1, round(size[1] * SHARE)))
    return {name: ImageOps.fit(recoding.apply(one), target, Image.Resampling.LANCZOS) for name, one in pictures.items()}


def fit_to_smallest(pictures: Mapping[str, Image.Image]) -> dict[str, Image.Image]:
    """Resize all to the smallest width and height among them; centre-cropped if aspect ratios differ."""
    size = smallest_size(picture.size for picture in pictures.values())
    return {
        name: one if one.size == size else ImageOps.fit(one, size, Image.Resampling.LANCZOS)
        for name, one in pictures.items()
    }


def degraded_versions(picture: Image.Image, shown: int) -> dict[str, Image.Image]:
    """The pictures of an attention check: the original as `SHARP`, and `shown` - 1 clearly degraded versions, all
    different.
    """
    pixels = np.asarray(picture)
    squares = pixelate(pixels, CELLS)
    worse = {"pixelated": squares, "blurred": blur(pixels, SIGMA), "pixelated and blurred": blur(squares, SIGMA / 2)}
    for step in range(1, shown - len(worse)):
        worse[f"blurred {step + 1}"] = blur(pixels, SIGMA * (1 + step / 2))
    return {SHARP: picture, **{name: Image.fromarray(worse[name]) for name in list(worse)[: shown - 1]}}


def write_alike(pictures: Mapping[str, Image.Image], folder: Path) -> dict[str, str]:
    """Write pictures of the same size under random names, as files of the same length; return the names.

    All use the same encoding without metadata. Shorter files are padded after the end of the image data, where decoders
    stop, with random bytes, which a compressing proxy can't shrink.
    """
    # A new image drops the original's metadata.
    plain = {name: Image.fromarray(np.asarray(picture.convert("RGB"))) for name, picture in pictures.items()}
    encoded = {name: encode_jpeg(picture, QUALITY) for name, picture in plain.items()}
    length = max(map(len, encoded.values()))
    names = {}
    for name, content in encoded.items():
        names[name] = f"{secrets.token_hex(16)}.jpg"
        (folder / names[name]).write_bytes(content + secrets.token_bytes(length - len(content)))
    return names
