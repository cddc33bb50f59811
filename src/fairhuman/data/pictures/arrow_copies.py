"""Copies of pictures from Parquet tables in Arrow files, for fast random access.

Reading one picture of a Parquet table means reading its whole row group. An uncompressed Arrow file holds the bytes
contiguously, so a picture is a `FileSpan` (offset and length) that any process can read independently.

Each table has its own folder in the cache, keyed by the table's path, size and modification time, so a changed table
gets a new folder. The folder holds numbered pieces, written atomically, that list their cells. Cells that a run needs
and no piece holds go into new pieces; so an interrupted copy resumes, and columns can be added later. Each copy has a
digest that is checked when it is read. Where one is damaged, the table itself is read instead, and the next run makes
the piece again.
"""

import hashlib
import json
import shutil
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from filelock import FileLock

from fairhuman.data.pictures.stored import PictureError, damage_mark, read_bytes
from fairhuman.errors import DataError, FairHumanError
from fairhuman.record import (
    CopiedCell,
    DerivedMask,
    FileSpan,
    HumanRecord,
    LabelMap,
    Stored,
    TableCell,
    stored_pictures,
)
from fairhuman.utils.digest import content_digest
from fairhuman.utils.files import cache_folder, remove_atomically, write_atomically, write_json, writing
from fairhuman.utils.parse import parse_json

SMALL = 64 * 2**20  # bytes: tables of at most this total size are kept in main memory instead
PIECE = 2**30  # bytes of one piece
_BATCH = 64 * 2**20  # bytes per record batch
_SCHEMA = pyarrow.schema(
    [
        ("row", pyarrow.int64()),
        ("field", pyarrow.string()),
        ("bytes", pyarrow.large_binary()),
        ("digest", pyarrow.string()),
    ]
)
_ADVICE = "; set source.cache=FOLDER to keep copies of pictures elsewhere, or source.cache=false to make none"


def arrow_folder() -> Path:
    """Default folder of the copies; `FAIRHUMAN_CACHE` moves it."""
    return cache_folder() / "arrow"


def with_arrow_copies(
    records: Sequence[HumanRecord], folder: Path, conditions: Sequence[str] = (), small: int = SMALL, piece: int = PIECE
) -> Sequence[HumanRecord]:
    """Replace table cells of pictures, masks and conditions by copies that are fast to read.

    Tables of up to `small` bytes in total are kept in main memory; a new file of copies begins after `piece` bytes. Of
    several processes one copies while the others wait. Pictures outside Parquet tables are unchanged. A cell that can't
    be read stays a cell, and fails when used.

    Raises:
        FairHumanError: the folder can't be written, or the disk has too little space.
    """
    tables = _tables(records, conditions)
    in_memory = _size(tables) <= small
    copies: dict[TableCell, Stored] = {}
    for table, cells in tables.items():
        found: Iterable[tuple[TableCell, Stored]] = (
            _readable(cells) if in_memory else _copied(table, cells, folder, piece)
        )
        copies.update(found)
    return [_with_copies(record, copies, conditions) for record in records] if copies else records


@dataclass(frozen=True)
class CopySummary:
    """Result of `copy_tables`: number of tables, whether they go to main memory instead, number of removed folders."""

    tables: int
    in_memory: bool
    removed: int


def copy_tables(
    records: Sequence[HumanRecord], folder: Path, conditions: Sequence[str] = (), small: int = SMALL
) -> CopySummary:
    """Make the copies for `with_arrow_copies` ahead of a run, and remove copies of changed or deleted tables.

    Raises:
        FairHumanError: as `with_arrow_copies`.
    """
    removed = 0
    for kept in sorted(folder.glob("*/table.json")):
        state = parse_json(kept.read_text(encoding="utf-8"))
        if _state(Path(state["path"])) != state:
            with writing(folder):
                remove_atomically(kept.parent)
            removed += 1
    tables = _tables(records, conditions)
    with_arrow_copies(records, folder, conditions, small)
    return CopySummary(len(tables), _size(tables) <= small, removed)


def _tables(records: Sequence[HumanRecord], conditions: Sequence[str]) -> dict[Path, set[TableCell]]:
    """The cells that the records refer to, by Parquet file."""
    tables: dict[Path, set[TableCell]] = {}
    for record in records:
        for stored in stored_pictures(record, conditions):
            if isinstance(stored, TableCell):
                tables.setdefault(stored.path, set()).add(stored)
    return tables


def _size(tables: Iterable[Path]) -> int:
    return sum(table.stat().st_size for table in tables if table.is_file())


def _with_copies(record: HumanRecord, copies: Mapping[TableCell, Stored], conditions: Sequence[str]) -> HumanRecord:
    """The record with each cell replaced by its copy."""

    def copy_of(stored: Any) -> Any:
        if isinstance(stored, LabelMap | DerivedMask):
            return replace(stored, stored=copy_of(stored.stored))
        return copies.get(stored, stored) if isinstance(stored, TableCell) else stored

    masks = {name: copy_of(mask) for name, mask in record.masks.items()}
    copied = {name: copy_of(getattr(record, name)) for name in conditions}
    return replace(record, image=copy_of(record.image), masks=masks, **copied)


def _readable(cells: Iterable[TableCell]) -> Iterator[tuple[TableCell, bytes]]:
    """Cells in the order of the table, with their bytes; unreadable cells are left out."""
    for cell in sorted(cells, key=_position):
        try:
            yield cell, read_bytes(cell)
        except PictureError:
            continue


def _position(cell: TableCell) -> tuple[int, tuple[str, ...]]:
    return cell.row, cell.field


def _copied(table: Path, cells: set[TableCell], folder: Path, piece: int) -> list[tuple[TableCell, FileSpan]]:
    """The copies of a table's cells, made first if missing."""
    state = _state(table)
    if state is None:
        return []
    table_folder = folder / hashlib.sha256(json.dumps(state).encode()).hexdigest()[:24]
    with writing(table_folder, _ADVICE):
        _remove_damaged(table_folder)
    copies = _copied_cells(table_folder, table)
    if cells <= copies.keys():
        return [(cell, span) for cell in cells if (span := copies[cell]) is not None]
    with writing(table_folder, _ADVICE):
        table_folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{table_folder.name}.lock"):
            copies = _copied_cells(table_folder, table)  # another process may have made some meanwhile
            missing = sorted(cells - copies.keys(), key=_position)
            _check_space(table_folder, state["size"] * len(missing) // len(cells))
            write_json(table_folder / "table.json", state)
            queue = deque(missing)
            while queue:
                number = max((int(path.stem) for path in table_folder.glob("*.arrow")), default=-1) + 1
                path = table_folder / f"{number:05}.arrow"
                write_atomically(path, partial(_write_piece, queue, piece))
    return _copied(table, cells, folder, piece)


def _remove_damaged(folder: Path) -> None:
    """Remove pieces in which an earlier run has found a damaged copy; a run that reads them goes on with the table."""
    for path in sorted(folder.glob("*.arrow")):
        if damage_mark(path).exists():
            path.unlink(missing_ok=True)
            damage_mark(path).unlink(missing_ok=True)


def _state(table: Path) -> dict[str, Any] | None:
    """Identity of a table's version: path, size and modification time; None if the file doesn't exist."""
    try:
        found = table.stat()
    except OSError:
        return None
    return {"path": str(table.resolve()), "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise FairHumanError(
            f"{folder}: copies of pictures need about {needed / 2**20:.0f} MiB, but {free / 2**20:.0f} MiB "
            f"are free{_ADVICE}"
        )


def _write_piece(queue: deque[TableCell], piece: int, path: Path) -> None:
    """Write about `piece` bytes of cells from the front of the queue; null for a cell that can't be read."""
    written = 0
    with pyarrow.ipc.new_file(str(path), _SCHEMA) as file:
        while queue and written < piece:
            rows: list[int] = []
            fields: list[str] = []
            values: list[bytes | None] = []
            size = 0
            while queue and size < min(_BATCH, piece):
                cell = queue.popleft()
                value = next((content for _, content in _readable([cell])), None)
                rows.append(cell.row)
                fields.append(json.dumps(cell.field))
                values.append(value)
                size += len(value or b"")
            digests = [None if value is None else content_digest(value) for value in values]
            file.write_batch(pyarrow.record_batch([rows, fields, values, digests], schema=_SCHEMA))
            written += size


def _copied_cells(folder: Path, table: Path) -> dict[TableCell, FileSpan | None]:
    """Cells of a table in the pieces of a folder, and their places; None: the cell could not be read."""
    copies: dict[TableCell, FileSpan | None] = {}
    for path in sorted(folder.glob("*.arrow")):
        try:
            copies.update(_cells_of_piece(path, table))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable copy of pictures ({error}); delete {folder}") from error
    return copies


def _cells_of_piece(path: Path, table: Path) -> Iterator[tuple[TableCell, FileSpan | None]]:
    with pyarrow.memory_map(str(path)) as file:
        buffer = file.read_buffer()
        reader = pyarrow.ipc.open_file(buffer)
        for number in range(reader.num_record_batches):
            rows, fields, values, *rest = reader.get_batch(number).columns
            digests = rest[0].to_pylist() if rest else [None] * len(rows)  # copies of an earlier version have none
            _, offsets, content = values.buffers()
            # The file is memory-mapped without a copy, so the address of a value gives its offset in the file.
            first = content.address - buffer.address
            starts = first + np.frombuffer(offsets, np.int64)[: len(values) + 1]
            ends, valid = starts[1:].tolist(), values.is_valid().to_pylist()
            for row, field, start, end, readable, digest in zip(
                rows.to_pylist(), fields.to_pylist(), starts.tolist(), ends, valid, digests, strict=False
            ):
                cell = TableCell(table, row, tuple(parse_json(field)))
                yield cell, CopiedCell(path, start, end - start, cell, digest) if readable else None
