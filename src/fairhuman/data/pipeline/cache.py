"""On-disk cache of network features and detections.

The key of a row is the hash of the picture's content (and of its prompt, if the network reads it). Moved or renamed
pictures and pictures shared by several evaluations are therefore computed once, and changed ones are recomputed. Rows
are written as small Parquet files with unique names: a killed run loses only the current file, and processes don't
collide.
"""

import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow

from fairhuman.data.pipeline.tables import read_table, write_table
from fairhuman.errors import FairHumanError

Key = bytes
FEATURE_ROWS = pyarrow.schema([("key", pyarrow.binary()), ("row", pyarrow.list_(pyarrow.float32()))])
DETECTION_ROWS = pyarrow.schema([("key", pyarrow.binary()), ("row", pyarrow.string())])

Row = TypeVar("Row")


class CachedRows(Generic[Row]):
    """Cached rows of one kind, such as the features of one network with given weights.

    Args:
        folder: folder of this kind; its name identifies network, weights and preprocessing.
        schema: `FEATURE_ROWS` for float32 arrays, `DETECTION_ROWS` for JSON texts.
    """

    def __init__(self, folder: Path, schema: pyarrow.Schema) -> None:
        self._folder, self._schema = folder, schema

    def read(self, keys: Collection[Key]) -> dict[Key, Row]:
        """The rows of `keys` that the cache holds.

        Raises:
            FairHumanError: a file is damaged; names the file.
        """
        found: dict[Key, Row] = {}
        wanted = set(keys)
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                table = read_table(path)
                names, rows = table.column("key").to_pylist(), table.column("row")
            except (OSError, pyarrow.ArrowException, KeyError) as error:
                raise FairHumanError(f"{path}: damaged file in the feature cache; delete it ({error})") from error
            for number, key in enumerate(names):
                if key in wanted:
                    row = rows[number]
                    found[key] = row.as_py() if self._schema is DETECTION_ROWS else row.values.to_numpy()
        return found

    def add(self, rows: Mapping[Key, Row]) -> None:
        """Add rows atomically."""
        if rows:
            table = pyarrow.Table.from_pydict({"key": list(rows), "row": list(rows.values())}, schema=self._schema)
            write_table(table, self._folder / f"{uuid.uuid4().hex}.parquet")
