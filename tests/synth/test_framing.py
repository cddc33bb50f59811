"""Full-body pictures: the same people from head to foot, with small faces and hands; older half-body sets go on."""

import json
from pathlib import Path

import numpy as np
import pytest

from fairhuman.errors import DataError
from fairhuman.synth import people
from fairhuman.synth.body import Body
from fairhuman.synth.people import missing_tables
from fairhuman.synth.render import KEYPOINTS, Rendering, render
from fairhuman.synth.settings import SynthSettings

ANKLES = [KEYPOINTS.index("left_ankle"), KEYPOINTS.index("right_ankle")]


@pytest.fixture(scope="module")
def pairs(body: Body) -> list[tuple[Rendering, Rendering]]:
    return [(render(body, 7, n, 64), render(body, 7, n, 64, framing="full_body")) for n in range(6)]


def test_a_full_body_is_the_same_person_from_head_to_foot(pairs: list[tuple[Rendering, Rendering]]) -> None:
    for half, full in pairs:
        assert full.person == half.person
        assert not half.keypoints[ANKLES, 2].any()
        assert full.keypoints[ANKLES, 2].all()
        rows, columns = np.nonzero(full.masks["person"])
        assert rows.min() > 0
        assert rows.max() < 63
        assert columns.min() > 0
        assert columns.max() < 63


def test_faces_and_hands_are_small(pairs: list[tuple[Rendering, Rendering]]) -> None:
    def share(name: str) -> float:
        boxes = [full.boxes[name] for _, full in pairs if name in full.boxes]
        return float(np.mean([(box.x1 - box.x0) * (box.y1 - box.y0) for box in boxes])) / 64**2

    assert 0.005 < share("face") < 0.011
    assert 0.002 < share("left_hand") < 0.007


def test_a_set_that_is_older_than_the_setting_is_half_body(tmp_path: Path) -> None:
    settings = SynthSettings(count=3, size=32)
    assert "framing" not in settings.decisive()
    assert SynthSettings(count=3, framing="full_body").decisive()["framing"] == "full_body"
    values = settings.model_dump(exclude={"framing"}) | {"versions": people._versions()}
    (tmp_path / "synth.json").write_text(json.dumps(values))
    assert len(missing_tables(tmp_path, settings)) == 1
    with pytest.raises(DataError, match="framing was half_body, now full_body"):
        missing_tables(tmp_path, SynthSettings(count=3, size=32, framing="full_body"))
