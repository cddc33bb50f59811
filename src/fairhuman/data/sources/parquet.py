"""Parquet tables with embedded pictures, as written by `fairhuman data build` and Hugging Face `datasets`.

Columns: `image` {bytes, path} (without bytes, the path is relative to the folder), and those of imagefolder.
Rows refer to pictures by their table cells, without reading them.
"""

import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.rows import MAX_TEXT, Row, read_limited, reading_table, with_caption
from fairhuman.errors import DataError
from fairhuman.record import TableCell
from fairhuman.regions.boxes import shorten
from fairhuman.utils.parse import MAX_DEPTH, parse_json
from fairhuman.utils.table_pages import most_decoded
from fairhuman.utils.tables import naming_damage, open_table, read_batches

SPLIT = re.compile(r"((?:train|test|dev|eval)(?![a-z])\w*|val\w*)-", re.IGNORECASE)


def parquet_rows(path: Path, report: LoadReport) -> Iterator[Row]:  # noqa: ARG001 - the signature of all sources
    """Rows of one file, or of all `*.parquet` of a folder (or of its subfolder `data`) in the order of their names.

    Raises:
        DataError: a file can't be read. Its number of rows is unknown, so it can't count as some bad records.
    """
    return (row for file in parquet_files(path) for row in _rows_of_split(file))


def _rows_of_split(file: Path) -> Iterator[Row]:
    """Rows of a table, of the split by which Hugging Face names it, such as `test-00000-of-00001.parquet`."""
    named = SPLIT.match(file.name)
    for row in read_rows(file):
        if named is not None and row.values.get("split") is None:
            row = Row(row.location, {**row.values, "split": named[1]})
        yield row


def parquet_files(path: Path) -> list[Path]:
    """The tables at a path: the file itself, those in the folder, or those in its subfolder `data`; may be empty.

    Raises:
        DataError: they are those of a build that hasn't finished.
    """
    if path.is_file():
        return [path] if path.suffix == ".parquet" else []
    files = sorted(path.glob("*.parquet")) or sorted((path / "data").glob("*.parquet"))
    if files and files[0].parent.name == "data":
        _check_finished(files[0].parent.absolute().parent, {file.name for file in files})
    return files


def _check_finished(out: Path, tables: set[str]) -> None:
    """Check that a build in this folder has written its report, which names its tables, after them.

    Raises:
        DataError: it hasn't, so that tables are missing or those of an earlier build are among them.
    """
    source, report = _stated(out / "source.json", "source"), out / "report.json"
    stated = _stated(report, "files") if report.is_file() else []
    if source is not None and isinstance(stated, list) and set(map(str, stated)) != tables:
        again = shlex.join(["fairhuman", "data", "build", str(source), str(out), "--recipe", str(out / "recipe.yaml")])
        raise DataError(f"{out}: a build in this folder hasn't finished; wait for it, or resume it: {again}")


def _stated(file: Path, name: str) -> Any:
    """A value that a JSON of ours states; None if the file isn't one, or hasn't it."""
    try:
        return parse_json(read_limited(file, MAX_TEXT)).get(name)
    except (DataError, ValueError, AttributeError):
        return None


def read_rows(path: Path) -> Iterator[Row]:
    """Rows of one table; the line in a location is the row's number from 1.

    Raises:
        DataError: it can't be read, or exceeds a limit.
    """
    try:
        with reading_table(path), naming_damage(path), open_table(path) as table:
            number, left = 0, most_decoded(path)
            for group in range(table.num_row_groups):
                filled = _filled_leaves(table, group)
                leaves = [leaf for leaf in _leaves(table, path) if leaf not in filled]
                for batch in read_batches(path, table, leaves, 256, groups=[group]):
                    left -= _check_size(batch, path, number, left)
                    for row in _rows_of(batch, path, number, filled.values()):
                        number += 1
                        yield Row(f"{path.name}:{number}", row)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error})") from error


def _check_size(batch: pyarrow.RecordBatch, path: Path, start: int, most: int) -> int:
    """Bytes of a batch besides pictures; `start` is the number of its first row, `most` what the table may still have.

    Raises:
        DataError: they are more, or those of a row are more than `MAX_TEXT`.
    """
    size = _text_bytes(batch)
    if size > MAX_TEXT:
        for number in range(batch.num_rows):
            of_row = _text_bytes(batch.slice(number, 1))
            if of_row > MAX_TEXT:
                raise DataError(
                    f"{path}: row {start + number + 1} must have at most {MAX_TEXT:,} bytes besides pictures, "
                    f"found {of_row:,}; shorten it, or remove the column"
                )
    if size > most:
        raise DataError(
            f"{path}: must have at most {most_decoded(path):,} bytes besides pictures, found more; split it"
        )
    return size


def _text_bytes(values: pyarrow.RecordBatch | pyarrow.Array) -> int:
    """Bytes of columns, or of one, without those of binary ones that are in no list."""
    kind = None if isinstance(values, pyarrow.RecordBatch) else values.type
    if kind is None:
        return sum(map(_text_bytes, values.columns))
    if pyarrow.types.is_struct(kind):
        return sum(map(_text_bytes, values.flatten()))
    binary = pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
    return 0 if binary else int(values.nbytes)


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


def _leaves(table: Any, path: Path) -> list[str]:
    leaves = [table.schema.column(number).path for number in range(len(table.schema))]
    for leaf in leaves:
        if leaf.count(".") + 1 >= MAX_DEPTH:
            name = shorten(leaf.partition(".")[0])
            raise DataError(f"{path}: column {name} must be nested less than {MAX_DEPTH} levels deep; remove it")
    return leaves


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
