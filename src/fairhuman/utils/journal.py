"""JSON Lines files that survive a killed process."""

import errno
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from fairhuman.errors import DataError
from fairhuman.utils.files import write_text
from fairhuman.utils.parse import ParseError, parse_json

_KINDS: Mapping[type, str] = {
    int: "a whole number",
    float: "a number",
    str: "a text",
    list: "a list",
    bool: "true or false",
}
_SHOWN = 120  # characters of a damaged value in a message


class Journal:
    """An append-only file of JSON objects, one per line.

    An incomplete last line, left by a killed process, is removed when the file is opened; one that lacks but its end,
    as editors leave it, is completed. `needed` is that of `read_rows`.

    Raises:
        DataError: the file is a symbolic link.
        OSError: it can't be read or written.
    """

    def __init__(self, path: Path, **needed: type) -> None:
        self._path, self._needed = path, needed
        with open_log(path) as file:
            file.seek(0)
            content = file.read()
            whole = content.rfind(b"\n") + 1
            try:
                _row(content[whole:], needed)
                file.write(b"\n")
            except ValueError:
                file.truncate(whole)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(read_rows(self._path, **self._needed))

    def add(self, rows: Iterable[dict[str, Any]]) -> None:
        """Append rows and sync them to disk."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with open_log(self._path) as file:
            file.write(lines.encode("utf-8"))
            file.flush()
            os.fsync(file.fileno())


def open_log(path: Path) -> IO[bytes]:
    """Open a file to append to and to read, and make it if there is none; never through a link at its place.

    A folder of somebody else's may hold a link there that leads to any file of this user's.

    Raises:
        DataError: the file is a symbolic link.
        OSError: it can't be read or written.
    """
    try:
        return os.fdopen(os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW, 0o666), "ab+")
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise DataError(f"{path}: must be a file, but is a link; delete it, or give another folder") from error
        raise


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON objects, one a line, atomically."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def read_rows(path: Path, **needed: type) -> list[dict[str, Any]]:
    """The JSON objects of a file, one a line; empty if there is no file.

    A process that was killed while writing leaves half a line at the end, which is left out.

    Args:
        path: the file.
        needed: types of values by name that each object must have; a float may be written as a whole number.

    Raises:
        DataError: another line is damaged; names the file and the line.
    """
    rows = []
    lines = path.read_bytes().split(b"\n") if path.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(line, needed))
        except ValueError as error:
            if number < len(lines):
                raise DataError(
                    f"{path}:{number}: is damaged: {error}. Restore the file from a backup, or delete this line"
                ) from error
    return rows


def _row(line: bytes, needed: Mapping[str, type]) -> dict[str, Any]:
    row = parse_json(line.decode("utf-8"))
    if not isinstance(row, dict):
        raise ParseError(f"expected an object, found {row!r}"[:_SHOWN])
    for name, kind in needed.items():
        value = row.get(name)
        if isinstance(value, bool) != (kind is bool) or not isinstance(value, (int, float) if kind is float else kind):
            raise ParseError(f"{name} must be {_KINDS[kind]}, found {value!r}"[:_SHOWN])
    return row
