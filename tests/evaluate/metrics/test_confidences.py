"""Confidences: how many faces and hands a picture is expected to have."""

from pathlib import Path

import pytest
from accelerate import PartialState

from fairhuman import config
from fairhuman.evaluate.metrics.confidences import expected_parts
from fairhuman.evaluate.people.strict import Expected
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.evaluate.tools import EvaluationTools
from fairhuman.record import Box, HumanRecord

BOXES = (Box(1.0, 2.0, 11.0, 14.0),)


def shown(prompt: str, boxes: tuple[Box, ...] | None) -> EvalImage:
    return EvalImage(HumanRecord("a", Path("a.png"), 32, 32, prompt, {"face": boxes, "hand": None}), b"", prompt, "")


@pytest.mark.parametrize(
    ("prompt", "boxes", "setting", "expected"),
    [
        ("two", BOXES, "3", BOXES),
        ("two", (), "3", ()),
        ("two", None, "3", 2),
        ("", None, "3", 3),
        ("another", None, "3", 3),
        ("another", None, "null", None),
        ("unknown", None, "3", 3),
    ],
)
def test_own_boxes_then_the_reference_s_commonest_count_then_the_setting(
    prompt: str, boxes: tuple[Box, ...] | None, setting: str, expected: Expected
) -> None:
    reference = [shown("two", BOXES * count) for count in (2, 1, 2)]
    reference += [shown("", BOXES), shown("unknown", None)]
    settings = config.build(EvaluateSettings, {}, [f"expected.face={setting}"])
    tools = EvaluationTools(settings, Path("cache"), PartialState(), lambda *_: None)
    assert expected_parts([shown(prompt, boxes)], reference, "face", tools) == [expected]
