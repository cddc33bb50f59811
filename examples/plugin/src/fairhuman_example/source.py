"""A source: `source.format=csv`, a file `people.csv` beside pictures."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceFormat
from fairhuman.data.sources.rows import Row

NAME = "people.csv"


def _rows(path: Path, _: LoadReport) -> Iterator[Row]:
    """Yield a row a line: file_name and caption as they are, faces and hands as JSON, an empty cell for null."""
    with (path / NAME).open(encoding="utf-8", newline="") as file:
        for number, line in enumerate(csv.DictReader(file), start=2):
            boxes = {part: json.loads(line[part]) if line[part] else None for part in ("faces", "hands")}
            yield Row(f"{NAME}:{number}", {"file_name": line["file_name"], "caption": line["caption"], **boxes})


CSV = SourceFormat(NAME, lambda path: (path / NAME).is_file(), _rows, picture="file_name")
