"""Parquet tables with the pictures inside: what `fairhuman data build` and Hugging Face `datasets` write.

Columns: `image` {bytes, path} (the path, where there are no bytes, is relative to the folder), and those of
imagefolder.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow
import pyarrow.parquet

from fairhuman.data.report import LoadReport
from fairhuman.data.sources.rows import Row, SourceSettings, readable, records_from_rows
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord


def read_parquet(path: Path, regions: Sequence[str], settings: SourceSettings, report: LoadReport) -> list[HumanRecord]:
    """Read one file, or all `*.parquet` of a folder (or of its subfolder `data`) in the order of their names.

    Raises:
        DataError: if a file can't be read: how many rows it holds is then unknown, so it can't count as
            some bad records; and see `records_from_rows`.

    """
    root = path if path.is_dir() else path.parent
    rows = (row for file in parquet_files(path) for row in rows_of_file(file))
    return records_from_rows(rows, root, "image", regions, settings, report)


def parquet_files(path: Path) -> list[Path]:
    """The tables at a path: itself, those in the folder, or those in its subfolder `data`; may be none."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))


def rows_of_file(path: Path) -> Iterator[Row]:
    """Rows of one table; the line of a location is the row's number from 1."""
    try:
        with readable(path), pyarrow.parquet.ParquetFile(path) as table:
            number = 0
            for batch in table.iter_batches(batch_size=256):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(f"{path.name}:{number}", values)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error
