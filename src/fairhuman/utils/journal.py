"""Append-only JSON Lines file for expensive results."""

import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any


class Journal:
    """An append-only file of JSON objects, one per line.

    An incomplete last line, left by a killed process, is removed when the file is opened.

    Args:
        path: created if missing.

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
        """Append rows and sync them to disk."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with self._path.open("ab") as file:
            file.write(lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())
