"""Picture files of a set, readable by browsers and `datasets`."""

from collections.abc import Mapping

from fairhuman.data.pictures.decode import FIRST_FRAME, TURNED_UPRIGHT, PictureLimits, decode, inspect
from fairhuman.data.pictures.encode import encode_png
from fairhuman.data.pictures.stored import read_bytes
from fairhuman.record import HumanRecord

SUFFIXES: Mapping[str, str] = {
    "JPEG": ".jpg",
    "MPO": ".jpg",  # a JPEG with additional pictures, which viewers ignore
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "AVIF": ".avif",
}


def picture_file(record: HumanRecord, limits: PictureLimits) -> tuple[str, bytes]:
    """Suffix and content: the source's bytes if viewers show the same picture as training sees, else a PNG.

    Browsers play animations, and apply the EXIF orientation reliably only to JPEG; other such pictures become PNG.

    Raises:
        PictureError: the picture can't be used.
    """
    facts = inspect(record.image, limits)
    suffix = SUFFIXES.get(facts.kind)
    reasons = {finding.reason for finding in facts.conversions}
    rotated = suffix != ".jpg" and TURNED_UPRIGHT in reasons
    if suffix is not None and not rotated and (facts.kind == "MPO" or FIRST_FRAME not in reasons):
        return suffix, read_bytes(record.image)
    return ".png", encode_png(decode(record.image, limits).picture)
