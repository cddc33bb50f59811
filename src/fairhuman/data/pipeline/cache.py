"""On-disk cache of network features and detections.

The key of a row is the hash of the picture's content (and of its prompt, if the network reads it). Moved or renamed
pictures and pictures shared by several evaluations are therefore computed once, and changed ones are recomputed. Rows
are written as small Parquet files with unique names: a killed run loses only the current file, and processes don't
collide. A name ends in the digest of the file's bytes, which is checked when the file is read.
"""

import io
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow
import pyarrow.parquet

from fairhuman.utils.digest import content_digest
from fairhuman.utils.files import write_atomically

Key = bytes
FEATURE_ROWS = pyarrow.schema([("key", pyarrow.binary()), ("row", pyarrow.list_(pyarrow.float32()))])
DETECTION_ROWS = pyarrow.schema([("key", pyarrow.binary()), ("row", pyarrow.string())])

Row = TypeVar("Row")


@dataclass
class CacheHealth:
    """What reading a cache found out: files that are damaged, and files of an earlier version without a digest.

    `name` is that of the cache in messages.
    """

    name: str = "feature cache"
    damaged: set[Path] = field(default_factory=set)
    unchecked: set[Path] = field(default_factory=set)

    def settle(self) -> list[str]:
        """Delete the damaged files, whose rows have been computed again; return a line for each kind of file."""
        for path in self.damaged:
            path.unlink(missing_ok=True)
        return [
            f"{self.name}: {what}: {len(paths)} (such as {min(paths)})"
            for paths, what in (
                (self.damaged, "damaged files, deleted, and what they held computed again"),
                (self.unchecked, "files of an earlier version without a digest, used unchecked"),
            )
            if paths
        ]


class CachedRows(Generic[Row]):
    """Cached rows of one kind, such as the features of one network with given weights.

    Args:
        folder: folder of this kind; its name identifies network, weights and preprocessing.
        schema: `FEATURE_ROWS` for float32 arrays, `DETECTION_ROWS` for JSON texts.
        health: where damaged files are noted.
    """

    def __init__(self, folder: Path, schema: pyarrow.Schema, health: CacheHealth | None = None) -> None:
        self._folder, self._schema, self._health = folder, schema, health or CacheHealth()

    def read(self, keys: Collection[Key]) -> dict[Key, Row]:
        """The rows of `keys` that the cache holds in files that aren't damaged."""
        found: dict[Key, Row] = {}
        wanted = set(keys)
        for path in sorted(self._folder.glob("*.parquet")):
            table = self._table(path)
            if table is None:
                self._health.damaged.add(path)
                continue
            names, rows = table.column("key").to_pylist(), table.column("row")
            for number, key in enumerate(names):
                if key in wanted:
                    row = rows[number]
                    found[key] = row.as_py() if self._schema is DETECTION_ROWS else row.values.to_numpy()
        return found

    def add(self, rows: Mapping[Key, Row]) -> None:
        """Add rows atomically."""
        if rows:
            table = pyarrow.Table.from_pydict({"key": list(rows), "row": list(rows.values())}, schema=self._schema)
            buffer = io.BytesIO()
            pyarrow.parquet.write_table(table, buffer)
            content = buffer.getvalue()
            path = self._folder / f"{uuid.uuid4().hex}-{content_digest(content)}.parquet"
            write_atomically(path, lambda partial: partial.write_bytes(content))

    def _table(self, path: Path) -> pyarrow.Table | None:
        """Read a file; None: it is damaged."""
        digest = path.stem.partition("-")[2]
        try:
            content = path.read_bytes()
            if digest and digest != content_digest(content):
                return None
            with pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content)) as file:
                table = file.read(use_threads=False)
        except (OSError, pyarrow.ArrowException):
            return None
        if not digest:
            self._health.unchecked.add(path)
        return table if {"key", "row"} <= {*table.column_names} else None
