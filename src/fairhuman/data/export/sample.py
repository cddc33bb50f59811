"""One record with all that belongs to it, as every export writes it: fields, and pictures as bytes."""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fairhuman.data.look.reading import DataSet, DecodedRecord, columns_of
from fairhuman.data.pictures.decode import decode_mask, inspect
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.pipeline.rows import box_rows
from fairhuman.data.pipeline.write import png, stored_form
from fairhuman.data.sources import SOURCES
from fairhuman.data.sources.check import STAGE
from fairhuman.data.sources.rows import locate
from fairhuman.record import FileSpan, LabelMap, MaskSource, Stored, TableCell

# Columns of the row that are taken as they are, where they are there.
BESIDE = {
    "caption_by": str,
    "source_caption": str,
    "pose_by": str,
    "depth_kind": str,
    "depth_by": str,
    "clarity": float,
}
PICTURES = ("masks", "pose", "depth", "pose_picture")
OWN = ("key", "width", "height", "caption", "source", "split", "attributes")


@dataclass(frozen=True)
class ExportSample:
    """What is written of a record.

    Attributes:
        fields: as a built data set has them, without pictures; boxes hold their score as fifth number where they have
            one. What the source says beside is among the attributes.
        picture: upright, in a form that every program reads, and its kind: `jpg`, `png` or `webp`.
        masks: PNG, by region.
        pose: key points as the source has them.
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
    """All records that can be used, in order; what can't be is noted."""
    for seen in dataset.decoded(report):
        try:
            yield _sample(dataset, seen, report)
        except PictureError as error:
            report.add(seen.record.location, STAGE, error.finding)


def _sample(dataset: DataSet, seen: DecodedRecord, report: LoadReport) -> ExportSample:
    record, values = seen.record, seen.row.values
    picture, kind = stored_form(seen.content, dataset.settings.limits)
    masks = {name: _mask(dataset, mask) for name, mask in record.masks.items()}
    pose = record.pose if isinstance(record.pose, list) else None
    drawn: Stored | None = record.pose if record.pose is not None and not isinstance(record.pose, list) else None
    if drawn is None and pose is None and values.get("pose_picture") is not None:
        drawn = locate(values["pose_picture"], dataset.root)
    pose_picture = _condition(dataset, seen, "pose", drawn, report)
    depth = _condition(dataset, seen, "depth", None if isinstance(record.depth, list) else record.depth, report)
    return ExportSample(_fields(dataset, seen), picture, kind, masks, pose, pose_picture, depth)


def _mask(dataset: DataSet, mask: MaskSource) -> bytes:
    if not isinstance(mask, LabelMap) and inspect(mask, dataset.settings.limits).kind == "PNG":
        return read_bytes(mask)
    return png(decode_mask(mask, dataset.settings.limits))


def _condition(
    dataset: DataSet, seen: DecodedRecord, name: str, stored: Stored | None, report: LoadReport
) -> bytes | None:
    """The bytes of a PNG; no other kind has its place in the formats, nor the sixteen bits of depth."""
    if stored is None:
        return None
    try:
        if (kind := inspect(stored, dataset.settings.limits).kind) != "PNG":
            raise PictureError(f"{name} is not a PNG", kind)
        return read_bytes(stored)
    except PictureError as error:
        finding = error.finding._replace(action="dropped", value=f"{name}: {error.finding.value}")
        report.add(seen.record.location, STAGE, finding)
        return None


def _fields(dataset: DataSet, seen: DecodedRecord) -> dict[str, Any]:
    record, values = seen.record, seen.row.values
    fields: dict[str, Any] = {
        "key": record.key,
        "width": record.width,
        "height": record.height,
        "caption": record.caption,
    }
    for region in dataset.regions:
        column, scores, votes, by = columns_of(region)
        rows = box_rows(record.boxes[region])
        fields[column] = rows
        for name in (scores, votes):  # beside boxes of which one was dropped they would belong to another
            if isinstance(values.get(name), list) and len(values[name]) == len(rows or ()):
                fields[name] = _plain(values[name])
        if isinstance(values.get(by), str):
            fields[by] = values[by]
    fields |= {name: values[name] for name, kind in BESIDE.items() if isinstance(values.get(name), kind)}
    source = values.get("source")
    fields["source"] = source if isinstance(source, str) and source else record.source
    if record.split is not None:
        fields["split"] = record.split
    attributes = {**_others(dataset, values), **_plain(dict(record.attributes))}
    if attributes:
        fields["attributes"] = attributes
    return fields


def _others(dataset: DataSet, values: Mapping[str, Any]) -> dict[str, Any]:
    """Columns that the format of data sets has no place for."""
    known = {SOURCES[dataset.kind].picture, "image", *OWN, *PICTURES, *BESIDE}
    known |= {name for region in dataset.regions for name in columns_of(region)}
    return {name: _plain(value) for name, value in values.items() if name not in known and _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Whether there is something that JSON can hold: nothing, and pictures, it can't."""
    if isinstance(value, Mapping):
        return all(_is_plain(inner) for inner in value.values())
    return value is not None and not isinstance(value, bytes | FileSpan | TableCell)


def _plain(value: Any) -> Any:
    """The value as strict JSON has it: NaN and infinity are null, dates and the like text."""
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    return str(value).encode("utf-8", "replace").decode("utf-8")  # JSON can spell half a surrogate pair


def as_text(attributes: Any) -> str | None:
    """Attributes as one text, for tables whose columns must have one type each."""
    return None if attributes is None else json.dumps(attributes, ensure_ascii=False)
