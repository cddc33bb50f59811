"""The record: what counts as annotated and as present, and where a region's boxes are found."""

import pickle
from pathlib import Path

from fairhuman.record import Box, HumanRecord, region_column


def record(**fields) -> HumanRecord:
    return HumanRecord(key="a", image=Path("a.jpg"), width=10, height=20, caption="", **fields)


def test_unknown_is_not_none():
    boxes = {"face": None, "hand": (), "feet": (Box(0, 0, 5, 5),)}
    found = record(boxes=boxes)
    assert [found.annotated(name) for name in ("face", "hand", "feet", "text")] == [False, True, True, False]
    assert [found.has(name) for name in ("face", "hand", "feet", "text")] == [False, False, True, False]


def test_a_painted_mask_counts_as_annotation():
    found = record(boxes={"face": None}, masks={"face": Path("m.png")})
    assert found.annotated("face")
    assert found.has("face")


def test_columns_of_regions():
    assert [region_column(name) for name in ("face", "hand", "feet")] == ["faces", "hands", "feet"]


def test_records_travel_to_workers():
    found = record(boxes={"face": (Box(1, 2, 3, 4, 0.5),)})
    assert pickle.loads(pickle.dumps(found)) == found
    assert found.boxes["face"][0].area == 4
