"""Read and write Parquet files with checksums.

Each page, some hundred kilobytes of a column, has a CRC-32 that is checked when the page is read
(https://parquet.apache.org/docs/file-format/data-pages/checksumming/). So a picture is checked without reading the rest
of its file. Files without checksums, of earlier versions and of other programs, are read as they are.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fairhuman.errors import DataError
from fairhuman.utils.files import write_atomically

BATCH_BYTES = 2**28  # bytes of the values that are read at once


def open_table(path: Path) -> Any:
    """Open a file as `pyarrow.parquet.ParquetFile`, whose reads raise an OSError where a page is damaged."""
    return pyarrow.parquet.ParquetFile(path, page_checksum_verification=True)


def batch_rows(table: Any, group: int, columns: Collection[str], most: int) -> int:
    """Number of rows, from 1 to `most`, whose values of some columns take about `BATCH_BYTES` at most in memory.

    A dictionary holds a value once, however many rows repeat it. So a row of columns with dictionaries counts as much
    as those columns of the whole row group are said to.

    Args:
        table: a file of `open_table`.
        group: number of the row group.
        columns: names of columns, or paths of their leaves.
        most: largest number of rows.
    """
    metadata = table.metadata.row_group(group)
    chunks = [metadata.column(number) for number in range(metadata.num_columns)]
    size = sum(
        chunk.total_uncompressed_size
        for chunk in chunks
        if any("DICTIONARY" in encoding for encoding in chunk.encodings)
        and any(chunk.path_in_schema == name or chunk.path_in_schema.startswith(f"{name}.") for name in columns)
    )
    return max(1, min(most, BATCH_BYTES // max(int(size), 1)))


def is_damage(error: Exception) -> bool:
    """Whether an error is that of a page whose checksum is wrong."""
    return isinstance(error, OSError) and "CRC checksum" in str(error)


@contextmanager
def naming_damage(path: Path) -> Iterator[None]:
    """Turn the error about a wrong checksum into one line that says what to do.

    Raises:
        DataError: a page is damaged.
    """
    try:
        yield
    except OSError as error:
        if not is_damage(error):
            raise
        raise DataError(f"{path}: is damaged: differs from its checksums; copy it again, or make it anew") from error


def open_writer(path: Path, schema: pyarrow.Schema) -> Any:
    """Create an uncompressed file as `pyarrow.parquet.ParquetWriter`, for pictures, which are compressed already."""
    return pyarrow.parquet.ParquetWriter(path, schema, compression="none", write_page_checksum=True)


def read_table(path: Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """Read all rows of a file, without the search for partitions of `pyarrow.parquet.read_table`.

    Raises:
        DataError: the file is damaged; names it.
        FileNotFoundError: there is none.
    """
    try:
        with open_table(path) as file:
            return file.read(columns=None if columns is None else list(columns), use_threads=False)
    except FileNotFoundError:
        raise
    except (OSError, pyarrow.ArrowException) as error:
        said = " ".join(str(error).split())  # Arrow's messages may have several lines
        raise DataError(f"{path}: is damaged ({said}); delete it and run the same command again") from error


def write_table(table: pyarrow.Table, path: Path, **options: Any) -> None:
    """Write a file atomically, with options of `pyarrow.parquet.write_table`; the same table gives the same bytes."""
    write_atomically(
        path, lambda partial: pyarrow.parquet.write_table(table, partial, write_page_checksum=True, **options)
    )
