"""Read and write Parquet files with checksums.

Each page, some hundred kilobytes of a column, has a CRC-32 that is checked when the page is read
(https://parquet.apache.org/docs/file-format/data-pages/checksumming/). So a picture is checked without reading the rest
of its file. Files without checksums, of earlier versions and of other programs, are read as they are.
"""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from fairhuman.errors import DataError
from fairhuman.utils.files import write_atomically
from fairhuman.utils.table_pages import most_decoded, rows_within

BATCH_BYTES = 2**27  # bytes of the values that are read at once


def open_table(path: Path) -> Any:
    """Open a file as `pyarrow.parquet.ParquetFile`, whose reads raise an OSError where a page is damaged.

    Columns are read page by page: of a sparse file, a whole one could be larger than the memory.
    """
    return pyarrow.parquet.ParquetFile(path, page_checksum_verification=True, pre_buffer=False, buffer_size=2**16)


def batch_rows(path: Path, table: Any, group: int, columns: Collection[str], most: int) -> int:
    """Number of rows, from 1 to `most`, whose values of some columns take about `BATCH_BYTES` at most in memory.

    Args:
        path: the file.
        table: the same of `open_table`.
        group: number of the row group.
        columns: names of columns, or paths of their leaves.
        most: largest number of rows.

    Raises:
        pyarrow.ArrowInvalid: as `rows_within`.
    """
    names = set(columns)
    leaves = [
        number
        for number in range(len(table.schema))
        if not names.isdisjoint(accumulate(table.schema.column(number).path.split("."), "{}.{}".format))
    ]
    return rows_within(path, table, group, leaves, most, BATCH_BYTES)


def read_batches(
    path: Path, table: Any, columns: Sequence[str], most: int, groups: Sequence[int] | None = None
) -> Iterator[pyarrow.RecordBatch]:
    """The rows of some columns, of all or some row groups, in batches of `batch_rows`."""
    for group in range(table.num_row_groups) if groups is None else groups:
        rows = batch_rows(path, table, group, columns, most)
        yield from table.iter_batches(batch_size=rows, row_groups=[group], columns=columns)


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
            schema, left = file.schema_arrow, most_decoded(path)
            wanted = [field for field in schema if columns is None or field.name in columns]
            batches = []
            for batch in read_batches(path, file, [field.name for field in wanted], 2**16):
                left -= batch.nbytes
                if left < 0:
                    raise pyarrow.ArrowInvalid(f"takes more than {most_decoded(path) >> 20} MiB in memory")
                batches.append(batch)
            return pyarrow.Table.from_batches(batches, pyarrow.schema(wanted, schema.metadata))
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
