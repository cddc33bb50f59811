"""What was found out about pictures, kept on disk: features of networks and findings of detectors, each one once.

A row is known by the content of its picture (and its prompt, where that counts), so a picture that was moved, renamed
or is part of several evaluations costs nothing again, and one that was changed is looked at anew. Rows are appended
as small Parquet files with names of their own; a killed run loses the file in work, and processes don't collide.
"""

import uuid
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Generic, TypeVar

import pyarrow

from fairhuman.data.pipeline.tables import read_table, write_table
from fairhuman.errors import FairHumanError

Key = bytes
FEATURES = pyarrow.schema([("key", pyarrow.binary()), ("row", pyarrow.list_(pyarrow.float32()))])
FINDINGS = pyarrow.schema([("key", pyarrow.binary()), ("row", pyarrow.string())])

Row = TypeVar("Row")


class Rows(Generic[Row]):
    """All rows of one kind, such as the features of one network with these weights.

    Args:
        folder: of this kind; its name says which network, weights and preprocessing.
        schema: `FEATURES`, for rows that are float32 arrays, or `FINDINGS`, for rows that are texts.

    """

    def __init__(self, folder: Path, schema: pyarrow.Schema) -> None:
        self._folder, self._schema = folder, schema

    def read(self, keys: Collection[Key]) -> dict[Key, Row]:
        """The rows of `keys` that are there.

        Raises:
            FairHumanError: a file is damaged; names it.

        """
        found: dict[Key, Row] = {}
        wanted = set(keys)
        for path in sorted(self._folder.glob("*.parquet")):
            try:
                table = read_table(path)
                names, rows = table.column("key").to_pylist(), table.column("row")
            except (OSError, pyarrow.ArrowException, KeyError) as error:
                raise FairHumanError(f"{path}: a damaged file of the feature cache, remove it ({error})") from error
            for number, key in enumerate(names):
                if key in wanted:
                    row = rows[number]
                    found[key] = row.as_py() if self._schema is FINDINGS else row.values.to_numpy()
        return found

    def add(self, rows: Mapping[Key, Row]) -> None:
        """Keep rows; all of them or none."""
        if rows:
            table = pyarrow.Table.from_pydict({"key": list(rows), "row": list(rows.values())}, schema=self._schema)
            write_table(table, self._folder / f"{uuid.uuid4().hex}.parquet")
