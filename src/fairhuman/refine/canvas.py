"""A picture that can be edited locally: its pixels in their native mode and the file's metadata.

Modes that are kept: grey, grey with alpha, RGB, RGBA, 16-bit grey. Bilevel pictures become grey; palettes and other
colour spaces become RGB, or RGBA if the picture has transparency; so do colours with another profile than sRGB. The
EXIF orientation is applied.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from fairhuman.data.pictures.colours import GREY16, OTHER_COLOURS, PROFILE, colour_finding, to_srgb
from fairhuman.data.pictures.decode import decode, open_image
from fairhuman.detect.detection import Picture

Pixels = NDArray[Any]  # [H, W], [H, W, 2], [H, W, 3] or [H, W, 4], uint8; of 16-bit grey [H, W], uint16

_KEPT = ("exif", PROFILE, "dpi")
_QUICK = 1  # zlib level of temporary PNGs


@dataclass(frozen=True, slots=True, eq=False)
class Canvas:
    """One upright picture.

    Attributes:
        pixels: pixels in the picture's native mode.
        texts: text entries of a PNG.
        kept: EXIF, colour profile and resolution as arguments of Pillow's PNG writer.
        animated: whether the file has more frames than the first one, which `pixels` holds; the further pictures of an
            MPO, as phones write it, are none.
    """

    pixels: Pixels
    texts: Mapping[str, str]
    kept: Mapping[str, Any]
    animated: bool = False

    @classmethod
    def read(cls, content: bytes) -> "Canvas":
        """Read a picture's file.

        Raises:
            PictureError: it isn't a usable picture; see `fairhuman.data.pictures.decode`.
        """
        decode(content)  # raises if the picture isn't usable
        with open_image(content) as image:
            animated = image.format != "MPO" and bool(getattr(image, "is_animated", False))
            image.load()
            texts = {key: str(value) for key, value in getattr(image, "text", {}).items()}
            upright = ImageOps.exif_transpose(image)
            kept = {key: upright.info[key] for key in _KEPT if upright.info.get(key)}
            if colour_finding(upright, "") is not None or image.mode in OTHER_COLOURS:
                kept.pop(PROFILE, None)  # it no longer applies
            upright = to_srgb(upright)
            return cls(_pixels(upright), texts, kept, animated)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.pixels.shape[1], self.pixels.shape[0]

    def rgb(self) -> Picture:
        """The RGB picture [H, W, 3], uint8, as decoded from the written file."""
        return np.asarray(decode(self.png(level=_QUICK)).picture)

    def with_pixels(self, pixels: Pixels) -> "Canvas":
        """A copy with other pixels."""
        return replace(self, pixels=pixels)

    def png(self, further: Mapping[str, str] | None = None, level: int = 6) -> bytes:
        """Encode as PNG, with further text entries."""
        information = PngInfo()
        for key, value in {**self.texts, **(further or {})}.items():
            information.add_itxt(key, value)
        stream = io.BytesIO()
        Image.fromarray(self.pixels).save(stream, "PNG", pnginfo=information, compress_level=level, **self.kept)
        return stream.getvalue()


def _pixels(image: Image.Image) -> Pixels:
    if image.mode in GREY16:
        return np.asarray(image).astype(np.uint16)
    grey = image.mode in ("1", "L", "LA", "La")
    mode = ("LA" if grey else "RGBA") if image.has_transparency_data else "L" if grey else "RGB"
    return np.array(image.convert(mode))
