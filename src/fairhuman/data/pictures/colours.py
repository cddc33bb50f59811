"""Convert pictures to sRGB, by the ICC profile that is embedded in their file.

A picture without a profile is taken as sRGB. So is one whose profile is sRGB in effect, whatever its name: its pixels
stay as they are. Conversion is LittleCMS's, relative colorimetric with black point compensation.
"""

import io
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms

from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten

CONVERTED = "colours converted to sRGB by their profile"  # reason of a finding
UNUSABLE = "colour profile can't be used, colours taken as sRGB"  # reason of a finding
PROFILE = "icc_profile"  # Pillow's name in `Image.info`
MAX_PROFILE = 4 * 2**20  # bytes; profiles of printers have up to 3 MiB
TOLERANCE = 3  # levels of 255, by which profiles named sRGB differ among each other, such as by rounded curves
OTHER_COLOURS = ("CMYK", "YCbCr", "LAB", "HSV")  # modes of pictures without RGB or grey
GREY16 = ("I;16", "I;16B", "I;16L", "I;16N")
GREYS = ("1", "L", "LA", "La", *GREY16)


class ProfileError(Exception):
    """A profile can't be used."""


class _Profile(NamedTuple):
    """A profile's description; its transform to sRGB, None if it is sRGB; and the mode that the transform reads."""

    description: str
    transform: ImageCms.ImageCmsTransform | None
    mode: str


def colour_finding(image: Image.Image, name: str) -> Finding | None:
    """What `to_srgb` does with the profile of a picture that is opened; None if there is none, or it is sRGB."""
    try:
        profile = _profile_of(image)
    except ProfileError as error:
        return Finding("dropped", UNUSABLE, f"{name}: {error}")
    if profile is None or profile.transform is None:
        return None
    return Finding("converted", CONVERTED, f"{name}, {profile.description}")


def to_srgb(image: Image.Image) -> Image.Image:
    """Convert a picture with a profile to sRGB: RGB, or RGBA if it has transparency. Others are returned unchanged.

    Opacity isn't a colour and stays.
    """
    try:
        profile = _profile_of(image)
    except ProfileError:
        return image
    if profile is None or profile.transform is None:
        return image
    stored, opacity = to_8_bits(image), None
    if stored.has_transparency_data:
        stored = stored.convert("RGBA")
        opacity = stored.getchannel("A")
    converted = profile.transform.apply(stored.convert(profile.mode))
    del converted.info[PROFILE]
    if opacity is not None:
        converted.putalpha(opacity)
    return converted


def to_8_bits(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey by 1/257 to mode L; other pictures are returned unchanged."""
    if image.mode not in GREY16:
        return image
    grey_hw = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((grey_hw + 128) // 257).astype(np.uint8))


def _profile_of(image: Image.Image) -> _Profile | None:
    if PROFILE not in image.info:
        return None
    content: Any = image.info[PROFILE]
    if not isinstance(content, bytes) or not content:  # Pillow leaves None where parts of it are missing or damaged
        raise ProfileError("it is damaged or too long")
    if len(content) > MAX_PROFILE:
        raise ProfileError(f"it has {len(content)} bytes, more than {MAX_PROFILE}")
    return _read_profile(content, image.mode)


@lru_cache(maxsize=32)
def _read_profile(content: bytes, mode: str) -> _Profile:
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(content))
        space = source.profile.xcolor_space.strip()
        reads = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}.get(space)
        fits = mode in GREYS if reads == "L" else mode == "CMYK" if reads == "CMYK" else mode not in OTHER_COLOURS
        if reads is None or not fits:
            raise ProfileError(f"it describes {space}, the picture has the mode {mode}")
        flags = ImageCms.Flags.BLACKPOINTCOMPENSATION
        if reads == "L":  # else a curve is interpolated between a few points
            flags |= ImageCms.Flags.NOOPTIMIZE
        srgb, intent = ImageCms.createProfile("sRGB"), ImageCms.Intent.RELATIVE_COLORIMETRIC
        transform = ImageCms.buildTransform(source, srgb, reads, "RGB", intent, flags)
        description = shorten(ImageCms.getProfileDescription(source).strip(), 60)
        return _Profile(description, None if _is_srgb(transform, reads) else transform, reads)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise ProfileError(shorten(str(error), 100)) from error


def _is_srgb(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Whether a transform changes no colour by more than `TOLERANCE`: of 17³ colours and 256 greys."""
    if mode == "CMYK":
        return False
    greys_h3 = np.arange(256, dtype=np.uint8).repeat(3).reshape(-1, 3)
    steps = np.linspace(0, 255, 17).round().astype(np.uint8)
    colours_h3 = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(-1, 3)
    probed_hw3 = greys_h3[None] if mode == "L" else np.concatenate([greys_h3, colours_h3])[None]
    probe = Image.fromarray(probed_hw3).convert(mode)
    changed_hw3 = np.asarray(transform.apply(probe)).astype(int) - probed_hw3
    return bool(np.abs(changed_hw3).max() <= TOLERANCE)
