"""Hugging Face's imagefolder layout: pictures and `metadata.jsonl`, `.csv` or `.parquet`.

Columns: `file_name` (path inside the folder), `caption` or `text`, `faces`, `hands`, `persons`, any other region's
name, `masks` (by region: a path, {bytes, path}, or {path, labels} of a label map), `pose`, `depth`, `split`, `width`,
`height`, `key`, `attributes` (other fields, by name).
https://huggingface.co/docs/datasets/image_dataset

`reviewed.jsonl`, which `fairhuman data review --apply` writes, takes the place of the metadata: what was dropped is
gone, and prompts are those of the review.
"""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.folder import folder_rows
from fairhuman.data.sources.parquet import read_rows
from fairhuman.data.sources.review import METADATA_ROW, REVIEWED, is_reviewed, note_review
from fairhuman.data.sources.rows import Row
from fairhuman.data.sources.text_rows import csv_rows, jsonl_rows
from fairhuman.errors import DataError


def imagefolder_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """The rows as reviewed, or else those of the metadata file."""
    if not is_reviewed(folder):
        return unreviewed_rows(folder, report)
    note_review(folder, report)
    return _with_embedded(folder, jsonl_rows(folder / REVIEWED, report))


def _with_embedded(folder: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Reviewed rows with the columns that JSON can't hold, such as embedded masks, from their row in the metadata."""
    table: list[Mapping[str, Any]] | None = None
    for row in rows:
        number = row.values.get(METADATA_ROW)
        if number is None:
            yield row
            continue
        if table is None:
            table = [each.values for each in read_rows(folder / PARQUET)]
        whole = table[number - 1] if type(number) is int and 0 < number <= len(table) else {}
        if whole.get("file_name") != row.values.get("file_name"):
            raise DataError(
                f"{folder / row.location}: {METADATA_ROW} must be the row of the same file_name in {PARQUET}, which "
                f"has changed since then; run again: fairhuman data review {shlex.quote(str(folder))} --apply"
            )
        yield Row(row.location, {**whole, **{name: row.values[name] for name in row.values if name != METADATA_ROW}})


def unreviewed_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """The rows of the metadata file, or of pictures without one that have been reviewed; whatever the review says."""
    name = metadata_name(folder)
    if name is None and is_reviewed(folder):
        return folder_rows(folder, LoadReport())
    note_review(folder, report)
    if name is None:
        raise DataError(f"{folder}: expected {', '.join(METADATA)}; found none of them")
    return METADATA[name](folder / name, report)


def metadata_name(folder: Path) -> str | None:
    """Name of a folder's metadata file, readable or not; of several, the first."""
    return next((name for name in METADATA if os.path.lexists(folder / name)), None)


def has_metadata(folder: Path) -> bool:
    """Whether a folder has a metadata file, or one of a review."""
    return metadata_name(folder) is not None or is_reviewed(folder)


def _parquet_rows(path: Path, report: LoadReport) -> Iterator[Row]:  # noqa: ARG001 - the signature that METADATA needs
    return read_rows(path)


PARQUET = "metadata.parquet"
METADATA: Mapping[str, Callable[[Path, LoadReport], Iterator[Row]]] = {
    "metadata.jsonl": jsonl_rows,
    "metadata.csv": csv_rows,
    PARQUET: _parquet_rows,
}
