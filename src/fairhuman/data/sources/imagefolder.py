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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fairhuman.data.pictures.decode import inspect
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.sources.columns import CONDITION_COLUMNS, ONE_MASK
from fairhuman.data.sources.folder import composed, find_pictures
from fairhuman.data.sources.parquet import read_rows
from fairhuman.data.sources.photo_folders import plain_rows
from fairhuman.data.sources.review import METADATA_FILE, METADATA_ROW, REVIEWED, is_reviewed, left_out, note_review
from fairhuman.data.sources.rows import STAGE, Row, keyed_rows, locate, printable, row_key
from fairhuman.data.sources.text_rows import csv_rows, jsonl_rows
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten


def imagefolder_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """The rows as reviewed, or else those of the metadata file; pictures that the review left undecided are noted."""
    if not is_reviewed(folder):
        yield from unreviewed_rows(folder, report)
        return
    note_review(folder, report)
    decided = left_out(folder)
    for row in _with_embedded(folder, jsonl_rows(folder / REVIEWED, report)):
        if decided is not None:
            decided.add(row_key(row, PICTURE))
        yield row
    if decided is not None:
        _note_undecided(folder, decided, report)


def _note_undecided(folder: Path, decided: Collection[str], report: LoadReport) -> None:
    """Note the pictures without a decision, such as those that came after the review, if one of them can be read."""
    try:
        rows = keyed_rows(unreviewed_rows(folder, LoadReport()), PICTURE)
        left = [(key, row) for key, row in rows if key not in decided]
    except (DataError, OSError):  # the review is whole without them
        return
    first = next((key for key, row in left if _is_picture(row.values.get(PICTURE), folder)), None)
    if first is not None:
        found = f"{len(left)}, such as {first}: fairhuman data review {shlex.quote(str(folder))}"
        report.add(REVIEWED, STAGE, Finding("warned", "pictures without a decision are not read", found))


def _is_picture(value: Any, folder: Path) -> bool:
    try:
        inspect(locate(value, folder))
    except PictureError:
        return False
    return True


def _with_embedded(folder: Path, rows: Iterator[Row]) -> Iterator[Row]:
    """Reviewed rows with the columns that JSON can't hold, such as embedded masks, from their row in the metadata."""
    files = {file.relative_to(folder).as_posix(): file for file in (folder / PARQUET, *metadata_files(folder))}
    tables: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        number, name = row.values.get(METADATA_ROW), str(row.values.get(METADATA_FILE, PARQUET))
        if number is None:
            yield row
            continue
        if name not in tables:
            table = _rows_of_file(folder, files[name], LoadReport()) if name in files else ()
            tables[name] = [each.values for each in table]
        whole = tables[name][number - 1] if type(number) is int and 0 < number <= len(tables[name]) else {}
        if whole.get("file_name") != row.values.get("file_name"):
            raise DataError(
                f"{folder / row.location}: {METADATA_ROW} must be the row of the same file_name in {shorten(name)}, "
                f"which has changed since then; run again: fairhuman data review {shlex.quote(str(folder))} --apply"
            )
        own = {column: row.values[column] for column in row.values if column not in (METADATA_FILE, METADATA_ROW)}
        yield Row(row.location, {**whole, **own})


def unreviewed_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """The rows of the metadata file, or of pictures without one that have been reviewed; whatever the review says."""
    files = metadata_files(folder)
    if not files and is_reviewed(folder):
        return plain_rows(folder, LoadReport())
    note_review(folder, report)
    if not files:
        raise DataError(f"{folder}: expected {', '.join(METADATA)}; found none of them")
    return _listed_rows(folder, files, report)


def _listed_rows(folder: Path, files: Sequence[Path], report: LoadReport) -> Iterator[Row]:
    """The rows of metadata files; pictures that none of them names are noted."""
    named: set[str] = set()
    for file in files:
        for row in _rows_of_file(folder, file, report):
            named.update(map(composed, _paths(row.values)))
            yield row
    others = [found.name for found in find_pictures(folder, LoadReport()) if composed(found.name) not in named]
    if others:
        finding = Finding("warned", "pictures without a line are not read", f"{len(others)}, such as {others[0]}")
        report.add(printable(files[0].relative_to(folder).as_posix()), STAGE, finding)


def _rows_of_file(folder: Path, file: Path, report: LoadReport) -> Iterator[Row]:
    """The rows of a metadata file in the folder or in that of a split, with paths relative to the folder."""
    split = file.parent.name if file.parent != folder else None
    for row in METADATA[file.name](file, report):
        yield row if split is None else Row(f"{split}/{row.location}", _of_split(row.values, split))


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
PICTURE = "file_name"
PICTURES = (PICTURE, ONE_MASK, *CONDITION_COLUMNS)  # columns of paths, besides those in `masks`
HELD_OUT_SPLITS = ("val", "valid", "validation", "test", "dev", "eval")
SPLITS = ("train", *HELD_OUT_SPLITS)
METADATA: Mapping[str, Callable[[Path, LoadReport], Iterator[Row]]] = {
    "metadata.jsonl": jsonl_rows,
    "metadata.csv": csv_rows,
    PARQUET: _parquet_rows,
}
