"""Close-ups from full pictures: a square crop around each box of a region, with the record's other data.

Boxes, masks, key points and depth are cropped with the picture; the caption is unchanged. The clarity is left out,
because it was measured on the full picture.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.condition.depth import decode_depth, depth_png, encode_depth
from fairhuman.data.condition.people import move_people, people_from_source, people_to_list
from fairhuman.data.export.sample import ExportSample
from fairhuman.data.look.reading import annotation_columns
from fairhuman.data.pictures.decode import ANY_SHAPE, decode, decode_mask, inspect
from fairhuman.data.pictures.encode import encode_jpeg, encode_png
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.check import STAGE
from fairhuman.errors import DataError
from fairhuman.record import CLOSEUP_OF, Box, Finding, region_column
from fairhuman.regions.boxes import clip_boxes
from fairhuman.regions.squares import Square, crop_square, longer_side, square_around


class CloseupSettings(Settings):
    """Settings of close-ups."""

    region: str = Field(description="region whose boxes are cropped: face, hand, person or another of the data set")
    context: float = Field(default=2.0, ge=1.0, description="side of the square / longer side of its box")
    min_side: float = Field(default=32.0, ge=1.0, description="minimum pixels of the longer side of a box")
    size: int = Field(default=512, ge=16, description="minimum side of a close-up in pixels; smaller ones are enlarged")
    max_enlarge: float = Field(default=2.0, ge=1.0, description="squares that need a larger factor are left out")


def closeups(
    samples: Iterator[ExportSample], settings: CloseupSettings, regions: Sequence[str], report: LoadReport
) -> Iterator[ExportSample]:
    """Yield a sample for each box that is large enough, in order; other boxes and records are noted. `regions` are
    those whose boxes the samples have.
    """
    column, region = region_column(settings.region), settings.region
    for sample in samples:
        key, rows = sample.fields["key"], sample.fields.get(column)
        if not rows:
            reason = f"{region} isn't annotated" if rows is None else f"has no {region}"
            report.add(key, STAGE, Finding("skipped", reason))
            continue
        made = 0
        for number, row in enumerate(rows):
            view = _view(Box(*row[:4]), sample.fields["width"], sample.fields["height"], settings)
            if isinstance(view, Finding):
                report.add(key, STAGE, view)
                continue
            yield _closeup(sample, f"{key}-{region}-{number}", view, regions, report)
            made += 1
        if not made:
            report.add(key, STAGE, Finding("skipped", f"no {region} is large enough for a close-up"))


@dataclass(frozen=True)
class _View:
    """A square of a picture, resized to `side` pixels a side."""

    square: Square
    side: int

    @property
    def scale(self) -> float:
        return self.side / self.square.side

    def crop(self, image: Image.Image, resample: Image.Resampling) -> Image.Image:
        found = crop_square(image, self.square)
        return found if self.side == self.square.side else found.resize((self.side, self.side), resample)

    def transform_box(self, row: Sequence[float]) -> list[float] | None:
        """A box with its score in pixels of the close-up; None if less than a pixel of it is in view."""
        left, top = self.square.left, self.square.top
        x0, y0, x1, y1 = ((value - start) * self.scale for value, start in zip(row, (left, top) * 2, strict=False))
        kept, _ = clip_boxes([Box(x0, y0, x1, y1)], self.side, self.side)
        return [kept[0].x0, kept[0].y0, kept[0].x1, kept[0].y1, *row[4:]] if kept else None


def _view(box: Box, width: int, height: int, settings: CloseupSettings) -> _View | Finding:
    """The view of a box, or the reason why there is none."""
    if longer_side(box) < settings.min_side:
        shown = f"{settings.region} of {longer_side(box):.0f} pixels, min_side is {settings.min_side:g}"
        return Finding("dropped", "box too small for a close-up", shown)
    square = square_around(box, width, height, settings.context)
    if square.side * settings.max_enlarge < settings.size:
        needed = settings.size / square.side
        return Finding("dropped", "close-up would be enlarged too much", f"{needed:.2f}x, not {settings.max_enlarge:g}")
    return _View(square, max(square.side, settings.size))


def _closeup(sample: ExportSample, key: str, view: _View, regions: Sequence[str], report: LoadReport) -> ExportSample:
    picture = view.crop(decode(sample.picture, ANY_SHAPE).picture, Image.Resampling.BICUBIC)
    content, kind = (encode_jpeg(picture), "jpg") if sample.kind == "jpg" else (encode_png(picture), "png")
    masks = {
        name: encode_png(view.crop(decode_mask(mask, ANY_SHAPE), Image.Resampling.BILINEAR))
        for name, mask in sample.masks.items()
    }
    size = (sample.fields["width"], sample.fields["height"])
    conditions: dict[str, bytes | None] = {"pose_picture": sample.pose_picture, "depth": sample.depth}
    for name, stored in conditions.items():
        if stored is not None and _size(stored) != size:
            report.add(key, STAGE, Finding("dropped", f"{name} has another size than its picture"))
            conditions[name] = None
    pose_picture, depth = conditions["pose_picture"], conditions["depth"]
    if pose_picture is not None:
        pose_picture = encode_png(view.crop(decode(pose_picture, ANY_SHAPE).picture, Image.Resampling.BICUBIC))
    if depth is not None:
        depth = _depth(depth, view, str(sample.fields.get("depth_kind", "relative")))
    fields = _fields(sample.fields, key, view, regions)
    return ExportSample(fields, content, kind, masks, _pose(sample.pose, key, view, report), pose_picture, depth)


def _size(stored: bytes) -> tuple[int, int]:
    facts = inspect(stored, ANY_SHAPE)
    return facts.width, facts.height


def _fields(fields: Mapping[str, Any], key: str, view: _View, regions: Sequence[str]) -> dict[str, Any]:
    """The fields with boxes in pixels of the close-up, and their scores, votes and persons."""
    moved = {name: value for name, value in fields.items() if name != "clarity"}
    moved |= {"key": key, "width": view.side, "height": view.side}
    moved["attributes"] = {CLOSEUP_OF: fields["key"], **fields.get("attributes", {})}  # of a close-up's, the first
    for region in regions:
        columns = annotation_columns(region)
        rows = fields.get(columns.boxes)
        if rows is None:
            continue
        found = [view.transform_box(row) for row in rows]
        moved[columns.boxes] = [row for row in found if row is not None]
        for name in columns.of_boxes:
            if name in fields:
                moved[name] = [value for value, row in zip(fields[name], found, strict=True) if row is not None]
    return moved


def _pose(pose: list[Any] | None, key: str, view: _View, report: LoadReport) -> list[Any] | None:
    if pose is None:
        return None
    try:
        people = people_from_source(pose)
    except DataError as error:
        report.add(key, STAGE, Finding("dropped", "pose can't be used", str(error)))
        return None
    scale, square = view.scale, view.square
    return people_to_list(move_people(people, (scale, scale), (square.left * scale, square.top * scale)))


def _depth(stored: bytes, view: _View, kind: str) -> bytes:
    """Depth of the view; relative depth is normalised to the full range again."""
    image = Image.fromarray(decode_depth(stored))
    depth_hw = np.asarray(view.crop(image, Image.Resampling.NEAREST))  # don't interpolate across depth edges
    return encode_depth(depth_hw, "relative") if kind == "relative" else depth_png(depth_hw.astype(np.uint16))
