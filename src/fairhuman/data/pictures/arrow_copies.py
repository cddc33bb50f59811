"""Pictures inside Parquet tables, copied to Arrow files where one can be read without its neighbours.

A random picture of a Parquet table costs reading its whole row group. An uncompressed Arrow file holds the same bytes
one after another, so a picture is a stretch of it, known by place and length: a `FileSpan`, which any process opens by
itself.

A table has a folder of its own in the cache, named by its path, size and time of change; a table that changes gets
another folder. In it are numbered pieces, each complete or not there, that say which cells they hold. What a run needs
and no piece holds goes into further pieces: so a copy that was stopped goes on, and another column can come later.
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

from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.errors import DataError, FairHumanError
from fairhuman.record import FileSpan, HumanRecord, LabelMap, Stored, TableCell
from fairhuman.utils.files import cache_folder, remove_atomically, write_atomically, write_json, writing

SMALL = 64 * 2**20  # bytes of all tables together that are kept in main memory instead
PIECE = 2**30  # bytes after which a new piece begins
_BATCH = 64 * 2**20  # bytes that are written at once
_SCHEMA = pyarrow.schema([("row", pyarrow.int64()), ("field", pyarrow.string()), ("bytes", pyarrow.large_binary())])
_ADVICE = "; source.cache=FOLDER puts copies of pictures elsewhere, source.cache=false makes none"


def arrow_folder() -> Path:
    """Where copies are kept unless another folder is asked for; `FAIRHUMAN_CACHE` moves it."""
    return cache_folder() / "arrow"


def cached(
    records: Sequence[HumanRecord],
    folder: Path,
    conditions: Sequence[str] = (),
    small: int = SMALL,
    piece: int = PIECE,
) -> Sequence[HumanRecord]:
    """The records with pictures, masks and conditions that are fast to read; what isn't in a Parquet table stays.

    Tables of up to `small` bytes together are kept in main memory. Of several processes one copies while the others
    wait. A cell that can't be read stays a cell, and fails when it is used.

    Args:
        records: from any source.
        folder: of the copies.
        conditions: `pose`, `depth`: those that will be read.
        small: bytes.
        piece: bytes after which a new file begins.

    Raises:
        FairHumanError: the folder can't be written or has too little space.

    """
    tables = _tables(records, conditions)
    in_memory = _size(tables) <= small
    places: dict[TableCell, Stored] = {}
    for table, cells in tables.items():
        found: Iterable[tuple[TableCell, Stored]] = (
            _readable(cells) if in_memory else _copied(table, cells, folder, piece)
        )
        places.update(found)
    return [_moved(record, places, conditions) for record in records] if places else records


@dataclass(frozen=True)
class Copies:
    """What `copy_tables` did: tables that were looked at, those kept in main memory instead, folders removed."""

    tables: int
    in_memory: bool
    removed: int


def copy_tables(
    records: Sequence[HumanRecord], folder: Path, conditions: Sequence[str] = (), small: int = SMALL
) -> Copies:
    """Copy what `cached` will want, ahead of a run, and remove copies of tables that changed or are gone.

    Raises:
        FairHumanError: as `cached`.

    """
    removed = 0
    for kept in sorted(folder.glob("*/table.json")):
        state = json.loads(kept.read_text(encoding="utf-8"))
        if _state(Path(state["path"])) != state:
            with writing(folder):
                remove_atomically(kept.parent)
            removed += 1
    tables = _tables(records, conditions)
    cached(records, folder, conditions, small)
    return Copies(len(tables), _size(tables) <= small, removed)


def _tables(records: Sequence[HumanRecord], conditions: Sequence[str]) -> dict[Path, set[TableCell]]:
    """The cells of each Parquet file that the records will be read from."""
    tables: dict[Path, set[TableCell]] = {}
    for record in records:
        painted = (mask.stored if isinstance(mask, LabelMap) else mask for mask in record.masks.values())
        for stored in (record.image, *painted, *(getattr(record, name) for name in conditions)):
            if isinstance(stored, TableCell):
                tables.setdefault(stored.path, set()).add(stored)
    return tables


def _size(tables: Iterable[Path]) -> int:
    return sum(table.stat().st_size for table in tables if table.is_file())


def _moved(record: HumanRecord, places: Mapping[TableCell, Stored], conditions: Sequence[str]) -> HumanRecord:
    """The record with each cell replaced by where its bytes are now."""

    def place(stored: Any) -> Any:
        if isinstance(stored, LabelMap):
            return replace(stored, stored=place(stored.stored))
        return places.get(stored, stored) if isinstance(stored, TableCell) else stored

    masks = {name: place(mask) for name, mask in record.masks.items()}
    kept = {name: place(getattr(record, name)) for name in conditions}
    return replace(record, image=place(record.image), masks=masks, **kept)


def _readable(cells: Iterable[TableCell]) -> Iterator[tuple[TableCell, bytes]]:
    """Cells in the order of the table, with their bytes; without those that can't be read."""
    for cell in sorted(cells, key=_place):
        try:
            yield cell, read_bytes(cell)
        except PictureError:
            continue


def _place(cell: TableCell) -> tuple[int, tuple[str, ...]]:
    return cell.row, cell.field


def _copied(table: Path, cells: set[TableCell], folder: Path, piece: int) -> list[tuple[TableCell, FileSpan]]:
    """Where the bytes of a table's cells are, copied first if need be."""
    state = _state(table)
    if state is None:
        return []
    home = folder / hashlib.sha256(json.dumps(state).encode()).hexdigest()[:24]
    held = _held(home, table)
    if cells <= held.keys():
        return [(cell, place) for cell in cells if (place := held[cell]) is not None]
    with writing(home, _ADVICE):
        home.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{home.name}.lock"):
            held = _held(home, table)  # another process may have been at work meanwhile
            missing = sorted(cells - held.keys(), key=_place)
            _check_space(home, state["size"] * len(missing) // len(cells))
            write_json(home / "table.json", state)
            waiting = deque(missing)
            while waiting:
                path = home / f"{len(list(home.glob('*.arrow'))):05}.arrow"
                write_atomically(path, partial(_write_piece, waiting, piece))
    return _copied(table, cells, folder, piece)


def _state(table: Path) -> dict[str, Any] | None:
    """What a copy is of: the table's path, size and time of change; None where there is none."""
    try:
        found = table.stat()
    except OSError:
        return None
    return {"path": str(table.resolve()), "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def _check_space(home: Path, needed: int) -> None:
    free = shutil.disk_usage(home).free
    if free < needed:
        raise FairHumanError(
            f"{home}: copies of pictures need about {needed / 2**20:.0f} MiB, {free / 2**20:.0f} MiB are free{_ADVICE}"
        )


def _write_piece(waiting: deque[TableCell], piece: int, path: Path) -> None:
    """Write the first cells of those that wait, about `piece` bytes of them; null where one can't be read."""
    written = 0
    with pyarrow.ipc.new_file(str(path), _SCHEMA) as file:
        while waiting and written < piece:
            rows: list[int] = []
            fields: list[str] = []
            values: list[bytes | None] = []
            size = 0
            while waiting and size < min(_BATCH, piece):
                cell = waiting.popleft()
                value = next((content for _, content in _readable([cell])), None)
                rows.append(cell.row)
                fields.append(json.dumps(cell.field))
                values.append(value)
                size += len(value or b"")
            file.write_batch(pyarrow.record_batch([rows, fields, values], schema=_SCHEMA))
            written += size


def _held(home: Path, table: Path) -> dict[TableCell, FileSpan | None]:
    """Cells of a table that the pieces in a folder hold, and where; None: it could not be read."""
    held: dict[TableCell, FileSpan | None] = {}
    for path in sorted(home.glob("*.arrow")):
        try:
            held.update(_held_by_piece(path, table))
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{path}: not a readable copy of pictures ({error}); delete {home}") from error
    return held


def _held_by_piece(path: Path, table: Path) -> Iterator[tuple[TableCell, FileSpan | None]]:
    with pyarrow.memory_map(str(path)) as file:
        whole = file.read_buffer()
        reader = pyarrow.ipc.open_file(whole)
        for number in range(reader.num_record_batches):
            rows, fields, values = reader.get_batch(number).columns
            _, offsets, content = values.buffers()
            # Nothing is copied, so where a value is in memory says where it is in the file.
            first = content.address - whole.address
            places = first + np.frombuffer(offsets, np.int64)[: len(values) + 1]
            ends, valid = places[1:].tolist(), values.is_valid().to_pylist()
            for row, field, start, end, known in zip(
                rows.to_pylist(), fields.to_pylist(), places.tolist(), ends, valid, strict=False
            ):
                yield (
                    TableCell(table, row, tuple(json.loads(field))),
                    FileSpan(path, start, end - start) if known else None,
                )
