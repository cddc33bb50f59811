"""An independent detector finds the rendered faces and hands where they are."""

import pytest

from fairhuman.detect.rates import DETECTORS, find_parts, part_rates
from fairhuman.synth.body import Body
from fairhuman.synth.render import render


@pytest.mark.slow
def test_mediapipe_finds_faces_and_hands_where_they_are(body: Body) -> None:
    pictures = [render(body, 0, number, 512) for number in range(12)]
    boxes = [picture.boxes for picture in pictures]
    expected = {
        "face": [[found["face"]] for found in boxes],
        "hand": [[found[name] for name in ("left_hand", "right_hand") if name in found] for found in boxes],
    }
    detectors = {part: DETECTORS[part] for part in expected}
    found = find_parts([picture.image for picture in pictures], detectors=detectors)
    rates = part_rates(found, expected, parts=tuple(detectors))
    with_hands = sum(bool(hands) for hands in expected["hand"])
    assert with_hands >= 11
    assert rates["face"].found.value * 12 >= 11
    assert rates["hand"].found.value * with_hands >= 9
    for part in ("face", "hand"):
        assert rates[part].on_target is not None
        assert rates[part].on_target.value > 0.95
