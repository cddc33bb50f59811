"""Pose pictures: the right colours on the right limbs, edges as fine as they are drawn, left and right exchanged."""

import math

import numpy as np
import pytest

from fairhuman.data.condition.people import BODY_MIRROR, SHAPES, PersonPose, flip_people, move_people
from fairhuman.data.condition.pose import COLOURS, HAND_COLOURS, HAND_EDGES, LIMBS, draw_pose

SIDE = 512
START, END = (100.0, 200.0), (181.0, 260.0)


def points(part: str, places: dict[tuple[int, ...], tuple[float, float]], score: float = 1.0) -> np.ndarray:
    result = np.zeros(SHAPES[part])
    for index, (x, y) in places.items():
        result[index] = (x, y, score)
    return result


def limb_person(limb: int) -> PersonPose:
    start, end = LIMBS[limb]
    return PersonPose(points("body", {(start,): START, (end,): END}))


def drawn(people: list[PersonPose], height: int = SIDE, width: int = SIDE, min_score: float = 0.3) -> np.ndarray:
    return np.asarray(draw_pose(people, height, width, min_score)).astype(float)


def colour_at(picture: np.ndarray, x: float, y: float) -> list[float]:
    return picture[int(y), int(x)].tolist()


def darker(limb: int) -> list[float]:
    return [math.floor(0.6 * value + 0.5) for value in COLOURS[limb]]


MIDDLE = ((START[0] + END[0]) / 2, (START[1] + END[1]) / 2)


@pytest.mark.parametrize("limb", range(len(LIMBS)))
def test_a_limb_has_its_colour_in_the_middle_and_its_points_theirs(limb: int) -> None:
    picture = drawn([limb_person(limb)])
    assert colour_at(picture, *MIDDLE) == darker(limb)
    for joint, place in zip(LIMBS[limb], (START, END), strict=True):
        assert colour_at(picture, *place) == list(COLOURS[joint])


def test_known_colours_of_the_arms_and_the_neck() -> None:
    """What a ControlNet has learnt: the right arm from orange to yellow, the left one green, the nose's limb blue."""
    assert [COLOURS[limb] for limb in (2, 3)] == [(255, 170, 0), (255, 255, 0)]
    assert (LIMBS[2], LIMBS[3]) == ((2, 3), (3, 4))
    assert [COLOURS[limb] for limb in (4, 5)] == [(170, 255, 0), (85, 255, 0)]
    assert (LIMBS[4], LIMBS[5]) == ((5, 6), (6, 7))
    assert (LIMBS[12], COLOURS[12]) == ((1, 0), (0, 0, 255))
    assert (len(LIMBS), len(COLOURS), len(set(COLOURS))) == (17, 18, 18)


@pytest.mark.parametrize("limb", range(len(LIMBS)))
def test_in_the_mirrored_picture_a_limb_is_the_other_side_s(limb: int) -> None:
    other = LIMBS.index(tuple(BODY_MIRROR[point] for point in LIMBS[limb]))
    picture = drawn(flip_people([limb_person(limb)], SIDE))
    assert colour_at(picture, SIDE - MIDDLE[0], MIDDLE[1]) == darker(other)
    assert np.abs(picture[:, ::-1] - drawn([limb_person(other)])).max() <= 1


def test_hands_have_the_rainbow_s_colours_and_blue_joints_and_faces_white_dots() -> None:
    for edge, (start, end) in enumerate(HAND_EDGES):
        for side in (0, 1):
            picture = drawn([PersonPose(hands=points("hands", {(side, start): START, (side, end): END}))])
            assert colour_at(picture, *MIDDLE) == pytest.approx(HAND_COLOURS[edge], abs=0.51)
            assert colour_at(picture, *START) == colour_at(picture, *END) == [0, 0, 255]
    assert HAND_EDGES[:6] == ((0, 1), (1, 2), (2, 3), (3, 4), (0, 5), (5, 6))
    assert {point for edge in HAND_EDGES for point in edge} == set(range(21))
    assert HAND_COLOURS[0] == (255, 0, 0)
    assert colour_at(drawn([PersonPose(face=points("face", {(30,): START}))]), *START) == [255, 255, 255]


def test_a_dot_and_a_limb_cover_the_area_that_they_should() -> None:
    for x, y in [(100.0, 100.0), (100.37, 200.61)]:
        dot = drawn([PersonPose(face=points("face", {(30,): (x, y)}))])[..., 0] / 255
        assert dot.sum() == pytest.approx(math.pi * 3**2, rel=0.02)
        rows, columns = np.indices(dot.shape) + 0.5
        assert (dot * columns).sum() / dot.sum() == pytest.approx(x, abs=0.02)
        assert (dot * rows).sum() / dot.sum() == pytest.approx(y, abs=0.02)
    # A limb between nose and neck; its points cover the tips, where an ellipse is thin.
    picture = drawn([limb_person(12)])
    length = math.dist(START, END)
    across = np.array([END[1] - START[1], START[0] - END[0]]) / length
    profile = [picture[int(MIDDLE[1] + t * across[1]), int(MIDDLE[0] + t * across[0]), 2] for t in range(-8, 9)]
    assert all(value == 153 for value in profile[6:11])
    assert profile[0] == profile[1] == profile[-2] == profile[-1] == 0
    limb = (picture[..., 2] == 153).sum()
    assert limb == pytest.approx(math.pi * length / 2 * 4, rel=0.25)


@pytest.mark.parametrize("factor", [2, 3])
def test_lines_grow_with_the_picture(factor: int) -> None:
    people = [whole_person()]
    small = drawn(people)
    large = drawn(move_people(people, (factor, factor), (0, 0)), SIDE * factor, SIDE * factor)
    reduced = large.reshape(SIDE, factor, SIDE, factor, 3).mean((1, 3))
    assert np.abs(small - reduced).mean() < 0.02 * small.mean()
    assert np.abs(small - reduced).max() < 70  # of 255, at edges


def whole_person() -> PersonPose:
    generator = np.random.default_rng(3)
    return PersonPose(
        *(
            np.concatenate([generator.uniform(20, 490, (*shape[:-1], 2)), np.ones((*shape[:-1], 1))], axis=-1)
            for shape in SHAPES.values()
        )
    )


def test_a_whole_person_is_mirrored_in_shape_and_drawn_the_same_twice() -> None:
    people = [whole_person()]
    first, mirrored = drawn(people), drawn(flip_people(people, SIDE))[:, ::-1]
    np.testing.assert_array_equal(first, drawn(people))
    for one, other in ((first, mirrored), (mirrored, first)):
        assert (other.max(-1)[one.max(-1) > 32] > 0).all()
    assert (first.max(-1) > 32).mean() > 0.05


def test_a_point_is_drawn_from_the_minimum_score_on() -> None:
    person = PersonPose(points("body", {(0,): START, (1,): END}, score=0.25))
    assert drawn([person], min_score=0.25).any()
    assert not drawn([person], min_score=0.26).any()
    assert not drawn([PersonPose()], min_score=0).any()  # score 0 is never known
    one_end = points("body", {(0,): START, (1,): END})
    one_end[1, 2] = 0.1
    picture = drawn([PersonPose(one_end)])
    assert colour_at(picture, *START) == list(COLOURS[0])
    assert colour_at(picture, *MIDDLE) != darker(12)


@pytest.mark.parametrize("far", [700.0, -300.0, 1e6, -1e6])
def test_parts_outside_the_picture_are_clipped(far: float) -> None:
    limb = PersonPose(points("body", {(1,): (256.0, 256.0), (2,): (far, 256.0)}))
    picture = drawn([limb])
    assert picture.shape == (SIDE, SIDE, 3)
    edge = SIDE - 1 if far > 0 else 0
    assert picture[256, edge, 0] > 0
    assert not picture[:, SIDE - 1 - edge].any()
    assert not drawn([PersonPose(face=points("face", {(0,): (far, far)}))]).any()
    # A dot whose middle lies just outside still shows.
    assert drawn([PersonPose(face=points("face", {(0,): (-1.0, 20.0)}))])[20, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (16, 24)])
def test_the_smallest_pictures_are_drawn_too(size: tuple[int, int]) -> None:
    (person,) = move_people([whole_person()], (size[1] / SIDE, size[0] / SIDE), (0, 0))
    assert drawn([person], *size).shape == (*size, 3)
    assert drawn([person], *size).max() > 100


def test_two_points_at_one_place_are_a_dot() -> None:
    picture = drawn([PersonPose(points("body", {(0,): START, (1,): START}))])
    assert colour_at(picture, *START) == list(COLOURS[1])


def test_later_people_cover_earlier_ones() -> None:
    picture = drawn([limb_person(0), limb_person(5)])
    assert colour_at(picture, *MIDDLE) == darker(5)


def test_sizes_and_scores_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1, not 0 and 5"):
        draw_pose([], 0, 5)
    with pytest.raises(ValueError, match=r"min_score must be in 0..1, not 2"):
        draw_pose([], 5, 5, min_score=2)
