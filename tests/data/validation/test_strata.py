"""Attributes take precedence over captions; otherwise the value is unknown."""

from typing import Any

import pytest

from fairhuman.data.validation.strata import stratum
from fairhuman.record import Box, HumanRecord

BOX = Box(0, 0, 5, 5)
DIMENSIONS = ("scene", "persons", "gender", "age")


def record(caption: str = "", attributes: Any = None, **boxes: Any) -> HumanRecord:
    return HumanRecord("k", b"", 10, 10, caption, boxes, attributes=attributes or {})


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("A young woman crossing the street", ("street", "1", "female", "young")),
        ("An old man on the beach", ("water", "1", "male", "old")),
        ("A man and a woman in a kitchen", ("work", "2", "both", "unknown")),
        ("A couple sitting on a couch", ("indoors", "2", "unknown", "unknown")),
        ("A group of children playing soccer in a park", ("sport", "3 or more", "unknown", "child")),
        ("A portrait", ("unknown", "unknown", "unknown", "unknown")),
        ("", ("unknown",) * 4),
    ],
)
def test_words_of_the_caption(caption: str, expected: tuple[str, ...]) -> None:
    assert stratum(record(caption), DIMENSIONS) == expected


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"scene": "Beach", "gender": "female", "age": 71}, ("water", "1", "female", "old")),
        ({"person": {"Sex": "Man", "age": "8"}, "background": "moon base"}, ("moon base", "1", "male", "child")),
        ({"aa_text": [None, {"gender": "woman", "age": "young"}]}, ("street", "1", "female", "young")),
        ({"persons": 2}, ("street", "2", "male", "unknown")),
        ({"persons": [[0, 0, 1, 1]] * 4}, ("street", "3 or more", "male", "unknown")),
        ({"persons": True, "age": None, "gender": ["x"]}, ("street", "1", "male", "unknown")),
    ],
)
def test_attributes_count_before_the_caption(attributes: Any, expected: tuple[str, ...]) -> None:
    assert stratum(record("A man in a street", attributes), DIMENSIONS) == expected


def test_boxes_of_persons_count_before_all_and_faces_last() -> None:
    assert stratum(record("A man", {"persons": 2}, person=(BOX,) * 3), ("persons",)) == ("3 or more",)
    assert stratum(record("A man", person=()), ("persons",)) == ("0",)
    assert stratum(record("", face=(BOX, BOX)), ("persons",)) == ("2",)
    assert stratum(record("", face=()), ("persons",)) == ("unknown",)


def test_any_attribute_can_be_a_dimension_and_is_text_that_can_be_written() -> None:
    found = stratum(record("", {"skin": "Dark  Brown", "bad": "\ud800"}), ("skin", "bad", "hair"))
    assert found == ("dark brown", "?", "unknown")


def test_attributes_nested_without_end_do_no_harm() -> None:
    attributes: dict[str, Any] = {}
    attributes["self"] = attributes
    assert stratum(record("", attributes), DIMENSIONS) == ("unknown",) * 4
