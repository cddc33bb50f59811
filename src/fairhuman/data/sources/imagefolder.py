"""Hugging Face's imagefolder layout: pictures and `metadata.jsonl`, `.csv` or `.parquet`.

Columns: `file_name` (path inside the folder), `caption` or `text`, `faces`, `hands`, `persons`, any other region's
name, `masks` (by region: a path, {bytes, path}, or {path, labels} of a label map), `pose`, `depth`, `split`, `width`,
`height`, `key`, `attributes` (other fields, by name).
https://huggingface.co/docs/datasets/image_dataset
"""

import csv
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.parquet import read_rows
from fairhuman.data.sources.rows import STAGE, Row, reading_table, with_caption
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten


def imagefolder_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """The rows of the metadata file."""
    name = metadata_name(folder)
    if name is None:
        raise DataError(f"{folder}: expected {', '.join(METADATA)}; found none of them")
    return METADATA[name](folder / name, report)


def metadata_name(folder: Path) -> str | None:
    """Name of a folder's metadata file, readable or not; of several, the first."""
    return next((name for name in METADATA if os.path.lexists(folder / name)), None)


def has_metadata(folder: Path) -> bool:
    """Whether a folder has a metadata file."""
    return metadata_name(folder) is not None


def _jsonl_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """One JSON object per line. Lines are split as bytes, so a bad byte affects one line only."""
    first_seen: dict[bytes, int] = {}
    with reading_table(path), path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            location = f"{path.name}:{number}"
            line = line.strip()
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # byte order mark of some editors
            if not line:
                continue
            try:
                values = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                report.add(
                    location, STAGE, Finding("skipped", "line is not UTF-8", f"byte {error.start + 1}: {error.reason}")
                )
                continue
            except (ValueError, RecursionError) as error:
                report.add(location, STAGE, Finding("skipped", "line is not JSON", shorten(str(error))))
                continue
            if not isinstance(values, dict):
                report.add(location, STAGE, Finding("skipped", "line is not a JSON object", shorten(values)))
                continue
            if line in first_seen:
                report.add(location, STAGE, Finding("warned", "exact repeat of a line", f"line {first_seen[line]}"))
            first_seen.setdefault(line, number)
            yield Row(location, with_caption(values))


def _csv_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """A table with a header line; boxes and masks are JSON in their cells, an empty cell is null."""
    try:
        with reading_table(path):
            text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: must be UTF-8, but byte {error.start + 1} isn't") from error
    reader = csv.DictReader(io.StringIO(text, newline=""))
    for cells in reader:
        location = f"{path.name}:{reader.line_num}"
        if None in cells or None in cells.values():
            report.add(location, STAGE, Finding("skipped", "line has not as many cells as the head line"))
            continue
        yield Row(location, with_caption({name: _cell(name, text) for name, text in cells.items()}))


def _cell(name: str, text: str) -> object:
    if not text.strip():
        return None
    if name in ("width", "height") or text.lstrip().startswith(("[", "{")):
        try:
            value: object = json.loads(text)
        except (ValueError, RecursionError):
            return text  # reported later, where a list is expected
        return value
    return text


def _parquet_rows(path: Path, report: LoadReport) -> Iterator[Row]:  # noqa: ARG001 - the signature that METADATA needs
    return read_rows(path)


METADATA: Mapping[str, Callable[[Path, LoadReport], Iterator[Row]]] = {
    "metadata.jsonl": _jsonl_rows,
    "metadata.csv": _csv_rows,
    "metadata.parquet": _parquet_rows,
}
