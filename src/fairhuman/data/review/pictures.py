"""The pictures to review, with their prompts, boxes and metadata rows."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.decode import PictureLimits, decode, inspect
from fairhuman.data.pictures.encode import encode_jpeg
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import read_bytes
from fairhuman.data.sources import SOURCES, SourceSettings, read_source, source_kind, with_edits
from fairhuman.data.sources.imagefolder import unreviewed_rows
from fairhuman.data.sources.own_regions import own_regions
from fairhuman.data.sources.rows import printable
from fairhuman.errors import DataError
from fairhuman.record import REGION_COLUMNS, HumanRecord

KINDS = ("imagefolder", "folder")
TYPES: Mapping[str, str] = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}


@dataclass(frozen=True, slots=True)
class ReviewPicture:
    """A record with its prompt, both with the changes made by hand, and its metadata row without them."""

    record: HumanRecord
    prompt: str
    row: Mapping[str, Any]


def load_pictures(folder: Path, settings: SourceSettings, report: LoadReport) -> dict[str, ReviewPicture]:
    """Load pictures by key, in the order of their source; the prompt is the row's `caption`, or else its `prompt`.

    Rows are those from before any review, so that decisions can be changed.

    Raises:
        DataError: the folder is neither an imagefolder nor a folder of pictures, or can't be read; see `read_source`.
    """
    kind = source_kind(folder, settings.format)
    if kind not in KINDS:
        raise DataError(
            f"{folder}: a review needs a folder of pictures, with or without metadata.jsonl; this is {kind}: make one "
            f"of some of its pictures with `fairhuman data validation {shlex.quote(str(folder))} val`"
        )
    source = SOURCES[kind] if kind == "folder" else replace(SOURCES["imagefolder"], rows=unreviewed_rows)
    rows = {row.location: row.values for row in source.read(folder, LoadReport())}
    source = with_edits(source)
    listed = list(source.read(folder, LoadReport()))
    regions = [
        region
        for region, column in REGION_COLUMNS.items()
        if any(isinstance(row.values.get(column), list) for row in listed)
    ]
    regions += own_regions(listed)
    pictures: dict[str, ReviewPicture] = {}
    for record in read_source(folder, regions, settings, report, source=source):
        row = rows[record.location]
        prompt = row.get("prompt")
        pictures[record.key] = ReviewPicture(
            record, record.caption or printable(prompt if isinstance(prompt, str) else ""), row
        )
    return pictures


def boxes_by_region(record: HumanRecord) -> dict[str, list[list[float]] | None]:
    """Boxes by region as x0, y0, x1, y1 in pixels of the upright picture; None = not annotated."""
    return {
        region: None if boxes is None else [[box.x0, box.y0, box.x1, box.y1] for box in boxes]
        for region, boxes in record.boxes.items()
    }


def browser_picture(record: HumanRecord, limits: PictureLimits) -> tuple[bytes, str]:
    """A picture for a browser and its media type: unchanged if browsers show it as training sees it, else a JPEG.

    Raises:
        PictureError: the picture can no longer be read.
    """
    facts = inspect(record.image, limits)
    if facts.kind in TYPES and not facts.conversions:
        return read_bytes(record.image), TYPES[facts.kind]
    return encode_jpeg(decode(record.image, limits).picture), "image/jpeg"
