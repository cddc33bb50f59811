"""Pictures of a set as files that browsers show and `datasets` reads."""

import io
from collections.abc import Mapping

from fairhuman.data.pictures.decode import PictureLimits, decode, inspect
from fairhuman.data.pictures.stored import read_bytes
from fairhuman.record import Box, HumanRecord

ENDINGS: Mapping[str, str] = {
    "JPEG": ".jpg",
    "MPO": ".jpg",  # a JPEG with further pictures behind it, which nobody shows
    "PNG": ".png",
    "WEBP": ".webp",
    "GIF": ".gif",
    "AVIF": ".avif",
}


def picture_file(record: HumanRecord, limits: PictureLimits) -> tuple[str, bytes]:
    """Ending and content: the source's own bytes where others see in them what training sees, else a PNG.

    A browser plays animations, and only of JPEG is it sure to follow the EXIF orientation; those become PNG.

    Raises:
        PictureError: the picture can't be used.

    """
    facts = inspect(record.image, limits)
    ending = ENDINGS.get(facts.kind)
    changed = {finding.reason for finding in facts.conversions}
    turned = ending != ".jpg" and "turned upright by its EXIF orientation" in changed
    if ending is not None and not turned and (facts.kind == "MPO" or "only the first frame is used" not in changed):
        return ending, read_bytes(record.image)
    buffer = io.BytesIO()
    decode(record.image, limits).picture.save(buffer, "PNG")
    return ".png", buffer.getvalue()


def box_numbers(box: Box) -> list[float]:
    """A box as sources hold it: x0, y0, x1, y1 in pixels, and its score if there is one."""
    corners = [box.x0, box.y0, box.x1, box.y1]
    return corners if box.score is None else [*corners, box.score]
