"""Rows of text files: JSON lines and CSV."""

import csv
from collections.abc import Iterator
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.rows import (
    CAPTION,
    STAGE,
    TEXT,
    Row,
    in_unicode,
    limited_lines,
    reading_table,
    with_caption,
)
from fairhuman.record import Finding
from fairhuman.regions.boxes import shorten
from fairhuman.utils.parse import parse_json


def jsonl_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Rows of a file with a JSON object per line, `text` renamed to `caption`; other lines are noted and skipped.

    Lines are split as bytes, so a bad byte affects one line only.

    Raises:
        DataError: the file can't be read, or a line is too long.
    """
    first_seen: dict[bytes, int] = {}
    with reading_table(path), path.open("rb") as file:
        for number, line in enumerate(limited_lines(path, file), start=1):
            location = f"{path.name}:{number}"
            line = line.strip()
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")  # byte order mark of some editors
            if not line:
                continue
            try:
                values = parse_json(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                report.add(
                    location, STAGE, Finding("skipped", "line is not UTF-8", f"byte {error.start + 1}: {error.reason}")
                )
                continue
            except ValueError as error:
                report.add(location, STAGE, Finding("skipped", "line is not JSON", shorten(str(error))))
                continue
            if not isinstance(values, dict):
                report.add(location, STAGE, Finding("skipped", "line is not a JSON object", shorten(values)))
                continue
            if line in first_seen:
                report.add(location, STAGE, Finding("warned", "exact repeat of a line", f"line {first_seen[line]}"))
            first_seen.setdefault(line, number)
            if b"\\u" in line:
                values = in_unicode(values, location, report)
            yield Row(location, with_caption(values))


def csv_rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """Rows of a CSV table with a head line, `text` renamed to `caption`; ragged lines are noted and skipped.

    A cell that starts with [ or { is read as JSON, such as a list of boxes, but never a caption; an empty cell is null.

    Raises:
        DataError: the file can't be read, isn't CSV in UTF-8, or a line is too long.
    """
    with reading_table(path), path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(limited_lines(path, file))
        for cells in reader:
            location = f"{path.name}:{reader.line_num}"
            if None in cells or None in cells.values():
                report.add(location, STAGE, Finding("skipped", "line has not as many cells as the head line"))
                continue
            yield Row(location, with_caption({name: _cell(name, text) for name, text in cells.items()}))


def _cell(name: str, text: str) -> object:
    if not text.strip():
        return None
    if name in ("width", "height") or (name not in (CAPTION, TEXT) and text.lstrip().startswith(("[", "{"))):
        try:
            value: object = parse_json(text)
        except ValueError:
            return text  # reported later, where a list is expected
        return value
    return text
