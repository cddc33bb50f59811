"""Hugging Face's imagefolder layout: pictures and `metadata.jsonl`, `.csv` or `.parquet`, or such a folder per split.

Columns: `file_name` (path inside the folder), `caption` or `text`, `faces`, `hands`, `persons`, any other region's
name, `masks` (by region: a path, {bytes, path}, or {path, labels} of a label map), `pose`, `depth`, `split`, `width`,
`height`, `key`, `attributes` (other fields, by name).
https://huggingface.co/docs/datasets/image_dataset

`reviewed.jsonl`, which `fairhuman data review --apply` writes, takes the place of the metadata: what was dropped is
gone, and prompts are those of the review.
"""

import os
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.columns import ONE_MASK
from fairhuman.data.sources.folder import find_pictures, folder_rows
from fairhuman.data.sources.parquet import read_rows
from fairhuman.data.sources.review import METADATA_ROW, REVIEWED, is_reviewed, note_review
from fairhuman.data.sources.rows import STAGE, Row, printable
from fairhuman.data.sources.text_rows import csv_rows, jsonl_rows
from fairhuman.errors import DataError
from fairhuman.record import Finding


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
    files = metadata_files(folder)
    if not files and is_reviewed(folder):
        return folder_rows(folder, LoadReport())
    note_review(folder, report)
    if not files:
        raise DataError(f"{folder}: expected {', '.join(METADATA)}; found none of them")
    return _listed_rows(folder, files, report)


def _listed_rows(folder: Path, files: Sequence[Path], report: LoadReport) -> Iterator[Row]:
    """The rows of metadata files; pictures that none of them names are noted."""
    named: set[str] = set()
    for file in files:
        split = file.parent.name if file.parent != folder else None
        for row in METADATA[file.name](file, report):
            values = row.values if split is None else _of_split(row.values, split)
            named.update(_paths(values))
            yield Row(row.location if split is None else f"{split}/{row.location}", values)
    others = [found.name for found in find_pictures(folder, LoadReport()) if found.name not in named]
    if others:
        finding = Finding("warned", "pictures without a line are not read", f"{len(others)}, such as {others[0]}")
        report.add(printable(files[0].relative_to(folder).as_posix()), STAGE, finding)


def _of_split(values: Mapping[str, Any], split: str) -> dict[str, Any]:
    """The columns of a row of a split's folder, with paths relative to the folder above."""

    def moved(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {**value, "path": moved(value.get("path"))}
        return f"{split}/{value}" if isinstance(value, str) else value

    paths = {name: moved(values[name]) for name in PICTURES if name in values}
    if isinstance(values.get("masks"), Mapping):
        paths["masks"] = {region: moved(mask) for region, mask in values["masks"].items()}
    return {"split": split, **values, **paths}


def _paths(values: Mapping[str, Any]) -> Iterator[str]:
    """Paths of a row's picture, masks and conditions."""
    masks = values.get("masks")
    for value in (*map(values.get, PICTURES), *(masks.values() if isinstance(masks, Mapping) else ())):
        path = value.get("path") if isinstance(value, Mapping) else value
        if isinstance(path, str):
            yield PurePosixPath(path).as_posix()


def metadata_files(folder: Path) -> list[Path]:
    """A folder's metadata file, readable or not, or those of its splits' folders; of several in a folder, the first."""
    places = (folder / split for split in SPLITS)
    own = _metadata(folder)
    return [own] if own else [file for place in places if not place.is_symlink() and (file := _metadata(place))]


def _metadata(folder: Path) -> Path | None:
    return next((folder / name for name in METADATA if os.path.lexists(folder / name)), None)


def is_imagefolder(path: Path) -> bool:
    """Whether a folder has a metadata file, one of a review, or folders of splits with a metadata file each."""
    return bool(metadata_files(path)) or is_reviewed(path)


def has_metadata(folder: Path) -> bool:
    """Whether a folder itself has a metadata file, or one of a review."""
    return _metadata(folder) is not None or is_reviewed(folder)


def _parquet_rows(path: Path, report: LoadReport) -> Iterator[Row]:  # noqa: ARG001 - the signature that METADATA needs
    return read_rows(path)


PARQUET = "metadata.parquet"
PICTURES = ("file_name", ONE_MASK, "pose", "pose_picture", "depth")  # columns of paths, besides those in `masks`
SPLITS = ("train", "val", "valid", "validation", "test")
METADATA: Mapping[str, Callable[[Path, LoadReport], Iterator[Row]]] = {
    "metadata.jsonl": jsonl_rows,
    "metadata.csv": csv_rows,
    PARQUET: _parquet_rows,
}
