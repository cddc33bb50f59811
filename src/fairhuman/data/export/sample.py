"""Samples to export: a record's fields, and its pictures as bytes."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairhuman.data.look.reading import DataSet, DecodedRecord, annotation_columns
from fairhuman.data.pictures.decode import decode_mask, inspect
from fairhuman.data.pictures.encode import encode_png
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.pipeline.rows import SEARCHED, boxes_to_lists
from fairhuman.data.pipeline.write import encode_for_storage
from fairhuman.data.sources import source_format
from fairhuman.data.sources.check import STAGE
from fairhuman.data.sources.columns import ONE_MASK
from fairhuman.data.sources.rows import locate
from fairhuman.record import DerivedMask, FileSpan, LabelMap, MaskSource, Stored, TableCell

# Optional columns of the row that are exported unchanged.
COPIED = {
    "caption_by": str,
    "source_caption": str,
    "pose_by": str,
    "depth_kind": str,
    "depth_by": str,
    "clarity": float,
    SEARCHED: int,
}
PICTURES = ("masks", "pose", "depth", "pose_picture")
RECORD_FIELDS = ("key", "width", "height", "caption", "source", "split", "attributes", "repeats", ONE_MASK)


@dataclass(frozen=True)
class ExportSample:
    """The exported data of a record.

    Attributes:
        fields: columns of a built data set, without pictures; boxes with a score have it as fifth number. Other
            columns of the source are among the attributes.
        picture, kind: the upright picture in a portable format, and its file type: `jpg`, `png` or `webp`.
        masks: PNG, by region.
        pose: key points in the source's layout.
        pose_picture, depth: PNG.
    """

    fields: Mapping[str, Any]
    picture: bytes
    kind: str
    masks: Mapping[str, bytes]
    pose: list[Any] | None
    pose_picture: bytes | None
    depth: bytes | None


def samples(dataset: DataSet, report: LoadReport) -> Iterator[ExportSample]:
    """All usable records in order; unusable ones are noted."""
    for decoded in dataset.decoded_records(report):
        try:
            yield _sample(dataset, decoded, report)
        except PictureError as error:
            report.add(decoded.record.location, STAGE, error.finding)


def _sample(dataset: DataSet, decoded: DecodedRecord, report: LoadReport) -> ExportSample:
    record, values = decoded.record, decoded.row.values
    picture, kind = encode_for_storage(decoded.content, dataset.settings.limits)
    masks = {name: _mask(dataset, mask) for name, mask in record.masks.items()}
    pose = record.pose if isinstance(record.pose, list) else None
    drawn: Stored | None = record.pose if record.pose is not None and not isinstance(record.pose, list) else None
    if drawn is None and pose is None and values.get("pose_picture") is not None:
        drawn = locate(values["pose_picture"], dataset.root)
    pose_picture = _condition(dataset, decoded, "pose", drawn, report)
    depth = _condition(dataset, decoded, "depth", None if isinstance(record.depth, list) else record.depth, report)
    return ExportSample(_fields(dataset, decoded), picture, kind, masks, pose, pose_picture, depth)


def _mask(dataset: DataSet, mask: MaskSource) -> bytes:
    if not isinstance(mask, LabelMap | DerivedMask) and inspect(mask, dataset.settings.limits).kind == "PNG":
        return read_bytes(mask)
    return encode_png(decode_mask(mask, dataset.settings.limits))


def _condition(
    dataset: DataSet, decoded: DecodedRecord, name: str, stored: Stored | None, report: LoadReport
) -> bytes | None:
    """The bytes of a condition, which must be PNG: the export formats have no other type, and depth has 16 bits."""
    if stored is None:
        return None
    try:
        if (kind := inspect(stored, dataset.settings.limits).kind) != "PNG":
            raise PictureError(f"{name} is not a PNG", kind)
        return read_bytes(stored)
    except PictureError as error:
        finding = error.finding._replace(action="dropped", value=f"{name}: {error.finding.value}")
        report.add(decoded.record.location, STAGE, finding)
        return None


def _fields(dataset: DataSet, decoded: DecodedRecord) -> dict[str, Any]:
    record, values = decoded.record, decoded.row.values
    fields: dict[str, Any] = {
        "key": record.key,
        "width": record.width,
        "height": record.height,
        "caption": record.caption,
    }
    for region in dataset.regions:
        columns = annotation_columns(region)
        rows = boxes_to_lists(record.boxes[region])
        fields[columns.boxes] = rows
        for name in columns.of_boxes:  # if a box was dropped, they would no longer match the boxes
            if isinstance(values.get(name), list) and len(values[name]) == len(rows or ()):
                fields[name] = _plain(values[name])
        if isinstance(values.get(columns.by), str):
            fields[columns.by] = values[columns.by]
    fields |= {name: values[name] for name, kind in COPIED.items() if isinstance(values.get(name), kind)}
    source = values.get("source")
    fields["source"] = source if isinstance(source, str) and source else record.source
    if record.split is not None:
        fields["split"] = record.split
    if record.repeats > 1:
        fields["repeats"] = record.repeats
    attributes = {**_extra_columns(dataset, values), **_plain(dict(record.attributes))}
    if attributes:
        fields["attributes"] = attributes
    return fields


def _extra_columns(dataset: DataSet, values: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that the data set format doesn't define."""
    known = {source_format(dataset.kind).picture, "image", *RECORD_FIELDS, *PICTURES, *COPIED}
    known |= {name for region in dataset.regions for name in annotation_columns(region)}
    return {name: _plain(value) for name, value in values.items() if name not in known and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Whether a value is neither null nor binary, so that it can be stored as JSON."""
    if isinstance(value, Mapping):
        return all(_is_plain(inner) for inner in value.values())
    return value is not None and not isinstance(value, bytes | FileSpan | TableCell)


def _plain(value: Any) -> Any:
    """Convert a value to strict JSON: NaN and infinity become null, dates and the like become text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value).encode("utf-8", "replace").decode("utf-8")  # JSON can encode half a surrogate pair


def as_text(attributes: Any) -> str | None:
    """Attributes as JSON text, for tables whose columns have a fixed type."""
    return None if attributes is None else json.dumps(attributes, ensure_ascii=False)
