import numpy as np
import pytest
from numpy.typing import NDArray

from fairhuman.evaluate.people.hand_shape import FINGERS, hand_shape
from fairhuman.refine.hand_repair import LENGTHS, repaired_hand
from helpers.hands_and_faces import open_hand

Array = NDArray[np.float64]
LEFT, RIGHT = "left hand", "right hand"


def turned(points_n3: Array, x: float, y: float, z: float) -> Array:
    result = points_n3
    for axis, angle in enumerate((x, y, z)):
        a, b = [(1, 2), (2, 0), (0, 1)][axis]
        matrix = np.eye(3)
        matrix[[a, b], [a, b]] = np.cos(angle)
        matrix[a, b], matrix[b, a] = -np.sin(angle), np.sin(angle)
        result = result @ matrix.T
    return result


def repaired(points_n3: Array, label: str) -> Array:
    found = repaired_hand(points_n3, label)
    assert found is not None
    return found


def mirrored(points_n3: Array) -> Array:
    return points_n3 * [-1, 1, 1]


@pytest.mark.parametrize("seed", range(8))
def test_a_repaired_hand_has_human_bones_five_fingers_and_no_crossing_however_broken_it_was(seed: int) -> None:
    generator = np.random.default_rng(seed)
    broken = turned(open_hand() + generator.normal(0, 25, (21, 3)), *generator.uniform(-1, 1, 3))
    hand_n3 = repaired(broken, LEFT)
    shape = hand_shape(hand_n3)
    assert shape.fingers == 5
    assert shape.proportions == 1
    scale = np.linalg.norm(hand_n3[9] - hand_n3[0]) / np.hypot(4, 94)
    for base, lengths in LENGTHS.items():
        found = [np.linalg.norm(hand_n3[base + k + 1] - hand_n3[base + k]) / scale for k in range(3 if base > 2 else 2)]
        assert found == pytest.approx(lengths[: len(found)])


@pytest.mark.parametrize("seed", range(8))
def test_joints_of_a_repaired_hand_bend_as_far_as_a_human_one(seed: int) -> None:
    generator = np.random.default_rng(seed)
    hand_n3 = repaired(open_hand() + generator.normal(0, 30, (21, 3)), LEFT)
    for finger in FINGERS[1:]:
        bones = np.diff(hand_n3[list(finger)], axis=0)
        bones /= np.linalg.norm(bones, axis=1, keepdims=True)
        first, second = np.degrees(np.arccos((bones[1:] * bones[:-1]).sum(axis=1).clip(-1, 1)))
        assert first <= 110.001
        assert second <= 80.001


@pytest.mark.parametrize("label", [LEFT, RIGHT])
def test_a_repaired_hand_stays_as_it_is_when_it_is_repaired_again(label: str) -> None:
    start = open_hand() if label == LEFT else mirrored(open_hand())
    once = repaired(turned(start, 0.3, -0.4, 0.8) + np.array([500, 300, 0]), label)
    assert repaired(once, label) == pytest.approx(once, abs=1e-6)


def test_a_plausible_hand_is_moved_little() -> None:
    hand_n3 = open_hand()
    apart = np.linalg.norm(repaired(hand_n3, LEFT) - hand_n3, axis=1)
    assert apart.mean() < 0.08 * 180
    assert apart.max() < 0.2 * 180


def test_repair_turns_moves_and_grows_with_the_hand() -> None:
    broken = open_hand() + np.random.default_rng(3).normal(0, 15, (21, 3))
    plain = repaired(broken, LEFT)
    assert repaired(2 * turned(broken, 0.2, 0.5, 1.0) + 70, LEFT) == pytest.approx(
        2 * turned(plain, 0.2, 0.5, 1.0) + 70, abs=1e-6
    )


def test_the_other_hand_of_the_mirrored_picture_is_the_mirrored_hand() -> None:
    broken = open_hand() + np.random.default_rng(4).normal(0, 15, (21, 3))
    assert repaired(mirrored(broken), RIGHT) == pytest.approx(mirrored(repaired(broken, LEFT)), abs=1e-6)


def test_fingers_bend_towards_the_palm_and_the_side_of_an_unnamed_hand_is_told_by_that() -> None:
    fist = repaired(open_hand(), LEFT).copy()
    palmar = -np.cross(fist[5] - fist[0], fist[17] - fist[0])  # out of the palm of a left hand
    palmar /= np.linalg.norm(palmar)
    for finger in FINGERS[1:]:
        for joint in finger[2:]:
            fist[joint] = fist[joint - 1] + 0.6 * palmar * np.linalg.norm(fist[joint] - fist[joint - 1])
    bent = repaired(fist, LEFT)
    assert ((bent[[8, 12, 16, 20]] - bent[[5, 9, 13, 17]]) @ palmar > 0).all()
    assert repaired(fist, "hand") == pytest.approx(bent)
    straight = repaired(fist, RIGHT)  # of the other hand these fingers would bend backwards
    assert np.linalg.norm(straight - fist) > np.linalg.norm(bent - fist)


def test_fingers_on_one_spot_are_drawn_apart() -> None:
    broken = open_hand()
    for start in (9, 13, 17):
        broken[start + 1 : start + 4] = broken[6:9]
    assert hand_shape(broken).fingers == 2
    assert hand_shape(repaired(broken, LEFT)).plausibility == 1


@pytest.mark.parametrize("broken", [np.zeros((21, 3)), open_hand() * [0, 1, 0], open_hand() * 0.01])
def test_a_palm_that_is_a_point_a_line_or_a_few_pixels_is_beyond_repair(broken: Array) -> None:
    assert repaired_hand(broken, LEFT) is None


def test_collapsed_fingers_are_drawn_straight() -> None:
    broken = open_hand()
    for finger in FINGERS:
        broken[list(finger[2:])] = broken[finger[1]]
    assert hand_shape(repaired(broken, LEFT)).plausibility == 1


def test_wrong_points_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[21, 3\]"):
        repaired_hand(np.zeros((20, 3)))
    with pytest.raises(ValueError, match="finite"):
        repaired_hand(np.full((21, 3), np.nan))
