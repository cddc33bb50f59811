"""Files of JSON objects, one a line, that survive a killed process."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class Journal:
    """A file of JSON objects, a line each, that is only ever added to.

    A line that a killed process left unfinished is cut off when the file is opened again.

    Args:
        path: made if it isn't there.

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
        """Add rows; they have reached the disk when this returns."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with self._path.open("ab") as file:
            file.write(lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; empty if there is no file.

    A process that was killed while writing leaves half a line: such a line is left out.
    """
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows
