"""Columns with the boxes of a user's own regions: any column of boxes that the data set format doesn't define."""

from collections.abc import Iterable
from pathlib import Path

import pyarrow

from fairhuman.data.sources.columns import DEFINED, box_columns
from fairhuman.data.sources.parquet import parquet_files
from fairhuman.data.sources.rows import Row
from fairhuman.utils.tables import open_table, read_batches

_BATCH_ROWS = 4096


def own_regions(rows: Iterable[Row]) -> tuple[str, ...]:
    """Names of the columns that hold boxes in some row and aren't among `DEFINED`, in alphabetical order."""
    return tuple(sorted({name for row in rows for name in box_columns(row.values)}))


def own_regions_of_tables(path: Path) -> tuple[str, ...]:
    """`own_regions` of Parquet tables; reads only columns whose type fits.

    Raises:
        pyarrow.ArrowException, OSError: a table can't be read.
    """
    found: set[str] = set()
    for file in parquet_files(path):
        with open_table(file) as table:
            for field in table.schema_arrow:
                if field.name in DEFINED | found or not _is_nested(field.type):
                    continue
                for batch in read_batches(file, table, [field.name], _BATCH_ROWS):
                    if any(True for row in batch.to_pylist() for _ in box_columns(row)):
                        found.add(field.name)
                        break
    return tuple(sorted(found))


def _is_nested(kind: pyarrow.DataType) -> bool:
    """Whether a type is a list of lists."""
    return is_list(kind) and is_list(kind.value_type)


def is_list(kind: pyarrow.DataType) -> bool:
    """Whether a type is a list of any kind."""
    types = pyarrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
