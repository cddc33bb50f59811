"""Results that were expensive, each on disk as soon as it is there."""

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
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Add rows; they have reached the disk when this returns."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with self._path.open("ab") as file:
            file.write(lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
