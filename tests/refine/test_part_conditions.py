import numpy as np
import pytest
from hands_and_faces import open_hand
from PIL import Image

from fairhuman.data.condition.people import Person
from fairhuman.record import Box
from fairhuman.refine.conditions import hand_in_crop, open_conditions, people_in_crop
from fairhuman.refine.crop import Crop, plan_crop
from fairhuman.refine.parts import Part
from fairhuman.refine.settings import RefineSettings

HAND_N3 = open_hand() * 0.25 + [120, 150, 0]
HAND = Part("hand", Box(100, 100, 135, 155), 0.2, "left hand", tuple(map(tuple, HAND_N3.tolist())))
FACE = Part("face", Box(20, 20, 60, 70), 0.2, "face")


def crop_of(part: Part) -> Crop:
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
        nowhere = Part("hand", HAND.box, 0.0, "hand", measured=False)
        assert conditions(nowhere, crop_of(nowhere), Image.new("RGB", (256, 256)), ()) == {}


@pytest.mark.parametrize(("label", "side"), [("left hand", 0), ("right hand", 1)])
def test_a_repaired_hand_takes_the_place_of_the_one_that_was_seen_there(label: str, side: int) -> None:
    seen = np.zeros((2, 21, 3))
    seen[0] = np.column_stack([HAND_N3[:, :2], np.ones(21)])
    seen[1] = seen[0] - [80, 80, 0]
    part = Part("hand", HAND.box, 0.2, label, HAND.points)
    crop = crop_of(part)
    hand_n3 = hand_in_crop(part, crop)
    people = people_in_crop(part, crop, [Person(hands=seen)], hand_n3)
    assert hand_n3 is not None
    assert not people[0].hands[0].any(), "the broken one is gone"
    assert people[0].hands[1].any(), "the other one stays"
    assert people[1].hands[side, :, :2] == pytest.approx(hand_n3[:, :2], abs=1e-3)
    unchanged = people_in_crop(part, crop, [Person(hands=seen)], None)
    assert unchanged[0].hands[0].any()
    assert len(unchanged) == 1


def test_the_pose_of_a_part_is_drawn_in_its_crop() -> None:
    crop = crop_of(HAND)
    with open_conditions(RefineSettings(), ["pose"]) as conditions:
        pose_bchw = conditions(HAND, crop, Image.new("RGB", (256, 256)), ())["pose"]
    assert pose_bchw.shape == (1, 3, 256, 256)
    assert pose_bchw.max() > 0.5
