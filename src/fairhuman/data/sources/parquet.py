"""Parquet tables with embedded pictures, as written by `fairhuman data build` and Hugging Face `datasets`.

Columns: `image` {bytes, path} (without bytes, the path is relative to the folder), and those of imagefolder.
Rows refer to pictures by their table cells, without reading them.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.rows import Row, reading_table, with_caption
from fairhuman.errors import DataError
from fairhuman.record import TableCell
from fairhuman.utils.tables import naming_damage, open_table


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
                for batch in table.iter_batches(batch_size=256, row_groups=[group], columns=leaves):
                    for values in batch.to_pylist():
                        row = {
                            name: _with_cells(value, TableCell(path, number, (name,))) for name, value in values.items()
                        }
                        for leaf in filled:
                            field = tuple(leaf.split(".")[:-1])
                            _inside(row, field)["bytes"] = TableCell(path, number, field)
                        number += 1
                        yield Row(f"{path.name}:{number}", with_caption(row))
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _leaves(table: Any) -> list[str]:
    return [table.schema.column(number).path for number in range(len(table.schema))]


def _filled_leaves(table: Any, group: int) -> list[str]:
    """Leaves `*.bytes` of structs without nulls, according to the file's statistics; they needn't be read."""
    columns = [table.metadata.row_group(group).column(number) for number in range(len(table.schema))]
    return [
        column.path_in_schema
        for column in columns
        if column.path_in_schema.endswith(".bytes")
        and not {"list", "key_value"} & set(column.path_in_schema.split("."))
        and column.is_stats_set
        and column.statistics.has_null_count
        and column.statistics.null_count == 0
    ]


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
