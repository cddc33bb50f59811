"""The manifest: the rows of a source in blocks, each row with an identity that changes with its content.

A block is a Parquet file `000012-<digest>.parquet`. The digest is computed from the identities of its rows, so file
names identify the content. Listing the source again keeps rows in their places: changed rows are replaced in place,
new rows are appended in new blocks, removed rows are deleted from their blocks.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.values import from_json, to_json
from fairhuman.data.sources import SourceFormat
from fairhuman.data.sources.columns import CONDITION_COLUMNS, ONE_MASK, box_columns
from fairhuman.data.sources.rows import Row, keyed_rows, masks_of, printable
from fairhuman.errors import DataError
from fairhuman.record import FileSpan, TableCell
from fairhuman.utils.tables import read_table, write_table

Ids = NDArray[np.uint64]

SCHEMA = pyarrow.schema(
    [
        ("id", pyarrow.uint64()),
        ("key_id", pyarrow.uint64()),  # hash of the key alone
        ("key", pyarrow.string()),
        ("location", pyarrow.string()),
        ("values", pyarrow.string()),  # JSON
    ]
)


@dataclass(frozen=True)
class Block:
    """A block of rows: their identities, in order."""

    number: int
    ids: Ids

    @property
    def name(self) -> str:
        """File name of a table of exactly these rows."""
        return f"{self.number:06d}-{hashlib.blake2b(self.ids.tobytes(), digest_size=6).hexdigest()}.parquet"


@dataclass(frozen=True)
class ManifestRow:
    """One row of the source.

    Attributes:
        id: hash of the key, the values, and the sizes and modification times of the files of the picture, its masks
            and its conditions.
        key: unique in the source.
        location: such as `metadata.jsonl:12`.
        values: the source's values, as JSON.
    """

    id: int
    key: str
    location: str
    values: str

    def row(self, root: Path) -> Row:
        """The original row; `root` is the folder of the source's files."""
        return Row(self.location, from_json(self.values, root))


@dataclass(frozen=True)
class Listing:
    """Result of listing a source: the number of rows, and of new, changed and removed ones among them; the columns
    with boxes of the source's own regions.
    """

    rows: int
    new: int
    changed: int
    gone: int
    own_regions: tuple[str, ...] = ()


def list_source(
    folder: Path,
    source: SourceFormat,
    path: Path,
    block_rows: int,
    report: LoadReport,
    progress: Callable[[int], None] = lambda _: None,
) -> Listing:
    """Update the manifest in `folder` to match the source at `path`; an interrupted listing is resumed.

    New blocks have `block_rows` rows. The report gets the findings about lines that give no row; `progress` is called
    now and then with the number of rows found so far.

    Raises:
        DataError: the source can't be read, or no row has its picture's column.
        OSError: the manifest can't be written.
    """
    known = _KnownRows(folder)
    pending: list[ManifestRow] = []
    changed: dict[int, dict[int, ManifestRow]] = {}
    number = known.next_number
    rows = new = 0
    own: set[str] = set()
    for row in _rows_with_ids(source, path, report, own):
        rows += 1
        place = known.find(row.key)
        if place is None:
            new += 1
            pending.append(row)
            if len(pending) == block_rows:
                _write_block(folder, number, pending)
                pending, number = [], number + 1
        elif place.id != row.id:
            changed.setdefault(place.block, {})[place.row] = row
        if rows % 1000 == 0:
            progress(rows)
    if pending:
        _write_block(folder, number, pending)
    gone = known.unseen()
    _rewrite_blocks(folder, known.files, changed, gone)
    progress(rows)
    return Listing(rows, new, sum(map(len, changed.values())), sum(map(len, gone.values())), tuple(sorted(own)))


def _rewrite_blocks(
    folder: Path,
    files: Mapping[int, Path],
    changed: Mapping[int, Mapping[int, ManifestRow]],
    gone: Mapping[int, set[int]],
) -> None:
    """Rewrite the blocks with changed or removed rows, given by block and place in it."""
    for number in sorted({*changed, *gone}):
        old = files[number]
        replaced, removed = changed.get(number, {}), gone.get(number, set())
        kept = [replaced.get(place, row) for place, row in enumerate(read_block(old)) if place not in removed]
        if _write_block(folder, number, kept) != old:
            old.unlink()


def read_blocks(folder: Path) -> list[Block]:
    """All blocks of a manifest, in order."""
    files = sorted(numbered_files(folder).items())
    return [Block(number, read_ids(path)) for number, path in files]


def read_ids(path: Path) -> Ids:
    """Identities of the rows of a table, in order."""
    ids: Ids = read_table(path, columns=["id"]).column("id").to_numpy()
    return ids


def read_block(path: Path) -> list[ManifestRow]:
    """The rows of one block."""
    table = read_table(path, columns=["id", "key", "location", "values"])
    return [ManifestRow(**row) for row in table.to_pylist()]


def numbered_files(folder: Path) -> dict[int, Path]:
    """The tables `<number>-<digest>.parquet` of a folder by number; one each, even if a killed run left two."""
    if not folder.is_dir():
        return {}
    return {int(path.name.partition("-")[0]): path for path in sorted(folder.glob("[0-9]*.parquet"))}


def _rows_with_ids(source: SourceFormat, path: Path, report: LoadReport, own: set[str]) -> Iterator[ManifestRow]:
    """Rows with unique keys and their identities; names of own regions are added to `own`."""
    root = path if path.is_dir() else path.parent
    states = _FileStates(root)
    rows = with_picture = 0
    for key, row in keyed_rows(source.read(path, report), source.picture):
        rows += 1
        picture = row.values.get(source.picture)
        with_picture += picture is not None
        own.update(box_columns(row.values))
        values = to_json(row.values, root)
        files = "".join(f"\0{states.of(file)}" for file in [picture, *_further_files(row, picture)])
        yield ManifestRow(_hash(f"{key}\0{values}{files}"), key, printable(row.location), values)
    if rows and not with_picture:
        raise DataError(f"{path}: no record has the required column '{source.picture}'")


def _further_files(row: Row, picture: Any) -> list[str | Path]:
    """Files of a row's masks and conditions besides that of its picture; embedded ones change with their container."""
    values = [*masks_of(row).values(), *(row.values.get(name) for name in (ONE_MASK, *CONDITION_COLUMNS))]
    return [file for file in map(_file, values) if isinstance(file, str | Path) and file != _file(picture)]


def _file(value: Any) -> Any:
    return value.get("bytes") or value.get("path") if isinstance(value, Mapping) else value


class _FileStates:
    """States of the files that hold pictures (size and modification time), which change with a picture."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._containers: dict[Path, str] = {}

    def of(self, picture: Any) -> str:
        picture = _file(picture)
        if isinstance(picture, FileSpan | TableCell):
            if picture.path not in self._containers:
                self._containers[picture.path] = _state(picture.path)
            return self._containers[picture.path]
        return _state(self._root / picture) if isinstance(picture, str | Path) else "no file"


def _state(path: Path) -> str:
    try:
        found = path.stat()
    except (OSError, ValueError):  # missing, a null byte, a name too long: reported when the picture is read
        return "missing"
    return f"{found.st_size} {found.st_mtime_ns}"


@dataclass(frozen=True)
class _Place:
    block: int
    row: int
    id: int


class _KnownRows:
    """The rows that are already in a manifest, indexed by key."""

    def __init__(self, folder: Path) -> None:
        self.files = numbered_files(folder)
        for path in folder.glob("[0-9]*.parquet"):
            if path not in self.files.values():
                path.unlink()  # left by a run that was killed before it removed the replaced block
        self.next_number = max(self.files, default=-1) + 1
        numbers = sorted(self.files)
        tables = [read_table(self.files[n], columns=["id", "key_id"]) for n in numbers]
        joined = pyarrow.concat_tables([SCHEMA.empty_table().select(["id", "key_id"]), *tables])
        keys: Ids = joined.column("key_id").to_numpy()
        order = np.argsort(keys, kind="stable")
        self._keys, self._ids = keys[order], joined.column("id").to_numpy()[order]
        self._blocks = np.repeat(np.array(numbers, dtype=np.int64), [len(table) for table in tables])[order]
        self._rows = np.concatenate([np.zeros(0, np.int64), *(np.arange(len(table)) for table in tables)])[order]
        self._seen = np.zeros(len(keys), dtype=bool)

    def find(self, key: str) -> _Place | None:
        """The place of a key's row, which is marked as seen; None if the key is unknown."""
        key_id = np.uint64(_hash(key))
        at = int(np.searchsorted(self._keys, key_id))
        if at == len(self._keys) or self._keys[at] != key_id:
            return None
        self._seen[at] = True
        return _Place(int(self._blocks[at]), int(self._rows[at]), int(self._ids[at]))

    def unseen(self) -> dict[int, set[int]]:
        """Rows that `find` didn't return, by block."""
        gone: dict[int, set[int]] = {}
        for at in np.flatnonzero(~self._seen):
            gone.setdefault(int(self._blocks[at]), set()).add(int(self._rows[at]))
        return gone


def _write_block(folder: Path, number: int, rows: Sequence[ManifestRow]) -> Path:
    """Write a block, even one without rows, so that its number isn't reused."""
    columns = [{**asdict(row), "key_id": _hash(row.key)} for row in rows]
    table = pyarrow.Table.from_pylist(columns, schema=SCHEMA)
    path = folder / Block(number, table.column("id").to_numpy()).name
    write_table(table, path)
    return path


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
