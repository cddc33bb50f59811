"""Export to Parquet tables with the columns of a built data set, from any source and without a build."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

import pyarrow

from fairhuman.data.condition.people import people_from_source, people_to_list
from fairhuman.data.export.sample import ExportSample, as_text
from fairhuman.data.look.reading import DataSet, annotation_columns
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.rows import RowReader
from fairhuman.data.pipeline.write import ROW_GROUP, ShardWriter, picture_cell
from fairhuman.data.sources import source_format
from fairhuman.data.sources.check import STAGE
from fairhuman.data.sources.columns import ONE_MASK
from fairhuman.data.sources.rows import masks_of, one_mask_region
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.utils.tables import open_writer


def write_parquet(
    folder: Path, samples: Iterator[ExportSample], dataset: DataSet, shard_rows: int, report: LoadReport
) -> None:
    """Write `data/00000.parquet`, ... with `shard_rows` rows each."""
    named, found = set(dataset.regions), set[str]()
    for row in dataset.rows(LoadReport()):
        named.update(masks_of(row))
        found.update(row.values)
    if ONE_MASK in found or dataset.settings.alpha == "mask":
        named.add(one_mask_region(dataset.settings))
    masks = sorted(named)
    of_bodies = tuple(region for region in dataset.regions if annotation_columns(region).persons in found)
    reader = RowReader(dataset.root, source_format(dataset.kind).picture, dataset.regions, dataset.settings)
    schema = ShardWriter(reader, tuple(masks), dataset.root.name, of_bodies=of_bodies).schema
    (folder / "data").mkdir()
    number = 0
    while (first := next(samples, None)) is not None:
        rows = (
            _row(sample, dataset.regions, masks, report) for sample in chain([first], islice(samples, shard_rows - 1))
        )
        path = folder / "data" / f"{number:05d}.parquet"
        with open_writer(path, schema) as file:
            while group := list(islice(rows, ROW_GROUP)):
                file.write_table(pyarrow.Table.from_pylist(group, schema=schema))
        number += 1


def _row(sample: ExportSample, regions: Sequence[str], masks: Sequence[str], report: LoadReport) -> dict[str, Any]:
    row = {"source_caption": sample.fields["caption"], **sample.fields}
    for region in regions:
        column, scores, _, _, by = annotation_columns(region)
        boxes = row[column]
        if boxes is not None:
            row.setdefault(by, "source")
            row[column] = [box[:4] for box in boxes]
            if any(len(box) == 5 for box in boxes):
                row[scores] = [box[4] if len(box) == 5 else None for box in boxes]
    row["image"] = {"bytes": sample.picture, "path": f"{row['key']}.{sample.kind}"}
    row["masks"] = {name: picture_cell(sample.masks.get(name)) for name in masks}
    row["pose"] = None if sample.pose is None else _people(row["key"], sample.pose, report)
    row["pose_picture"], row["depth"] = picture_cell(sample.pose_picture), picture_cell(sample.depth)
    row["attributes"] = as_text(row.get("attributes"))
    return row


def _people(key: str, pose: list[Any], report: LoadReport) -> list[dict[str, Any]] | None:
    """Convert key points of any layout to that of the column."""
    try:
        return people_to_list(people_from_source(pose))
    except DataError as error:
        report.add(key, STAGE, Finding("dropped", "pose can't be used", str(error)))
        return None
