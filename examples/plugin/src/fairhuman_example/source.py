"""A source: `source.format=csv`, a file `people.csv` beside pictures."""

from collections.abc import Iterator
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceFormat
from fairhuman.data.sources.rows import Row
from fairhuman.data.sources.text_rows import csv_rows

NAME = "people.csv"


def _rows(path: Path, report: LoadReport) -> Iterator[Row]:
    """A row a line; `csv_rows` reads boxes, which are JSON in their cells, and notes bad lines in the report."""
    return csv_rows(path / NAME, report)


CSV = SourceFormat(NAME, lambda path: (path / NAME).is_file(), _rows, picture="file_name")
