"""How much of a data set has each region."""

from collections.abc import Sequence

from fairhuman.record import HumanRecord


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
