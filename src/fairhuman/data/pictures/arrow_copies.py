"""Copies of pictures from Parquet tables in Arrow files, for fast random access.

Reading one picture of a Parquet table means reading its whole row group. An uncompressed Arrow file holds the bytes
contiguously, so a picture is a `FileSpan` (offset and length) that any process can read independently.

Each table has its own folder in the cache, keyed by the table's path, size and modification time, so a changed table
gets a new folder. The folder holds numbered pieces, written atomically. Beside each is an index of its cells, with the
place and the digest of each copy; a run reads the index alone, never the Arrow file's own headers. Cells that a run
needs and no piece holds go into new pieces; so an interrupted copy resumes, and columns can be added later.

An index is checked when it is read, a copy when it is used. Where a copy is damaged, the table itself is read instead.
A piece with a damaged index or copy, or without an index as an earlier version wrote it, is made again by the next run.
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
from numpy.typing import NDArray

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, copy_digest, damage_mark, read_bytes
from fairhuman.errors import FairHumanError
from fairhuman.record import CopiedCell, DerivedMask, Finding, HumanRecord, LabelMap, Stored, TableCell, stored_pictures
from fairhuman.utils.digest import DamageError, sealed, unsealed
from fairhuman.utils.files import cache_folder, remove_atomically, write_atomically, write_json, writing
from fairhuman.utils.parse import parse_json

SMALL = 64 * 2**20  # bytes: tables of at most this total size are kept in main memory instead
PIECE = 2**30  # bytes of one piece
_BATCH = 64 * 2**20  # bytes per record batch
DAMAGED_PIECE = Finding("warned", "file of copied pictures was damaged, and has been made again")
EARLIER_PIECE = Finding("warned", "file of copied pictures of an earlier version has been made again, with digests")
_SCHEMA = pyarrow.schema([("row", pyarrow.int64()), ("field", pyarrow.string()), ("bytes", pyarrow.large_binary())])
_INDEX = pyarrow.schema(
    [
        ("row", pyarrow.int64()),
        ("field", pyarrow.string()),
        ("offset", pyarrow.int64()),
        ("length", pyarrow.int64()),
        ("digest", pyarrow.string()),  # null: the cell can't be read
    ]
)
_ADVICE = "; set source.cache=FOLDER to keep copies of pictures elsewhere, or source.cache=false to make none"


def arrow_folder() -> Path:
    """Default folder of the copies; `FAIRHUMAN_CACHE` moves it."""
    return cache_folder() / "arrow"


def with_arrow_copies(
    records: Sequence[HumanRecord],
    folder: Path,
    conditions: Sequence[str] = (),
    small: int = SMALL,
    piece: int = PIECE,
    report: LoadReport | None = None,
) -> Sequence[HumanRecord]:
    """Replace table cells of pictures, masks and conditions by copies that are fast to read.

    Tables whose files have up to `small` bytes in total, and whose cells have no more either, are kept in main memory;
    a new file of copies begins after `piece` bytes. Of
    several processes one copies while the others wait. Pictures outside Parquet tables are unchanged. A cell that can't
    be read stays a cell, and fails when used. `report` gets a note for each file of copies that is made again.

    Raises:
        FairHumanError: the folder can't be written, or the disk has too little space.
    """
    copies = _copies(_tables(records, conditions), folder, small, piece, report)
    return [_with_copies(record, copies, conditions) for record in records] if copies else records


def _copies(
    tables: Mapping[Path, set[TableCell]], folder: Path, small: int, piece: int, report: LoadReport | None
) -> Mapping[TableCell, Stored]:
    """Copies of the cells: their bytes if these are few, else places in files of copies."""
    held = _in_memory(tables, small)
    if held is not None:
        return held
    report = report or LoadReport()
    return {
        cell: copy for table, cells in tables.items() for cell, copy in _copied(table, cells, folder, piece, report)
    }


def _in_memory(tables: Mapping[Path, set[TableCell]], small: int) -> dict[TableCell, bytes] | None:
    """The bytes of all cells; None if the tables' files or the cells have more than `small` bytes.

    The cells can have far more than the files, where these are compressed or repeat a value.
    """
    left = small
    held: dict[TableCell, bytes] = {}
    if _size(tables) > small:
        return None
    for cells in tables.values():
        for cell, content in _readable(cells):
            left -= len(content)
            if left < 0:
                return None
            held[cell] = content
    return held


@dataclass(frozen=True)
class CopySummary:
    """Result of `copy_tables`: number of tables, whether they go to main memory instead, number of removed folders."""

    tables: int
    in_memory: bool
    removed: int


def copy_tables(
    records: Sequence[HumanRecord],
    folder: Path,
    conditions: Sequence[str] = (),
    small: int = SMALL,
    report: LoadReport | None = None,
) -> CopySummary:
    """Make the copies for `with_arrow_copies` ahead of a run, and remove copies of changed or deleted tables.

    Raises:
        FairHumanError: as `with_arrow_copies`.
    """
    removed = 0
    for kept in sorted(folder.glob("*/table.json")):
        if not _is_current(kept):
            with writing(folder):
                remove_atomically(kept.parent)
            removed += 1
    tables = _tables(records, conditions)
    copies = _copies(tables, folder, small, PIECE, report)
    return CopySummary(len(tables), not any(isinstance(copy, CopiedCell) for copy in copies.values()), removed)


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


def _copied(
    table: Path, cells: set[TableCell], folder: Path, piece: int, report: LoadReport
) -> list[tuple[TableCell, CopiedCell]]:
    """The copies of a table's cells, made first if missing or damaged."""
    state = _state(table)
    if state is None:
        return []
    table_folder = folder / hashlib.sha256(json.dumps(state).encode()).hexdigest()[:24]
    copies, unusable = _copied_cells(table_folder, table)
    if unusable or not cells <= copies.keys():
        with writing(table_folder, _ADVICE):
            table_folder.mkdir(parents=True, exist_ok=True)
            with FileLock(folder / f".{table_folder.name}.lock"):
                _make(table_folder, table, cells, piece, state, report)
        copies, _ = _copied_cells(table_folder, table)
    return [(cell, span) for cell in cells if (span := copies.get(cell)) is not None]


def _make(
    folder: Path, table: Path, cells: set[TableCell], piece: int, state: dict[str, Any], report: LoadReport
) -> None:
    """Remove the pieces that can't be used, and write those that are missing."""
    copies, unusable = _copied_cells(folder, table)  # another process may have made some meanwhile
    # A removed piece's number isn't used again, as a process with its index would read the new piece by that.
    number = max((int(path.stem) for path in _pieces(folder)), default=-1) + 1
    for path, finding in unusable.items():
        for file in (path, index_of(path), damage_mark(path)):
            file.unlink(missing_ok=True)
        report.add(str(path), "cache", finding)
    missing = sorted(cells - copies.keys(), key=_position)
    _check_space(folder, state["size"] * len(missing) // len(cells))
    write_json(folder / "table.json", state)
    queue = deque(missing)
    while queue:
        path = folder / f"{number:05}.arrow"
        write_atomically(path, partial(_write_piece, queue, piece, path))
        number += 1


def index_of(piece: Path) -> Path:
    """The file that says which cells a piece holds, and where."""
    return piece.with_suffix(".index")


def _pieces(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*.arrow") if path.stem.isdecimal())


def _is_current(kept: Path) -> bool:
    """Whether a folder's `table.json` is that of a table as it is now."""
    try:
        state = parse_json(kept.read_bytes())
        return bool(_state(Path(state["path"])) == state)
    except (OSError, ValueError, TypeError, KeyError):  # it is damaged
        return False


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


def _write_piece(queue: deque[TableCell], piece: int, path: Path, unfinished: Path) -> None:
    """Write about `piece` bytes of cells from the front of the queue; null for a cell that can't be read.

    The index of the piece `path` is written before `unfinished` gets that name, so no piece is without one.
    """
    written = 0
    rows: list[int] = []
    fields: list[str] = []
    digests: list[str | None] = []
    with pyarrow.ipc.new_file(str(unfinished), _SCHEMA) as file:
        while queue and written < piece:
            start, size = len(rows), 0
            values: list[bytes | None] = []
            while queue and size < min(_BATCH, piece):
                cell = queue.popleft()
                value = next((content for _, content in _readable([cell])), None)
                rows.append(cell.row)
                fields.append(json.dumps(cell.field))
                digests.append(None if value is None else copy_digest(path, cell, value))
                values.append(value)
                size += len(value or b"")
            _check_space(path.parent, size)
            file.write_batch(pyarrow.record_batch([rows[start:], fields[start:], values], schema=_SCHEMA))
            written += size
    offsets, lengths = _places(unfinished)
    index = pyarrow.table([rows, fields, offsets, lengths, digests], schema=_INDEX)
    buffer = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(buffer, _INDEX) as stream:
        stream.write_table(index)
    content = sealed(buffer.getvalue().to_pybytes())
    write_atomically(index_of(path), lambda place: place.write_bytes(content))


def _places(path: Path) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offset and length of each value in a piece that has just been written."""
    offsets, lengths = [], []
    with pyarrow.memory_map(str(path)) as file:
        buffer = file.read_buffer()
        reader = pyarrow.ipc.open_file(buffer)
        for number in range(reader.num_record_batches):
            values = reader.get_batch(number).column("bytes")
            _, ends, content = values.buffers()
            # The file is memory-mapped without a copy, so the address of a value gives its offset in the file.
            bounds = content.address - buffer.address + np.frombuffer(ends, np.int64)[: len(values) + 1]
            offsets.append(bounds[:-1])
            lengths.append(np.diff(bounds))
    return np.concatenate(offsets), np.concatenate(lengths)


def _copied_cells(folder: Path, table: Path) -> tuple[dict[TableCell, CopiedCell | None], dict[Path, Finding]]:
    """Cells of a table in the pieces of a folder, and their places; and the pieces that can't be used, with why.

    A place is None where the cell could not be read.
    """
    copies: dict[TableCell, CopiedCell | None] = {}
    unusable: dict[Path, Finding] = {}
    for path in _pieces(folder):
        try:
            if damage_mark(path).exists():
                raise DamageError("an earlier run has found a damaged copy")
            copies.update(_cells_of_piece(path, table))
        except FileNotFoundError:
            unusable[path] = EARLIER_PIECE
        except (OSError, DamageError):
            unusable[path] = DAMAGED_PIECE
    return copies, unusable


def _cells_of_piece(path: Path, table: Path) -> Iterator[tuple[TableCell, CopiedCell | None]]:
    """The cells in a piece's index.

    Raises:
        FileNotFoundError: it has no index, as an earlier version wrote it.
        DamageError: the index is damaged, or the piece ends before its last copy does.
    """
    index = pyarrow.ipc.open_stream(unsealed(index_of(path))).read_all()
    rows, names, offsets, lengths, digests = (column.to_pylist() for column in index.columns)
    if max(map(sum, zip(offsets, lengths, strict=True)), default=0) > path.stat().st_size:
        raise DamageError(f"{path}: is damaged: ends before its last picture does")
    fields = {name: tuple(parse_json(name)) for name in set(names)}
    for row, name, offset, length, digest in zip(rows, names, offsets, lengths, digests, strict=True):
        cell = TableCell(table, row, fields[name])
        yield cell, None if digest is None else CopiedCell(path, offset, length, cell, digest)
