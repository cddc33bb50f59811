"""People in OpenPose's order: from every layout of key points, mirrored, moved, stored and read back."""

import json
from typing import Any

import numpy as np
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairhuman.data.condition.people import (
    BODY_MIRROR,
    BODY_POINTS,
    FACE_MESH_68,
    FACE_MIRROR,
    HIDDEN,
    PEOPLE_TYPE,
    SHAPES,
    PersonPose,
    flip_people,
    move_people,
    people_from_list,
    people_from_source,
    people_to_list,
)
from fairhuman.errors import DataError
from fairhuman.synth.body import COCO_KEYPOINTS
from fairhuman.synth.render import KEYPOINTS
from helpers.official import need_mediapipe


def random_points(*shape: int, seed: int = 0) -> np.ndarray:
    """Points on a grid of 1/8 pixel, so that mirroring is exact in float32, a few of them not known."""
    generator = np.random.default_rng(seed)
    points = np.round(generator.uniform(-50, 700, (*shape, 3)) * 8) / 8
    points[..., 2] = generator.uniform(0.01, 1, shape) * (generator.random(shape) < 0.9)
    return points * (points[..., 2:] > 0)


def random_person(seed: int = 0) -> PersonPose:
    return PersonPose(*(random_points(*shape[:-1], seed=seed + number) for number, shape in enumerate(SHAPES.values())))


def assert_same(first: list[PersonPose], second: list[PersonPose]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second, strict=True):
        for part in SHAPES:
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def numbered(n: int) -> list[list[float]]:
    """Points whose x is their own number."""
    return [[float(number), 1000.0 + number, 1.0] for number in range(n)]


def names_of(points: np.ndarray, names: Any) -> list[str]:
    return [names[int(x)].replace("_", " ") for x, _, _ in points]


@pytest.mark.parametrize("count", [17, 59, 133])
def test_coco_s_body_points_keep_their_names(count: int) -> None:
    (person,) = people_from_source(numbered(count))
    without_neck = np.delete(person.body, BODY_POINTS.index("neck"), axis=0)
    assert names_of(without_neck, COCO_KEYPOINTS) == [name for name in BODY_POINTS if name != "neck"]


def test_mediapipe_s_body_points_keep_their_names() -> None:
    landmark = need_mediapipe().solutions.pose.PoseLandmark
    names = {point.value: point.name.lower() for point in landmark}
    (person,) = people_from_source(numbered(33))
    without_neck = np.delete(person.body, BODY_POINTS.index("neck"), axis=0)
    assert names_of(without_neck, names) == [name for name in BODY_POINTS if name != "neck"]


@pytest.mark.parametrize(("count", "shoulders"), [(17, (5, 6)), (33, (11, 12)), (59, (5, 6)), (133, (5, 6))])
def test_the_neck_is_midway_between_the_shoulders_with_the_lower_score(count: int, shoulders: tuple[int, int]) -> None:
    points = numbered(count)
    left, right = shoulders
    points[left], points[right] = [10.0, 20.0, 0.9], [30.0, 26.0, 0.4]
    (person,) = people_from_source(points)
    assert person.body[1].tolist() == pytest.approx([20.0, 23.0, 0.4])
    points[right][2] = 0.0
    (person,) = people_from_source(points)
    assert person.body[1, 2] == (HIDDEN if count == 59 else 0)


def test_hands_and_face_of_whole_body_points_come_from_their_places() -> None:
    (person,) = people_from_source(numbered(133))
    assert person.face[:, 0].tolist() == list(range(23, 91))
    assert person.hands[..., 0].tolist() == [list(range(91, 112)), list(range(112, 133))]


def test_hands_of_synthetic_key_points_are_the_person_s_own_left_then_right() -> None:
    (person,) = people_from_source(numbered(59))
    for side, hand in zip(("left", "right"), person.hands, strict=True):
        names = [KEYPOINTS[int(x)] for x in hand[:, 0]]
        assert names[0] == f"{side}_hand_wrist"
        assert names[4] == f"{side}_hand_thumb4"
        assert names[-1] == f"{side}_hand_pinky4"
    assert not person.face.any()


def test_hidden_points_of_synthetic_people_are_known_but_not_hands_that_are_mostly_hidden() -> None:
    points = numbered(59)
    points[5][2] = 0  # the left shoulder, behind something
    for number in (*range(17, 27), *range(38, 49)):  # 10 of the 21 points of the left hand, 11 of the right one
        points[number][2] = 0
    (person,) = people_from_source(points)
    assert person.body[BODY_POINTS.index("left shoulder")].tolist() == [5, 1005, HIDDEN]
    assert person.body[BODY_POINTS.index("neck"), 2] == HIDDEN
    assert person.body[BODY_POINTS.index("right shoulder"), 2] == 1
    assert person.hands[0, :, 2].tolist() == [HIDDEN] * 10 + [1] * 11
    assert not person.hands[1].any()


def test_scores_above_1_are_clipped_and_points_with_score_0_are_unknown() -> None:
    points = numbered(17)
    points[0][2], points[1][2], points[2][2] = 2, -0.25, 0
    (person,) = people_from_source(points)
    assert person.body[BODY_POINTS.index("nose"), 2] == 1
    assert person.body[BODY_POINTS.index("left eye")].tolist() == [0, 0, 0]
    assert person.body[BODY_POINTS.index("right eye")].tolist() == [0, 0, 0]


def test_several_people_are_told_from_one() -> None:
    people = people_from_source([numbered(17), numbered(17)])
    assert len(people) == 2
    assert_same(people[:1], people_from_source(numbered(17)))
    assert people_from_source([]) == []
    assert_same(people_from_source(people_to_list(people)), people)


def test_mirrors_undo_themselves_and_exchange_what_is_named_left_and_right() -> None:
    for mirror in (BODY_MIRROR, FACE_MIRROR):
        assert [mirror[place] for place in mirror] == list(range(len(mirror)))
    swapped = {"left": "right", "right": "left"}
    names = [" ".join(swapped.get(word, word) for word in name.split()) for name in BODY_POINTS]
    assert [names[place] for place in BODY_MIRROR] == list(BODY_POINTS)


def test_face_points_lie_on_mediapipe_s_contours_and_their_mirror_on_the_other_side() -> None:
    mesh = need_mediapipe().solutions.face_mesh_connections
    contours = {
        range(0, 17): (mesh.FACEMESH_FACE_OVAL,) * 2,
        range(17, 27): (mesh.FACEMESH_RIGHT_EYEBROW, mesh.FACEMESH_LEFT_EYEBROW),
        range(27, 36): (mesh.FACEMESH_NOSE,) * 2,
        range(36, 48): (mesh.FACEMESH_RIGHT_EYE, mesh.FACEMESH_LEFT_EYE),
        range(48, 68): (mesh.FACEMESH_LIPS,) * 2,
    }
    assert len(set(FACE_MESH_68)) == 68
    for places, (right, left) in contours.items():
        half = len(places) // 2
        for number, place in enumerate(places):
            contour = {point for edge in (right if number < half else left) for point in edge}
            assert FACE_MESH_68[place] in contour
            assert FACE_MIRROR[place] in places


def test_two_flips_give_the_same_people_and_one_exchanges_hands() -> None:
    people = [random_person(seed) for seed in (0, 10)]
    once = flip_people(people, 640)
    assert_same(flip_people(once, 640), people)
    known = people[0].hands[0, :, 2] > 0
    np.testing.assert_array_equal(once[0].hands[1, known, 0], 640 - people[0].hands[0, known, 0])
    assert not once[0].hands[1, ~known].any()  # what isn't known stays at 0, 0


def test_moving_people_equals_resize_and_crop() -> None:
    people = [random_person()]
    (moved,) = move_people(people, (0.5, 2.0), (16, -8))
    known = people[0].face[:, 2] > 0
    np.testing.assert_array_equal(moved.face[known, 0], people[0].face[known, 0] / 2 - 16)
    np.testing.assert_array_equal(moved.face[known, 1], people[0].face[known, 1] * 2 + 8)
    np.testing.assert_array_equal(moved.face[:, 2], people[0].face[:, 2])
    assert not moved.face[~known].any()


def test_a_point_that_lands_too_far_away_becomes_unknown() -> None:
    points = numbered(18)
    points[0], points[1] = [9e5, 3, 1], [-9e5, 3, 1]
    (zoomed,) = move_people(people_from_source(points), (2, 2), (0, 0))
    (mirrored,) = flip_people(people_from_source(points), 2e5)
    assert zoomed.body[:3].tolist() == [[0, 0, 0], [0, 0, 0], [4, 2004, 1]]
    assert mirrored.body[:2].tolist() == [[-7e5, 3, 1], [0, 0, 0]]


def test_lists_go_through_json_and_parquet_s_types_unchanged() -> None:
    people = [random_person(), PersonPose(), PersonPose(body=random_points(18, seed=5))]
    stored = people_to_list(people)
    assert stored[1] == {"body": None, "hands": None, "face": None}
    assert_same(people_from_list(json.loads(json.dumps(stored))), people)
    assert_same(people_from_list(pyarrow.array([stored], type=PEOPLE_TYPE).to_pylist()[0]), people)
    assert_same(people_from_list([{}]), [PersonPose()])


def test_a_person_can_not_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        random_person().body[0, 0] = 1


def with_value(value: object) -> list[list[object]]:
    return [[value, 1, 1], *([1, 1, 1] for _ in range(17))]


@pytest.mark.parametrize(
    ("pose", "message"),
    [
        ("nose", "pose must be a list of people or of key points, found str"),
        ({"body": []}, "pose must be a list of people or of key points, found dict"),
        (numbered(16), r"N of 17, 18, 33, 59, 133, found \[16, 3\]"),
        ([1.0, 2.0, 3.0], r"found \[3\]"),
        ([[1.0, 2.0]] * 17, r"COCO points must have the shape \[17, 3\], found \[17, 2\]"),
        ([[[numbered(17)]]], r"found \[1, 1, 1, 17, 3\]"),
        ([*numbered(16), [1.0]], "ragged"),
        (with_value("1"), "pose must be numbers, found <U"),
        (with_value(None), "pose must be numbers, found object"),
        (with_value(10**30), "pose must be numbers, found object"),
        (with_value(float("nan")), r"body must lie within 1000000 pixels, found nan"),
        (with_value(float("-inf")), "body must lie within"),
        (with_value(1e300), "body must lie within"),
        ([[1, 1, float("nan")]] * 17, r"scores in 0..1, found nan"),
        ([[1, 1, 1.5]] * 18, r"body must have scores in 0..1, found 1.5"),
        ([{"body": numbered(18)}, 3], r"pose\[1\] must be a mapping of body, hands, face, found int"),
        ([{"body": numbered(17)}], r"pose\[0\].body must have the shape \[18, 3\], found \[17, 3\]"),
        ([{"hands": [numbered(21)]}], r"pose\[0\].hands must have the shape \[2, 21, 3\]"),
        ([{"face": [[True, True, True]] * 68}], r"pose\[0\].face must be numbers, found bool"),
        ([{"body": numbered(18), "feet": []}], r"pose\[0\] must have only body, hands, face, found \['feet'\]"),
    ],
)
def test_invalid_poses_are_rejected_with_their_place(pose: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        people_from_source(pose)


NUMBERS = st.one_of(st.floats(), st.integers(), st.none(), st.booleans(), st.text(max_size=3))
ANYTHING = st.recursive(
    NUMBERS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.lists(st.lists(NUMBERS, min_size=3, max_size=3), min_size=17, max_size=18),
        st.dictionaries(st.sampled_from([*SHAPES, "feet"]), inner, max_size=3),
    ),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(ANYTHING)
def test_any_value_is_either_parsed_or_rejected(value: object) -> None:
    try:
        people = people_from_source(value)
    except DataError:
        return
    for person in people:
        for part, shape in SHAPES.items():
            points = getattr(person, part)
            assert (points.shape, points.dtype) == (shape, np.float32)
            assert np.isfinite(points).all()
            assert ((points[..., 2] >= 0) & (points[..., 2] <= 1)).all()
