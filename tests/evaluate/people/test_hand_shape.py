"""Plausibility of hands whose points are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairhuman.evaluate.people.hand_shape import LEAST, MOST, HandShape, hand_shape
from helpers.hands_and_faces import open_hand


def test_an_open_hand_is_plausible() -> None:
    shape = hand_shape(open_hand())
    assert shape == HandShape(fingers=5, crossings=0, proportions=1.0)
    assert shape.plausibility == 1


@settings(max_examples=50, deadline=None)
@given(
    angle=st.floats(0, 6.3),
    scale=st.floats(0.01, 1000),
    shift=st.tuples(st.floats(-1000, 1000), st.floats(-1000, 1000), st.floats(-1000, 1000)),
    mirrored=st.booleans(),
)
def test_turning_scaling_moving_and_mirroring_change_nothing(
    angle: float, scale: float, shift: tuple[float, float, float], mirrored: bool
) -> None:
    hand = open_hand()
    hand[10:13, 2] += 20  # a finger bent away
    hand[18:21] = hand[14:17] + 0.7  # and one that isn't there
    cos, sin = np.cos(angle), np.sin(angle)
    turned = hand @ np.array([[cos, sin, 0], [-sin, cos, 0], [0, 0, 1]]) * scale
    if mirrored:
        turned[:, 0] *= -1
    assert hand_shape(turned + shift) == hand_shape(hand)


@pytest.mark.parametrize("missing", [1, 2, 3])
def test_fingers_in_one_place_count_once(missing: int) -> None:
    hand = open_hand()
    for finger in range(missing):
        start = 5 + 4 * finger
        hand[start + 5 : start + 8] = hand[6:9] + 0.5
    shape = hand_shape(hand)
    assert shape.fingers == 5 - missing
    assert shape.plausibility < 1


def test_a_finger_before_another_is_not_the_same() -> None:
    hand = open_hand()
    hand[10:13] = hand[6:9] + np.array([0, 0, -20])
    assert hand_shape(hand).fingers == 5


def test_bones_that_go_through_each_other_are_counted() -> None:
    hand = open_hand()
    tips = hand[[8, 12], :2].copy()
    hand[12, :2], hand[8, :2] = tips  # the ends of index and middle finger change places
    crossed = hand_shape(hand)
    assert crossed.crossings == 1
    assert crossed.plausibility == pytest.approx(crossed.proportions * 0.9)
    hand[5:9, 2] -= 15  # crossed as for luck: one lies before the other
    assert hand_shape(hand).crossings == 0


@pytest.mark.parametrize("factor", [LEAST * 0.9, MOST * 1.1])
def test_each_bone_out_of_range_lowers_proportions(factor: float) -> None:
    hand = open_hand()
    hand[20] = hand[19] + factor * (hand[20] - hand[19])
    shape = hand_shape(hand)
    assert shape.proportions == pytest.approx(8 / 9)
    assert shape.plausibility == pytest.approx(8 / 9)


def test_a_point_is_no_hand() -> None:
    shape = hand_shape(np.zeros((21, 3)))
    assert (shape.fingers, shape.proportions, shape.plausibility) == (1, 0, 0)


def test_bad_points_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \[21, 3\], not \[21, 2\]"):
        hand_shape(open_hand()[:, :2])
    hand = open_hand()
    hand[3, 1] = np.nan
    with pytest.raises(ValueError, match="finite"):
        hand_shape(hand)
