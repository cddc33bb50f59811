"""Read picture headers and decode pictures to upright RGB; truncated files are rejected.

Pillow detects the type by content, among a fixed list of formats. Pillow's defaults that silently corrupt pictures
are handled here: `convert` clips 16-bit grey to white, transparent pixels show their hidden colour, the EXIF
orientation is ignored, and with LOAD_TRUNCATED_IMAGES the missing part of a truncated file becomes grey.
"""

import errno
import io
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps
from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.pictures.stored import PictureError, byte_length, picture_name, read_bytes, unreadable
from fairhuman.errors import DataError
from fairhuman.record import DerivedMask, Finding, LabelMap, MaskSource, Stored
from fairhuman.regions.boxes import shorten

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
WHITE = (255, 255, 255)
TRANSPARENT = "transparent pixels laid on the background"  # reason of a finding
PILLOW_LIMIT = 1024**3 // 4 // 3  # Pillow's default of MAX_IMAGE_PIXELS, which is neither read nor changed here
NARROW_GREY = {"L;2": 85, "L;4": 17}  # factors by which Pillow scales grey of 2 and 4 bits to 0..255
GREY16 = ("I;16", "I;16B", "I;16L", "I;16N")
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class PictureLimits(Settings):
    """Limits of a picture, all checked from the header before decoding."""

    min_side: int = Field(default=16, ge=1, description="pixels of the shorter side")
    max_aspect: float = Field(default=8.0, ge=1.0, description="longer side / shorter side")
    max_pixels: int = Field(default=PILLOW_LIMIT, ge=1, le=PILLOW_LIMIT, description="width times height")


DEFAULT_LIMITS = PictureLimits()


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Facts from a header: type by content, Pillow's mode, *upright* size, and the conversions that decoding makes."""

    kind: str
    mode: str
    width: int
    height: int
    conversions: tuple[Finding, ...]


class DecodedPicture(NamedTuple):
    """An upright RGB picture and the conversions that were made."""

    picture: Image.Image
    conversions: tuple[Finding, ...]


def inspect(source: Stored, limits: PictureLimits = DEFAULT_LIMITS) -> PictureFacts:
    """Read the header of a picture, without decoding it.

    Raises:
        PictureError: the file is missing, unreadable, empty or not a picture, or the picture exceeds the limits.
    """
    with _open(source, limits) as image:
        try:
            width, height = _upright_size(image)
            return PictureFacts(str(image.format), image.mode, width, height, _conversions(image, source))
        except Exception as error:  # the check for a second frame reads beyond the header
            raise _damaged(source, error) from error


def decode(
    source: Stored, limits: PictureLimits = DEFAULT_LIMITS, background: tuple[int, int, int] = WHITE
) -> DecodedPicture:
    """Decode a picture to upright RGB, 8 bits.

    The EXIF orientation is applied, 16-bit grey scaled by 1/257, transparency composited on `background`, and
    grey, palette and CMYK converted. Of an animation, the first frame is used.

    Raises:
        PictureError: as `inspect`; or the file is truncated or damaged.
        DataError: PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, so truncated files would go unnoticed.
    """
    _check_truncated_images_raise()
    with _open(source, limits) as image:
        try:
            conversions = _conversions(image, source)
            image.load()
            return DecodedPicture(_to_rgb(ImageOps.exif_transpose(image), background), conversions)
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(source, error) from error


def decode_mask(mask: MaskSource, limits: PictureLimits = DEFAULT_LIMITS) -> Image.Image:
    """Decode a painted mask: upright, mode L, white = region; transparent pixels are outside the region.

    In a label map, the region consists of the pixels whose value (or palette index) is one of the labels. See
    `DerivedMask` for masks that are inverted or the opacity of a picture, which is 255 everywhere in one without alpha.

    Raises:
        PictureError: as `decode`; or a label map is in colour or in a lossy format.
        DataError: as `decode`.
    """
    if isinstance(mask, LabelMap):
        return _decode_labels(mask, limits)
    if isinstance(mask, DerivedMask):
        painted = _decode_opacity(mask.stored, limits) if mask.alpha else decode_mask(mask.stored, limits)
        painted = painted if mask.size is None else painted.resize(mask.size, Image.Resampling.BILINEAR)
        return ImageOps.invert(painted) if mask.inverted else painted
    return decode(mask, limits, background=(0, 0, 0)).picture.convert("L")


def _decode_labels(mask: LabelMap, limits: PictureLimits) -> Image.Image:
    _check_truncated_images_raise()
    with _open(mask.stored, limits) as image:
        name = picture_name(mask.stored)
        if image.mode not in ("1", "L", "P", *GREY16):
            raise PictureError("label map has not one number a pixel", f"{name} has the mode {image.mode}")
        if image.format == "JPEG":
            raise PictureError("label map is in a lossy format", f"{name} is JPEG")
        try:
            tile = image.tile[:1] if isinstance(image, ImageFile.ImageFile) else []
            factor = NARROW_GREY.get(str(tile[0].args), 1) if tile else 1
            image.load()
            labels_hw = np.asarray(ImageOps.exif_transpose(image)) // factor
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(mask.stored, error) from error
    return Image.fromarray(np.isin(labels_hw, mask.labels).astype(np.uint8) * 255)


def _decode_opacity(source: Stored, limits: PictureLimits) -> Image.Image:
    _check_truncated_images_raise()
    with _open(source, limits) as image:
        try:
            image.load()
            return ImageOps.exif_transpose(image).convert("RGBA").getchannel("A")
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(source, error) from error


def _check_truncated_images_raise() -> None:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES must be False: if it is True, truncated pictures decode to partly "
            "grey ones without an error"
        )


def _open(source: Stored, limits: PictureLimits) -> Image.Image:
    """Open a picture and check its limits; raise a PictureError with the reason."""
    name = picture_name(source)
    if not byte_length(source):
        raise PictureError("file is empty (0 bytes)", name)
    try:
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(read_bytes(source)), formats=FORMATS)
    except PictureError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("too many pixels, refused from the header", _describe_error(source, error)) from error
    except Exception as error:  # a parser may raise anything on a file of another kind
        if _is_system_error(error):
            raise unreadable(source, error) from error
        raise PictureError("not a picture", f"{name} begins with {_start(source)!r}") from error
    try:
        _check_limits(image, name, limits)
    except PictureError:
        image.close()
        raise
    return image


def _check_limits(image: Image.Image, name: str, limits: PictureLimits) -> None:
    width, height = image.size
    shown = f"{name} is {width}x{height}"
    if width * height > limits.max_pixels:
        raise PictureError("too many pixels, refused from the header", f"{shown}, more than {limits.max_pixels}")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise PictureError("too long and narrow", f"{shown}, max_aspect is {limits.max_aspect:g}")
    if min(width, height) < limits.min_side:
        raise PictureError("too small", f"{shown}, min_side is {limits.min_side}")
    if image.mode in ("I", "F"):
        raise PictureError("no known range of brightness", f"{name} has 32 bits a pixel, mode {image.mode}")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 = upright; decodes no pixels."""
    if image.format == "TIFF":  # Pillow rotates TIFF itself, and reports the upright size
        return 1
    if image.format == "PNG" and "exif" not in image.info:  # getexif would decode the pixels to find EXIF behind them
        return 1
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF: use the stored orientation, as Pillow does
        return 1


def _upright_size(image: Image.Image) -> tuple[int, int]:
    width, height = image.size
    return (height, width) if _orientation(image) in TURNED else (width, height)


def _conversions(image: Image.Image, source: Stored) -> tuple[Finding, ...]:
    """The conversions of `decode` and oddities, as far as the header shows."""
    name = picture_name(source)
    found: list[Finding] = []
    if isinstance(source, Path):
        expected = Image.registered_extensions().get(source.suffix.lower())
        if expected and {expected, image.format} - {"JPEG", "MPO"} and expected != image.format:
            found.append(Finding("warned", f"content is {image.format}, not what the name says", name))
    if getattr(image, "is_animated", False):
        found.append(Finding("warned", "only the first frame is used", name))
    if _orientation(image) in range(2, 9):
        found.append(
            Finding("converted", "turned upright by its EXIF orientation", f"{name}, orientation {_orientation(image)}")
        )
    if image.mode in GREY16:
        found.append(Finding("converted", "16-bit grey scaled by 1/257", name))
    elif image.has_transparency_data:
        found.append(Finding("converted", TRANSPARENT, name))
    elif image.mode != "RGB":
        found.append(Finding("converted", f"{image.mode} to RGB", name))
    return tuple(found)


def _to_rgb(image: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    if image.mode in GREY16:
        grey_hw = np.asarray(image).astype(np.uint32)
        return Image.fromarray(((grey_hw + 128) // 257).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        canvas = Image.new("RGBA", layered.size, (*background, 255))
        return Image.alpha_composite(canvas, layered).convert("RGB")
    return image.convert("RGB")


def _start(source: Stored) -> bytes:
    if not isinstance(source, Path):
        return read_bytes(source)[:16]
    try:
        with source.open("rb") as file:
            return file.read(16)
    except OSError as error:
        raise unreadable(source, error) from error


def _is_system_error(error: Exception) -> bool:
    """Whether the operating system raised the error; Pillow's own OSErrors, about the content, have no errno.

    EINVAL is about the content too: a damaged file made the parser seek before the start.
    """
    return isinstance(error, OSError) and error.errno not in (None, errno.EINVAL)


def _damaged(source: Stored, error: Exception) -> PictureError:
    if _is_system_error(error):
        return unreadable(source, error)
    return PictureError("picture is cut off or damaged", _describe_error(source, error))


def _describe_error(source: Stored, error: Exception) -> str:
    return shorten(f"{picture_name(source)}: {error or type(error).__name__}", 200)
