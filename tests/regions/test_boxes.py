"""Boxes from files: what is kept, clipped, dropped, and that a NaN never gets through."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairhuman.record import Box
from fairhuman.regions.boxes import clip_boxes, parse_boxes

NAN, INF = math.nan, math.inf


@pytest.mark.parametrize(
    ("value", "boxes", "action", "reason"),
    [
        ([[10, 20, 30, 40]], (Box(10, 20, 30, 40),), None, None),
        ([[10, 20, 30, 40, 0.5]], (Box(10, 20, 30, 40, 0.5),), None, None),
        ([[10, 20, 30, 40, None]], (Box(10, 20, 30, 40),), None, None),
        ([[-40, -20, 60, 50, 0.9]], (Box(0, 0, 60, 50, 0.9),), "converted", "clipped"),
        ([["10", "20", "30", "40", "0.5"]], (Box(10, 20, 30, 40, 0.5),), "converted", "strings"),
        ([[500, 500, 600, 600]], None, "dropped", "outside"),
        ([[99.5, 10, 120, 11]], None, "dropped", "outside"),
        ([[30, 20, 10, 40]], None, "dropped", "inverted"),
        ([[10, 40, 30, 20]], None, "dropped", "inverted"),
        ([[NAN, 10, 50, 60]], None, "dropped", "NaN or infinity"),
        ([[10, 10, INF, 60]], None, "dropped", "NaN or infinity"),
        ([[10, 10, 50, 60, NAN]], None, "dropped", "NaN or infinity"),
        ([["nan", 10, 50, 60]], None, "dropped", "NaN or infinity"),
        ([[10, 10, 10**400, 60]], None, "dropped", "NaN or infinity"),
        ([[50, 50, 50, 90]], None, "dropped", "under one pixel"),
        ([[10, 10, 20]], None, "dropped", "box has not 4 numbers, or 5 with its score"),
        ([10, 20, 30, 40], None, "dropped", "4 numbers"),
        ([[10, True, 30, 40]], None, "dropped", "not a number"),
        ([[10, "x", 30, 40]], None, "dropped", "not a number"),
        ([[0.3, 0.05, 0.5, 0.15]], None, "dropped", "normalised"),
        ("none", None, "dropped", "not a list"),
        ({"x0": 1}, None, "dropped", "not a list"),
        (None, None, None, None),
    ],
)
def test_each_kind_of_value(value, boxes, action, reason):
    found, findings = parse_boxes(value, 100, 100)
    assert found == boxes
    assert (findings[0].action if findings else None) == action
    assert reason is None or reason in findings[0].reason


def test_empty_list_means_none_or_unknown():
    assert parse_boxes([], 100, 100) == ((), [])
    assert parse_boxes([], 100, 100, empty_means="unknown") == (None, [])


def test_good_boxes_stay_beside_a_bad_one():
    boxes, findings = parse_boxes([[1, 1, 9, 9], [NAN, 1, 9, 9], [2, 2, 8, 8]], 10, 10)
    assert boxes == (Box(1, 1, 9, 9), Box(2, 2, 8, 8))
    assert [finding.action for finding in findings] == ["dropped"]


NUMBERS = st.one_of(st.floats(), st.integers(), st.text(max_size=5), st.none(), st.booleans())


@given(st.lists(st.lists(NUMBERS, max_size=6) | NUMBERS, max_size=4), st.integers(1, 500), st.integers(1, 500))
def test_parsed_boxes_are_finite_and_inside(value, width, height):
    boxes, findings = parse_boxes(value, width, height)
    for box in boxes or ():
        assert 0 <= box.x0 < box.x1 <= width
        assert 0 <= box.y0 < box.y1 <= height
        assert box.score is None or math.isfinite(box.score)
    dropped = sum(finding.action == "dropped" for finding in findings)
    assert len(boxes or ()) + dropped == len(value)


def test_clipping_again_to_a_smaller_picture():
    boxes, findings = clip_boxes([Box(10, 10, 50, 50, 0.7), Box(60, 60, 90, 90)], 40, 40)
    assert boxes == (Box(10, 10, 40, 40, 0.7),)
    assert [finding.action for finding in findings] == ["converted", "dropped"]


def test_thousands_of_boxes_get_one_note():
    boxes, findings = parse_boxes([[]] * 10_001, 40, 30)
    assert boxes is None
    assert findings == [("dropped", "more than 10000 boxes, taken as not annotated", "10001 boxes")]
