"""Convert rows of the manifest to records, consistent with the check tier."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow
from PIL import Image

from fairhuman.data.pictures.decode import decode, pixel_digest
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.pipeline.manifest import ManifestRow
from fairhuman.data.sources import SourceSettings
from fairhuman.data.sources.rows import RecordReader
from fairhuman.record import Box, HumanRecord

CHANGED = "picture changed while the data set was built"
BOXES = pyarrow.list_(pyarrow.list_(pyarrow.float32()))  # x0, y0, x1, y1 and optionally the score

SEARCHED = "persons_searched"  # number of persons of whom parts of the body were looked for


@dataclass(frozen=True)
class RowReader:
    """Converts rows of one source to records, in any process; `root` is the folder of its files, `picture` a column."""

    root: Path
    picture: str
    regions: tuple[str, ...]
    source: SourceSettings

    def read(self, row: ManifestRow, report: LoadReport) -> HumanRecord | None:
        """The record of a row, with all its painted masks; None if it can't be used."""
        source_row = row.row(self.root)
        masks = source_row.values.get("masks")
        regions = [*self.regions, *(masks if isinstance(masks, Mapping) else ())]
        return RecordReader(source_row, self.root, regions, self.source, report).read(row.key, self.picture)

    def checked(self, row: ManifestRow, check: Mapping[str, Any]) -> HumanRecord:
        """The record of a row that passed the check, with the masks that passed.

        Raises:
            PictureError: the picture has changed since the check.
        """
        record = self.read(row, LoadReport())
        if record is None or (record.width, record.height) != (check["width"], check["height"]):
            raise PictureError(CHANGED, row.location)
        return replace(record, masks={name: mask for name, mask in record.masks.items() if name in check["masks"]})

    def decoded(self, record: HumanRecord, check: Mapping[str, Any]) -> Image.Image:
        """Decode the upright picture of a record from `checked`.

        Raises:
            PictureError: the picture can't be read, or has changed since the check.
        """
        return decode(read_checked_bytes(record, check["sha256"]), self.source.limits).picture


def read_checked_bytes(record: HumanRecord, sha256: bytes) -> bytes:
    """Read the bytes of a record's picture and compare their `pixel_digest`.

    Raises:
        PictureError: the bytes can't be read, or have changed since the check; or their colours weren't converted then.
    """
    content = read_bytes(record.image)
    if pixel_digest(content) != sha256:
        raise PictureError(CHANGED, record.location)
    return content


def boxes_to_lists(boxes: Sequence[Box] | None) -> list[list[float]] | None:
    """Convert boxes to lists of numbers, as stored in tables."""
    if boxes is None:
        return None
    return [[b.x0, b.y0, b.x1, b.y1] if b.score is None else [b.x0, b.y0, b.x1, b.y1, b.score] for b in boxes]


def person_columns(parts: Sequence[str]) -> list[tuple[str, pyarrow.DataType]]:
    """Columns about persons of a table with these parts of bodies: the number of each box's person, and how many."""
    columns = [(f"{part}_persons", pyarrow.list_(pyarrow.int32())) for part in parts]
    return [*columns, (SEARCHED, pyarrow.int32())] if columns else columns


def boxes_from_lists(rows: Sequence[Sequence[float]] | None) -> tuple[Box, ...] | None:
    """Convert lists of numbers from a table to boxes."""
    return None if rows is None else tuple(Box(*row) for row in rows)
