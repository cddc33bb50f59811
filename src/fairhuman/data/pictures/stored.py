"""Read the bytes of a picture from a file, memory, a span of a file, or a cell of a Parquet table."""

import json
import stat
from bisect import bisect_right
from collections.abc import Mapping
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow

from fairhuman.errors import DataError
from fairhuman.record import CopiedCell, FileSpan, Finding, Stored, TableCell
from fairhuman.regions.boxes import shorten
from fairhuman.utils.digest import content_digest
from fairhuman.utils.files import touch
from fairhuman.utils.tables import is_damage, open_table, read_batches

MAX_GROUP = 2**29  # bytes of a column's row group in memory; more if its file is large
MAX_EXPANSION = 4  # such a row group by the size of its file
_BATCH_ROWS = 1024
DAMAGED = "is damaged: differs from its checksum"


class PictureError(DataError):
    """One picture can't be used; `finding` holds the reason."""

    def __init__(self, reason: str, value: str = "") -> None:
        super().__init__(f"{reason} ({value})" if value else reason)
        self.finding = Finding("skipped", reason, value)

    def __reduce__(self) -> tuple[type["PictureError"], tuple[str, str]]:
        return type(self), (self.finding.reason, self.finding.value)


def picture_name(stored: Stored) -> str:
    """Name of a picture for messages."""
    if isinstance(stored, bytes):
        return f"{len(stored)} bytes"
    if isinstance(stored, FileSpan):
        return f"{stored.length} bytes at {stored.offset} in {stored.path.name}"
    if isinstance(stored, TableCell):
        return f"{'.'.join(stored.field)} of row {stored.row + 1} in {stored.path.name}"
    return stored.name


def byte_length(stored: Stored) -> int:
    """Number of bytes of a picture, without reading it (except a table cell, which must be read).

    Raises:
        PictureError: the file doesn't exist or isn't a regular one (reading a pipe would block).
    """
    if isinstance(stored, bytes):
        return len(stored)
    if isinstance(stored, TableCell):
        return len(_cell_bytes(stored))
    if isinstance(stored, CopiedCell):  # the cell itself is read where the copy isn't there any more
        return stored.length
    try:
        found = (stored.path if isinstance(stored, FileSpan) else stored).stat()
    except (OSError, ValueError) as error:  # no permission, a name too long, a null byte, a broken network drive
        raise unreadable(stored, error) from error
    if not stat.S_ISREG(found.st_mode):
        raise PictureError("can't be read: not a regular file", picture_name(stored))
    return stored.length if isinstance(stored, FileSpan) else found.st_size


def read_bytes(stored: Stored) -> bytes:
    """All bytes of a picture.

    Raises:
        PictureError: the bytes can't be read.
    """
    if isinstance(stored, bytes):
        return stored
    if isinstance(stored, TableCell):
        return _cell_bytes(stored)
    if isinstance(stored, CopiedCell):
        return _copy_bytes(stored)
    try:
        return _span_bytes(stored) if isinstance(stored, FileSpan) else stored.read_bytes()
    except OSError as error:
        raise unreadable(stored, error) from error


def unreadable(stored: Stored, error: Exception) -> PictureError:
    """Make a PictureError from an error of the operating system."""
    if isinstance(error, FileNotFoundError):  # also a dangling link, or a file that has just been removed
        return PictureError("file does not exist", picture_name(stored))
    why = getattr(error, "strerror", None) or error or type(error).__name__
    return PictureError(f"can't be read: {why}", shorten(picture_name(stored), 200))


def _span_bytes(span: FileSpan) -> bytes:
    with span.path.open("rb") as file:
        file.seek(span.offset)
        content = file.read(span.length)
    if len(content) < span.length:
        raise PictureError("file ends before its last picture does", picture_name(span))
    return content


def _copy_bytes(copy: CopiedCell) -> bytes:
    """The bytes of a copy; those of the cell itself, which takes longer, if the copy is damaged."""
    try:
        content = _span_bytes(copy)
        if copy.digest == copy_digest(copy.path, copy.cell, content):
            return content
    except FileNotFoundError:  # another run, which has found damage, has removed it
        return _cell_bytes(copy.cell)
    except (OSError, PictureError):
        pass  # a bad sector, or the file was cut off after its index was read
    _damaged.add(copy)
    with suppress(OSError):  # a folder that can't be written keeps its damaged copies
        touch(damage_mark(copy.path))
    return _cell_bytes(copy.cell)


def copy_digest(piece: Path, cell: TableCell, content: bytes) -> str:
    """Digest of a copy in a file of copies: of its bytes, its row and field, and the version of its table.

    The latter is the name of the file's folder (`fairhuman.data.pictures.arrow_copies`), so the cache may move.
    """
    return content_digest(f"{piece.parent.name} {cell.row} {json.dumps(cell.field)} ".encode(), content)


def damage_mark(piece: Path) -> Path:
    """The file whose existence says that a file of copies has a damaged one, so that it is made again."""
    return piece.with_name(f"{piece.name}.damaged")


def found_damaged(stored: Stored) -> bool:
    """Whether this process has found a copy damaged when it was read."""
    return isinstance(stored, CopiedCell) and stored in _damaged


_damaged: set[CopiedCell] = set()


def _cell_bytes(cell: TableCell) -> bytes:
    try:
        group, first = _find_row_group(cell.path, cell.row)
        column = _column(cell.path, group, cell.field[0])
        if column is None:
            raise PictureError(
                f"its row group takes over {MAX_GROUP / 2**20:.0f} MiB, and {MAX_EXPANSION} times its file's size: "
                "write the table with smaller row groups",
                picture_name(cell),
            )
        value = column[cell.row - first].as_py()
    except FileNotFoundError as error:
        raise unreadable(cell, error) from error
    except (pyarrow.ArrowException, OSError, IndexError, KeyError) as error:
        if is_damage(error):
            raise PictureError(DAMAGED, picture_name(cell)) from error
        raise PictureError(f"can't be read: {error}", picture_name(cell)) from error
    for name in cell.field[1:]:
        value = (dict(value) if isinstance(value, list) else value or {}).get(name)
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(content, bytes):
        raise PictureError("holds no bytes", picture_name(cell))
    return content


@lru_cache(maxsize=64)
def _group_ends(path: Path) -> list[int]:
    """The row after the last one of each row group of a table."""
    with open_table(path) as table:
        return list(accumulate(table.metadata.row_group(group).num_rows for group in range(table.num_row_groups)))


def _find_row_group(path: Path, row: int) -> tuple[int, int]:
    """Number of the row group of a row, and the group's first row."""
    ends = _group_ends(path)
    group = bisect_right(ends, row)
    return group, ends[group - 1] if group else 0


@lru_cache(maxsize=4)  # access is mostly sequential, and a row group of pictures can be large
def _column(path: Path, group: int, column: str) -> Any:
    """A column of a row group; None if it takes far more memory than its file suggests, as repeated values can."""
    most = max(MAX_GROUP, MAX_EXPANSION * path.stat().st_size)
    batches: list[pyarrow.RecordBatch] = []
    with open_table(path) as table:
        for batch in read_batches(path, table, [column], _BATCH_ROWS, groups=[group]):
            most -= batch.nbytes
            if most < 0:
                return None
            batches.append(batch)
    return pyarrow.Table.from_batches(batches).column(column)
