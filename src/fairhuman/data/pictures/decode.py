"""Read picture headers and decode pictures to upright sRGB; truncated files are rejected.

Pillow detects the type by content, among a fixed list of formats. Pillow's defaults that silently corrupt pictures
are handled here: `convert` clips 16-bit grey to white, transparent pixels show their hidden colour, the EXIF
orientation and the colour profile are ignored, and with LOAD_TRUNCATED_IMAGES the missing part of a truncated file
becomes grey.

A file's first picture alone is decoded, and nothing is read of others but whether there is one. Decoding holds the
file and at most `BYTES_PER_PIXEL` for each pixel.
"""

import errno
import hashlib
import io
import struct
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageFile, ImageOps
from PIL.TiffImagePlugin import ImageFileDirectory_v2
from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.pictures.colours import GREY16, PROFILE, colour_finding, to_8_bits, to_srgb
from fairhuman.data.pictures.room import DecodingRoom
from fairhuman.data.pictures.stored import PictureError, byte_length, picture_name, read_bytes, unreadable
from fairhuman.errors import DataError
from fairhuman.record import DerivedMask, Finding, LabelMap, MaskSource, Stored
from fairhuman.regions.boxes import shorten

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
# reasons of findings
TRANSPARENT = "transparent pixels laid on the background"
FIRST_FRAME = "only the first frame is used"
TURNED_UPRIGHT = "turned upright by its EXIF orientation"
PILLOW_LIMIT = 1024**3 // 4 // 3  # Pillow's default of MAX_IMAGE_PIXELS, which is neither read nor changed here
NARROW_GREY = {"L;2": 85, "L;4": 17}  # factors by which Pillow scales grey of 2 and 4 bits to 0..255
TURNS = {  # EXIF orientation: what makes it upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
TURNED = (5, 6, 7, 8)  # EXIF orientations that swap width and height
BYTES_PER_PIXEL = 20  # most that decoding holds besides the file, for any format; see docs/security.md
STRIP = 2**20  # pixels that are converted at once
MAX_ENTRIES = 2**20  # numbers in a directory of TIFF or EXIF; each takes up to 250 bytes in Python
PNG = b"\x89PNG\r\n\x1a\n"
ROOM = DecodingRoom(2**30)  # bytes that the threads of a process may hold together, or else one of them alone


def silence_directories() -> None:
    """Let Pillow say nothing of odd entries of TIFF or EXIF: several lines for each, on the terminal."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")


def _limit_directories() -> None:
    """Let Pillow read at most `MAX_ENTRIES` numbers of a directory of TIFF or EXIF."""
    readers = ImageFileDirectory_v2._load_dispatch
    for kind, (size, read) in readers.items():
        if kind not in (1, 2, 7):  # bytes and texts
            readers[kind] = size, _limited(size, read)


def _limited(size: int, read: Callable[..., Any]) -> Callable[..., Any]:
    def limited(directory: Any, content: bytes, legacy_api: bool = True) -> Any:
        directory.entries_read = getattr(directory, "entries_read", 0) + len(content) // size
        if directory.entries_read > MAX_ENTRIES:
            raise PictureError(f"a directory of TIFF or EXIF has more than {MAX_ENTRIES} numbers")
        return read(directory, content, legacy_api)

    return limited


silence_directories()
_limit_directories()


class PictureLimits(Settings):
    """Limits of a picture, all checked from the header before decoding."""

    min_side: int = Field(default=16, ge=1, description="pixels of the shorter side")
    max_aspect: float = Field(default=8.0, ge=1.0, description="longer side / shorter side")
    max_pixels: int = Field(default=PILLOW_LIMIT, ge=1, le=PILLOW_LIMIT, description="width times height")


DEFAULT_LIMITS = PictureLimits()
ANY_SHAPE = PictureLimits(min_side=1, max_aspect=1e6)  # such as for a condition, which has the size of its picture


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Facts from a header: type by content, *upright* size, and the conversions that decoding makes."""

    kind: str
    width: int
    height: int
    conversions: tuple[Finding, ...]


class DecodedPicture(NamedTuple):
    """An upright RGB picture and the conversions that were made."""

    picture: Image.Image
    conversions: tuple[Finding, ...]


def open_image(source: Stored, limits: PictureLimits = DEFAULT_LIMITS) -> Image.Image:
    """Open a picture of one of `FORMATS` without decoding it; its header is within the limits.

    Raises:
        PictureError: as `inspect`.
    """
    name = picture_name(source)
    if not byte_length(source):
        raise PictureError("file is empty (0 bytes)", name)
    try:
        image = _open_any(source)
    except PictureError:
        raise
    except MemoryError as error:
        raise _damaged(source, error) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PictureError("too many pixels, refused from the header", _describe_error(source, error)) from error
    except Exception as error:  # a parser may raise anything on a file of another kind
        if _is_system_error(error):
            raise unreadable(source, error) from error
        raise PictureError("not a picture", f"{name} begins with {repr(_start(source))[1:]}") from error
    try:
        _check_limits(image, name, limits)
    except PictureError:
        image.close()
        raise
    return image


def inspect(source: Stored, limits: PictureLimits = DEFAULT_LIMITS) -> PictureFacts:
    """Read the header of a picture, without decoding it.

    Raises:
        PictureError: the file is missing, unreadable, empty or not a picture, or the picture exceeds the limits.
    """
    with open_image(source, limits) as image:
        try:
            width, height = _upright_size(image)
            return PictureFacts(str(image.format), width, height, _conversions(image, source))
        except Exception as error:  # the check for a second frame reads beyond the header
            raise _damaged(source, error) from error


def read_texts(source: Stored, limits: PictureLimits = DEFAULT_LIMITS) -> dict[str, str]:
    """Read the text entries in the header of a picture, without decoding it.

    Raises:
        PictureError: as `inspect`.
    """
    with open_image(source, limits) as image:
        return {str(name): str(value) for name, value in image.info.items() if isinstance(value, str)}


def pixel_digest(content: bytes) -> bytes:
    """SHA-256 by which caches know what `decode` makes of a picture's bytes.

    It is that of the bytes alone, unless their colours are converted, which earlier versions didn't do.
    """
    digest = hashlib.sha256(content)
    try:
        with open_image(content, ANY_SHAPE) as image:
            finding = colour_finding(image, "")
    except PictureError:
        finding = None  # it has no pixels
    if finding is not None and finding.action == "converted":
        digest.update(b" sRGB 1")  # the number is raised when the conversion changes
    return digest.digest()


def decode(
    source: Stored, limits: PictureLimits = DEFAULT_LIMITS, *, longest: int | None = None, mask: bool = False
) -> DecodedPicture:
    """Decode a picture to upright RGB, 8 bits, sRGB.

    The EXIF orientation is applied, 16-bit grey scaled by 1/257, transparency composited on white, grey, palette and
    CMYK converted, and colours with a profile too (`fairhuman.data.pictures.colours`). Of an animation, the first frame
    is used. If only `longest` pixels of the longer side are needed, as for a thumbnail, a JPEG may be decoded at a
    half, a quarter or an eighth of its size, which saves time and memory. Of a `mask`, transparency is composited on
    black, and numbers stay as they are stored, whatever colours a profile says they are.

    Raises:
        PictureError: as `inspect`; or the file is truncated or damaged.
        DataError: there is not enough memory; or PIL.ImageFile.LOAD_TRUNCATED_IMAGES is True, so truncated files would
            go unnoticed.
    """
    _check_truncated_images_raise()
    image = open_image(source, limits)
    if longest is not None:
        scale = longest / max(image.size)
        image.draft(None, (max(1, round(scale * image.width)), max(1, round(scale * image.height))))
    try:
        with _room_for(image):
            with image:
                conversions, pixels = _conversions(image, source), _load_upright(image)
            del image  # and what its decoder holds
            return DecodedPicture(_to_rgb(pixels, mask), conversions)
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
    return decode(mask, limits, mask=True).picture.convert("L")


def _decode_labels(mask: LabelMap, limits: PictureLimits) -> Image.Image:
    _check_truncated_images_raise()
    with open_image(mask.stored, limits) as image:
        name = picture_name(mask.stored)
        if image.mode not in ("1", "L", "P", *GREY16):
            raise PictureError("label map has not one number a pixel", f"{name} has the mode {image.mode}")
        if image.format == "JPEG":
            raise PictureError("label map is in a lossy format", f"{name} is JPEG")
        try:
            tile = image.tile[:1] if isinstance(image, ImageFile.ImageFile) else []
            factor = NARROW_GREY.get(str(tile[0].args), 1) if tile else 1
            with _room_for(image):
                return Image.fromarray(_painted(np.asarray(_load_upright(image)), factor, mask.labels))
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(mask.stored, error) from error


def _painted(values_hw: NDArray[Any], factor: int, labels: Sequence[int]) -> NDArray[np.uint8]:
    """255 where a value / `factor` is one of the labels, else 0, both [H, W]."""
    table = np.isin(np.arange(2**16) // factor, labels).astype(np.uint8) * 255
    painted_hw = np.empty(values_hw.shape, np.uint8)
    for row, values in zip(painted_hw, values_hw, strict=True):  # NumPy's indices have 8 bytes each
        row[:] = table[values.astype(np.uint16, copy=False)]
    return painted_hw


def _decode_opacity(source: Stored, limits: PictureLimits) -> Image.Image:
    _check_truncated_images_raise()
    with open_image(source, limits) as image:
        try:
            with _room_for(image):
                return _load_upright(image).convert("RGBA").getchannel("A")
        except Exception as error:  # a decoder may raise anything on a damaged file
            raise _damaged(source, error) from error


def _room_for(image: Image.Image) -> AbstractContextManager[None]:
    return ROOM.holding(BYTES_PER_PIXEL * image.width * image.height)


def _check_truncated_images_raise() -> None:
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise DataError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES must be False: if it is True, truncated pictures decode to partly "
            "grey ones without an error"
        )


def _open_any(source: Stored) -> Image.Image:
    """Open a picture; one whose colour profile is too long for Pillow without it."""
    try:
        image = Image.open(source if isinstance(source, Path) else io.BytesIO(read_bytes(source)), formats=FORMATS)
        if image.format == "TIFF":
            image.info.pop("xmp", None)  # Pillow would turn by its orientation, and report the size without it
        return image
    except ValueError:
        rest = _without_profile(read_bytes(source))
        if rest is None:
            raise
        image = Image.open(io.BytesIO(rest), formats=("PNG",))
        image.info[PROFILE] = None
        return image


def _without_profile(content: bytes) -> bytes | None:
    """A PNG without its colour profile; None if it has none, or is none."""
    at = len(PNG)
    while content.startswith(PNG) and at + 8 <= len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"iCCP":
            return content[:at] + content[at + 12 + length :]
        if kind == b"IDAT":
            break
        at += 12 + length
    return None


def _check_limits(image: Image.Image, name: str, limits: PictureLimits) -> None:
    width, height = image.size
    shown = f"{name} is {width}x{height}"
    if width * height > limits.max_pixels:
        raise PictureError("too many pixels, refused from the header", f"{shown}, more than {limits.max_pixels}")
    if image.format == "TIFF":
        tile = image.tag_v2.get(322, 0) * image.tag_v2.get(323, 0)  # type: ignore[attr-defined]  # width, height
        if tile > max(width * height, 2**20):  # each tile is decoded whole
            raise PictureError("too many pixels, refused from the header", f"{shown}, in tiles of {tile} pixels")
    if max(width, height) > limits.max_aspect * min(width, height):
        raise PictureError("too long and narrow", f"{shown}, max_aspect is {limits.max_aspect:g}")
    if min(width, height) < limits.min_side:
        raise PictureError("too small", f"{shown}, min_side is {limits.min_side}")
    if image.mode in ("I", "F"):
        raise PictureError("no known range of brightness", f"{name} has 32 bits a pixel, mode {image.mode}")


def _orientation(image: Image.Image) -> int:
    """EXIF orientation by the header, 1 = upright; decodes no pixels."""
    if image.format == "TIFF":  # Pillow rotates TIFF itself, and reports the upright size
        return 1
    try:  # the method of PNG would decode the pixels to find EXIF behind them
        return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except PictureError:
        raise
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
        found.append(Finding("warned", FIRST_FRAME, name))
    if _orientation(image) in range(2, 9):
        found.append(Finding("converted", TURNED_UPRIGHT, f"{name}, orientation {_orientation(image)}"))
    if image.mode in GREY16:
        found.append(Finding("converted", "16-bit grey scaled by 1/257", name))
    elif image.has_transparency_data:
        found.append(Finding("converted", TRANSPARENT, name))
    elif image.mode != "RGB":
        found.append(Finding("converted", f"{image.mode} to RGB", name))
    colours = colour_finding(image, name)
    return tuple(found if colours is None else [*found, colours])


def _load_upright(image: Image.Image) -> Image.Image:
    """Load an opened picture: upright, in its own mode; without a copy, its file and its decoder."""
    turn = TURNS.get(_orientation(image))  # before loading, which may find another behind the pixels
    image.load()
    return image._new(image.im if turn is None else image.im.transpose(turn))


def _to_rgb(image: Image.Image, mask: bool) -> Image.Image:
    """Convert to RGB in strips, so that no more than the picture and its result are held."""
    finding = None if mask else colour_finding(image, "")
    converts = finding is not None and finding.action == "converted"
    if finding is not None and not converts:
        del image.info[PROFILE]
    if image.mode == "RGB" and not image.has_transparency_data and not converts:
        return image
    rows = max(1, STRIP // image.width)
    converted = Image.new("RGB", image.size)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        converted.paste(_strip_to_rgb(strip, "black" if mask else "white", converts), (0, top))
    return converted


def _strip_to_rgb(image: Image.Image, background: str, converts: bool) -> Image.Image:
    image = to_srgb(image) if converts else to_8_bits(image)
    if image.has_transparency_data:
        layered = image.convert("RGBA")
        canvas = Image.new("RGBA", layered.size, background)
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


def _damaged(source: Stored, error: Exception) -> DataError:
    """A PictureError with the reason; a lack of memory isn't the picture's fault, so no record is left out for it."""
    if isinstance(error, MemoryError) or str(error).startswith("out of memory"):  # the latter from Pillow's decoders
        return DataError(
            f"{picture_name(source)}: there is not enough memory to decode it; use fewer workers or processes, or "
            "lower limits.max_pixels"
        )
    if _is_system_error(error):
        return unreadable(source, error)
    return PictureError("picture is cut off or damaged", _describe_error(source, error))


def _describe_error(source: Stored, error: Exception) -> str:
    return shorten(f"{picture_name(source)}: {error or type(error).__name__}", 200)
