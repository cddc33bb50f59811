"""Read and write small Parquet files."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from fairhuman.utils.files import write_atomically


def read_table(path: Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """Read all rows of a file, without the search for partitions of `pyarrow.parquet.read_table`."""
    with pyarrow.parquet.ParquetFile(path) as file:
        return file.read(columns=None if columns is None else list(columns), use_threads=False)


def write_table(table: pyarrow.Table, path: Path) -> None:
    """Write a file atomically; the same table gives the same bytes."""
    write_atomically(path, lambda partial: pyarrow.parquet.write_table(table, partial))
