"""JSON Lines files that survive a killed process."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from fairhuman.utils.files import write_text
from fairhuman.utils.parse import parse_json


class Journal:
    """An append-only file of JSON objects, one per line.

    An incomplete last line, left by a killed process, is removed when the file is opened.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("ab+") as file:
            file.seek(0)
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(read_rows(self._path))

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows and sync them to disk."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with self._path.open("ab") as file:
            file.write(lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON objects, one a line, atomically."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; empty if there is no file.

    A process that was killed while writing leaves half a line: such a line is left out.
    """
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
