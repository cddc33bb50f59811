"""Parquet tables with embedded pictures, as written by `fairhuman data build` and Hugging Face `datasets`.

Columns: `image` {bytes, path} (without bytes, the path is relative to the folder), and those of imagefolder.
Rows refer to pictures by their table cells, without reading them.
"""

from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.rows import Row, reading_table, with_caption
from fairhuman.errors import DataError
from fairhuman.record import TableCell
from fairhuman.utils.tables import batch_rows, naming_damage, open_table


def parquet_rows(path: Path, report: LoadReport) -> Iterator[Row]:  # noqa: ARG001 - the signature of all sources
    """Rows of one file, or of all `*.parquet` of a folder (or of its subfolder `data`) in the order of their names.

    Raises:
        DataError: a file can't be read. Its number of rows is unknown, so it can't count as some bad records.
    """
    return (row for file in parquet_files(path) for row in read_rows(file))


def parquet_files(path: Path) -> list[Path]:
    """The tables at a path: the file itself, those in the folder, or those in its subfolder `data`; may be empty."""
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    return sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of one table; the line in a location is the row's number from 1."""
    try:
        with reading_table(path), naming_damage(path), open_table(path) as table:
            number = 0
            for group in range(table.num_row_groups):
                filled = _filled_leaves(table, group)
                leaves = [leaf for leaf in _leaves(table) if leaf not in filled]
                size = batch_rows(table, group, leaves, 256)
                for batch in table.iter_batches(batch_size=size, row_groups=[group], columns=leaves):
                    for row in _rows_of(batch, path, number, filled.values()):
                        number += 1
                        yield Row(f"{path.name}:{number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _rows_of(
    batch: pyarrow.RecordBatch, path: Path, start: int, filled: Collection[tuple[str, ...]]
) -> list[dict[str, Any]]:
    """The columns of a batch's rows; `start` is the number of the first one, `filled` are the structs with bytes.

    Raises:
        DataError: Python has no such value, such as a time after the year 9999 or a map with structs as keys.
    """
    rows = []
    try:
        for number, values in enumerate(batch.to_pylist(), start=start):
            row = {name: _with_cells(value, TableCell(path, number, (name,))) for name, value in values.items()}
            for field in filled:
                _inside(row, field)["bytes"] = TableCell(path, number, field)
            rows.append(with_caption(row))
    except (ValueError, OverflowError, TypeError) as error:
        message = f"{path}: rows from {start + 1} hold a value that can't be read ({error}); remove its column"
        raise DataError(message) from error
    return rows


def _leaves(table: Any) -> list[str]:
    return [table.schema.column(number).path for number in range(len(table.schema))]


def _filled_leaves(table: Any, group: int) -> dict[str, tuple[str, ...]]:
    """Leaves `bytes` of structs without nulls, according to the file's statistics, and the structs' names.

    They needn't be read.
    """
    structs = dict(_structs_with_bytes(table.schema_arrow))
    columns = [table.metadata.row_group(group).column(number) for number in range(len(table.schema))]
    return {
        column.path_in_schema: structs[column.path_in_schema]
        for column in columns
        if column.path_in_schema in structs
        and column.is_stats_set
        and column.statistics.has_null_count
        and column.statistics.null_count == 0
    }


def _structs_with_bytes(
    fields: Iterable[pyarrow.Field], inside: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Path of the leaf `bytes` of each struct that has one, and the struct's names from the column inwards."""
    for field in fields:
        if pyarrow.types.is_struct(field.type):
            yield from _structs_with_bytes(field.type, (*inside, field.name))
        elif inside and field.name == "bytes":
            yield ".".join((*inside, field.name)), inside


def _with_cells(value: Any, cell: TableCell) -> Any:
    """The value with bytes replaced by cells; a Parquet map arrives as a list of pairs."""
    if isinstance(value, bytes):
        return cell
    if isinstance(value, list) and value and all(isinstance(pair, tuple) and len(pair) == 2 for pair in value):
        value = dict(value)
    if not isinstance(value, dict):
        return value
    if isinstance(value.get("bytes"), bytes):
        return {**value, "bytes": cell}
    return {
        name: _with_cells(inner, TableCell(cell.path, cell.row, (*cell.field, str(name))))
        for name, inner in value.items()
    }


def _inside(values: dict[str, Any], field: tuple[str, ...]) -> dict[str, Any]:
    for name in field:
        values = values.setdefault(name, {})
    return values
