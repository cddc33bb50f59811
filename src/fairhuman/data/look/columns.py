"""Read the columns for statistics in chunks, without decoding pictures."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.parquet
from numpy.typing import NDArray

from fairhuman.data.look.reading import DataSet, annotation_columns
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.rows import BOXES, boxes_to_lists
from fairhuman.data.sources.own_regions import is_list
from fairhuman.data.sources.parquet import parquet_files
from fairhuman.data.sources.rows import CAPTION, TEXT
from fairhuman.errors import DataError
from fairhuman.record import region_column
from fairhuman.utils.tables import open_table, read_batches

ROWS = 4096
NUMBERS = ("width", "height", "clarity")
TEXTS = ("caption", "source", "split")


@dataclass(frozen=True)
class RecordColumns:
    """A chunk of records.

    Attributes:
        table: columns of a built data set: `NUMBERS`, `TEXTS`, and boxes, scores and detector of each region. Columns
            that the data set lacks, or has with another type, are missing.
        painted: for each region with painted masks, which records have one.
    """

    table: pyarrow.Table
    painted: Mapping[str, NDArray[np.bool_]]


def read_columns(dataset: DataSet, report: LoadReport) -> Iterator[RecordColumns]:
    """Read all records of a data set: only columns of Parquet tables with sizes, otherwise headers of pictures too.

    Raises:
        DataError: the data set can't be read.
    """
    files = parquet_files(dataset.path) if dataset.kind == "parquet" else []
    try:
        if files and all(
            {"width", "height"} <= {*_usable(pyarrow.parquet.read_schema(file), dataset.regions)} for file in files
        ):
            for file in files:
                yield from _read_file(file, dataset.regions)
            return
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{dataset.path}: not a readable Parquet file ({error})") from error
    yield from _read_records(dataset, report)


def _usable(schema: pyarrow.Schema, regions: Sequence[str]) -> list[str]:
    """Columns for statistics with the expected type."""
    checks = {**dict.fromkeys(NUMBERS, _is_number), **dict.fromkeys(TEXTS, _is_text)}
    if CAPTION not in schema.names:
        checks[TEXT] = _is_text
    for region in regions:
        boxes, scores, _, _, by = annotation_columns(region)
        checks |= {boxes: _is_boxes, scores: _is_scores, by: _is_text}
    return [field.name for field in schema if field.name in checks and checks[field.name](field.type)]


def _is_number(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_floating(kind) or pyarrow.types.is_integer(kind))


def _is_text(kind: pyarrow.DataType) -> bool:
    return bool(pyarrow.types.is_string(kind) or pyarrow.types.is_large_string(kind))


def _is_scores(kind: pyarrow.DataType) -> bool:
    return is_list(kind) and _is_number(kind.value_type)


def _is_boxes(kind: pyarrow.DataType) -> bool:
    return is_list(kind) and _is_scores(kind.value_type)


def _read_file(path: Path, regions: Sequence[str]) -> Iterator[RecordColumns]:
    with open_table(path) as file:
        masks = _mask_leaves([file.schema.column(n).path for n in range(len(file.schema))])
        names = _usable(file.schema_arrow, regions)
        own = [CAPTION if name == TEXT else name for name in names]
        read = [*names, *masks.values()]
        for batch in read_batches(path, file, read, ROWS):
            table = pyarrow.Table.from_batches([batch])
            painted = {
                name: pyarrow.compute.struct_field(table.column("masks"), [name]).is_valid().to_numpy()
                for name in masks
            }
            yield RecordColumns(table.select(names).rename_columns(own), painted)


def _mask_leaves(leaves: Sequence[str]) -> dict[str, str]:
    """For each painted mask, the smallest leaf that shows where it is null: `masks.face.path` rather than its bytes."""
    found: dict[str, str] = {}
    for leaf in leaves:
        column, _, inner = leaf.partition(".")
        if column == "masks" and "list" not in inner.split(".") and "key_value" not in inner.split("."):
            name = inner.split(".")[0]
            if name not in found or leaf.endswith(".path"):
                found[name] = leaf
    return found


def _read_records(dataset: DataSet, report: LoadReport) -> Iterator[RecordColumns]:
    schema = pyarrow.schema(
        [
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            ("caption", pyarrow.string()),
            ("source", pyarrow.string()),
            ("split", pyarrow.string()),
            *((region_column(region), BOXES) for region in dataset.regions),
        ]
    )
    records = (record for _, record in dataset.records(report))
    while chunk := list(islice(records, ROWS)):
        rows = [
            {
                "width": record.width,
                "height": record.height,
                "caption": record.caption,
                "source": record.source,
                "split": record.split,
                **{region_column(region): boxes_to_lists(record.boxes[region]) for region in dataset.regions},
            }
            for record in chunk
        ]
        names = dict.fromkeys(name for record in chunk for name in record.masks)
        painted = {name: np.array([name in record.masks for record in chunk]) for name in names}
        yield RecordColumns(pyarrow.Table.from_pylist(rows, schema=schema), painted)
