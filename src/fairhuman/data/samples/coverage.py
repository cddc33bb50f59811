"""How much of a data set has each region, and how much of the regions training sees."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from fairhuman.data.pictures.decode import DEFAULT_LIMITS, PictureLimits, decode_mask
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.samples.buckets import Size
from fairhuman.data.samples.regions_in_view import any_in_view, whole_in_view
from fairhuman.record import Box, HumanRecord, region_column
from fairhuman.regions.transforms import JointTransform, in_frame
from fairhuman.report.text import whole_percent
from fairhuman.utils.randomness import Stream, seeded_generator

MOST_MASKS = 200  # pictures of a data set whose masks are decoded for this


def region_coverage(records: Sequence[HumanRecord], regions: Sequence[str]) -> dict[str, float]:
    """Share of records, 0..1, that are known to have each region."""
    return {name: sum(record.has(name) for record in records) / max(len(records), 1) for name in regions}


def region_area(records: Sequence[HumanRecord], regions: Sequence[str]) -> dict[str, float | None]:
    """Mean share of the picture, 0..1, covered by the boxes of each region, over records with boxes; None if none."""
    areas: dict[str, float | None] = {}
    for name in regions:
        shares = [
            sum(box.area for box in boxes) / (record.width * record.height)
            for record in records
            if (boxes := record.boxes.get(name))
        ]
        areas[name] = sum(shares) / len(shares) if shares else None
    return areas


class RegionView(NamedTuple):
    """The boxes of a region: their number, and the shares of them, 0..1, that are in view and whole in view.

    A painted mask without boxes counts as its bounding box.
    """

    boxes: int
    in_view: float
    whole: float


@dataclass(frozen=True)
class ViewCoverage:
    """What training sees of a data set.

    Attributes:
        pictures: the pictures that were looked at.
        regions: by name; a region with neither boxes nor painted masks is left out.
        area_lost: mean share of a picture's area, 0..1, that is cropped away.
    """

    pictures: int
    regions: Mapping[str, RegionView]
    area_lost: float

    def whole(self, region: str) -> str:
        """`whole faces in view: 97 %`; empty if the region has no boxes."""
        found = self.regions.get(region)
        return "" if found is None else f"whole {region_column(region)} in view: {whole_percent(found.whole)}"


def view_coverage(
    records: Sequence[HumanRecord],
    regions: Sequence[str],
    transform: JointTransform,
    resolutions: Sequence[Size] | None = None,
    seed: int = 0,
    most: int = 10_000,
    limits: PictureLimits = DEFAULT_LIMITS,
) -> ViewCoverage:
    """Return what views of records show of the regions' boxes. No picture is read.

    Each record gets one draw of the transform. Painted masks without boxes are decoded of at most `MOST_MASKS` records
    at equal distances; one that can't be used isn't counted.

    Args:
        records: at least one.
        regions: names of regions.
        transform: resize, crop and flip.
        resolutions: (height, width) of each record's view; None: the transform's.
        seed: of the draws.
        most: larger data sets are looked at in this many records at equal distances.
        limits: of the pictures of masks.
    """
    chosen = range(0, len(records), -(-len(records) // most))
    decoded = chosen[:: -(-len(chosen) // MOST_MASKS)]
    counts = {name: np.zeros(3, np.int64) for name in regions}
    lost = 0.0
    for number in chosen:
        record, size = records[number], (records[number].height, records[number].width)
        boxes = {name: record.boxes.get(name) or () for name in regions}
        if number in decoded:
            boxes |= {name: _frame(record, name, limits) for name in regions if not boxes[name]}
        moving = transform if resolutions is None else replace(transform, resolution=resolutions[number])
        generator = seeded_generator(seed, Stream.VIEWS, number)
        draw = moving.draw(generator, size, [box for found in boxes.values() for box in found])
        lost += 1.0 - math.prod(moving.resolution) / math.prod(draw.resized_hw)
        for name, found in boxes.items():
            if found:
                boxes_n4 = in_frame(found, draw, size)
                whole = whole_in_view(boxes_n4, moving.resolution)
                counts[name] += (len(found), int(any_in_view(boxes_n4, moving.resolution).sum()), int(whole.sum()))
    shares = {name: RegionView(int(n), seen / n, whole / n) for name, (n, seen, whole) in counts.items() if n}
    return ViewCoverage(len(chosen), shares, lost / len(chosen))


def _frame(record: HumanRecord, region: str, limits: PictureLimits) -> tuple[Box, ...]:
    """The bounding box of a painted mask; none if it is missing, empty or can't be used."""
    try:
        frame = decode_mask(record.masks[region], limits).getbbox() if region in record.masks else None
    except PictureError:
        return ()
    return () if frame is None else (Box(*map(float, frame)),)


def enlarged(records: Sequence[HumanRecord], resolutions: Sequence[Size]) -> list[int]:
    """Numbers of the records whose picture is smaller than its view, so that it has to be enlarged."""
    return [
        number
        for number, (record, (height, width)) in enumerate(zip(records, resolutions, strict=True))
        if record.height < height or record.width < width
    ]
