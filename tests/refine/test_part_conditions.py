from collections.abc import Sequence
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from fairhuman.data.condition.depth import DepthMap
from fairhuman.data.condition.people import PersonPose
from fairhuman.data.condition.settings import DepthSettings
from fairhuman.detect.detection import Picture
from fairhuman.record import Box
from fairhuman.refine.conditions import hand_in_crop, open_conditions, people_in_crop
from fairhuman.refine.crop import RefineCrop, plan_crop
from fairhuman.refine.parts import BodyPart
from fairhuman.refine.settings import RefineSettings
from helpers.hands_and_faces import open_hand

HAND_N3 = open_hand() * 0.25 + [120, 150, 0]
HAND = BodyPart("hand", Box(100, 100, 135, 155), 0.2, "left hand", tuple(map(tuple, HAND_N3.tolist())))
FACE = BodyPart("face", Box(20, 20, 60, 70), 0.2, "face")


def crop_of(part: BodyPart) -> RefineCrop:
    return plan_crop(part.box, (200, 220), context=2, margin=0.15, feather=0.15, least=256, grid=16)


def test_the_depth_of_a_hand_lies_where_its_landmarks_do_in_the_crop() -> None:
    crop = crop_of(HAND)
    with open_conditions(RefineSettings(), ["depth"]) as conditions:
        found = conditions(HAND, crop, Image.new("RGB", (256, 256)), ())
    assert found.keys() == {"depth"}
    depth_hw = found["depth"][0, 0].numpy()
    assert depth_hw.shape == (256, 256)
    assert depth_hw.max() == 1
    left, top, side = crop.square
    for x, y, _ in HAND_N3[[0, 5, 9, 13, 17]]:
        assert depth_hw[int((y - top) * 256 / side), int((x - left) * 256 / side)] > 0
    hand_n3 = hand_in_crop(HAND, crop)
    assert hand_n3 is not None
    assert np.abs(hand_n3[9, :2] - (HAND_N3[9, :2] - [left, top]) * 256 / side).max() < 256 * 0.05


def test_what_is_not_known_of_a_part_is_left_out() -> None:
    with open_conditions(RefineSettings(), ["depth"]) as conditions:
        assert conditions(FACE, crop_of(FACE), Image.new("RGB", (256, 256)), ()) == {}
        nowhere = BodyPart("hand", HAND.box, 0.0, "hand", measured=False)
        assert conditions(nowhere, crop_of(nowhere), Image.new("RGB", (256, 256)), ()) == {}


@pytest.mark.parametrize(("label", "side"), [("left hand", 0), ("right hand", 1)])
def test_a_repaired_hand_takes_the_place_of_the_one_that_was_seen_there(label: str, side: int) -> None:
    seen = np.zeros((2, 21, 3))
    seen[0] = np.column_stack([HAND_N3[:, :2], np.ones(21)])
    seen[1] = seen[0] - [80, 80, 0]
    part = BodyPart("hand", HAND.box, 0.2, label, HAND.points)
    crop = crop_of(part)
    hand_n3 = hand_in_crop(part, crop)
    people = people_in_crop(part, crop, [PersonPose(hands=seen)], hand_n3)
    assert hand_n3 is not None
    assert not people[0].hands[0].any(), "the broken one is gone"
    assert people[0].hands[1].any(), "the other one stays"
    assert people[1].hands[side, :, :2] == pytest.approx(hand_n3[:, :2], abs=1e-3)
    [unrepaired] = people_in_crop(part, crop, [PersonPose(hands=seen)], None)
    assert not unrepaired.hands[0].any(), "the broken one is gone here too"
    assert unrepaired.hands[1].any()
    [beside] = people_in_crop(FACE, crop, [PersonPose(hands=seen)], None)
    assert beside.hands.any(axis=(1, 2)).all(), "a face leaves hands as they are"


class _Flat:
    """An estimator that sees something everywhere."""

    kind = "metric_mm"

    def __call__(self, pictures: Sequence[Picture]) -> list[DepthMap]:
        return [np.add(1, picture[..., 0], dtype=np.float32) for picture in pictures]


def test_of_a_hand_beyond_repair_nothing_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    line_n3 = np.linspace([105, 105, 0], [130, 150, 0], 21)
    part = BodyPart("hand", HAND.box, 0.1, "left hand", tuple(map(tuple, line_n3.tolist())))
    crop = crop_of(part)
    assert hand_in_crop(part, crop) is None
    monkeypatch.setattr("fairhuman.refine.conditions.open_depth", lambda _: nullcontext(_Flat()))
    picture = Image.fromarray(np.arange(256 * 256 * 3).reshape(256, 256, 3).astype(np.uint8))
    seen = np.zeros((2, 21, 3))
    seen[0] = np.column_stack([line_n3[:, :2], np.ones(21)])
    with open_conditions(RefineSettings(depth=DepthSettings()), ["pose", "depth"]) as conditions:
        assert conditions(part, crop, picture, [PersonPose(hands=seen)]) == {}
        body = np.column_stack([np.linspace(90, 140, 18), np.linspace(90, 170, 18), np.ones(18)])
        assert conditions(part, crop, picture, [PersonPose(body, seen)]).keys() == {"pose"}, (
            "of the body, which is known"
        )
        assert conditions(FACE, crop_of(FACE), picture, ()).keys() == {"depth"}, "faces have the picture's own"


def test_a_pose_of_nobody_is_left_out() -> None:
    with open_conditions(RefineSettings(), ["pose"]) as conditions:
        assert conditions(FACE, crop_of(FACE), Image.new("RGB", (256, 256)), ()) == {}


def test_the_pose_of_a_part_is_drawn_in_its_crop() -> None:
    crop = crop_of(HAND)
    with open_conditions(RefineSettings(), ["pose"]) as conditions:
        pose_bchw = conditions(HAND, crop, Image.new("RGB", (256, 256)), ())["pose"]
    assert pose_bchw.shape == (1, 3, 256, 256)
    assert pose_bchw.max() > 0.5
