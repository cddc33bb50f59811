"""Poses in a common format: for each person 18 body points, 21 points of each hand and 68 face points.

The order is OpenPose's, as in ControlNet's pose models. Points are x, y in pixels of the upright picture (0 is the
outer edge of the first pixel; points may lie outside) and a score in 0..1; 0 = unknown, with x = y = 0.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pyarrow
from numpy.typing import NDArray

from fairhuman.errors import DataError

Points = NDArray[np.float32]

BODY_POINTS = (
    *("nose", "neck", "right shoulder", "right elbow", "right wrist", "left shoulder", "left elbow", "left wrist"),
    *("right hip", "right knee", "right ankle", "left hip", "left knee", "left ankle"),
    *("right eye", "left eye", "right ear", "left ear"),
)
SHAPES: Mapping[str, tuple[int, ...]] = {"body": (len(BODY_POINTS), 3), "hands": (2, 21, 3), "face": (68, 3)}
_POINT = pyarrow.list_(pyarrow.float32())
# Column type of the result of `people_to_list`.
PEOPLE_TYPE = pyarrow.list_(
    pyarrow.struct(
        [
            ("body", pyarrow.list_(_POINT)),
            ("hands", pyarrow.list_(pyarrow.list_(_POINT))),
            ("face", pyarrow.list_(_POINT)),
        ]
    )
)
HIDDEN = 0.5  # score of a hidden point with a known position
_FARTHEST = 1e6  # pixels; float32 still resolves a sixteenth of a pixel there

# Indices of OpenPose's body points, except the neck, among COCO's 17 and MediaPipe's 33 (BlazePose) points.
_COCO = (0, 6, 8, 10, 5, 7, 9, 12, 14, 16, 11, 13, 15, 2, 1, 4, 3)
_BLAZEPOSE = (0, 12, 14, 16, 11, 13, 15, 24, 26, 28, 23, 25, 27, 5, 2, 8, 7)
_RIGHT_SHOULDER, _LEFT_SHOULDER = 1, 4  # in these lists
# The 68 points of 300-W (iBUG: jaw, brows, nose, eyes, lips) among the 468 of MediaPipe's face mesh: the points of the
# contours in mediapipe/python/solutions/face_mesh_connections.py (Apache-2.0) nearest to equal steps along the contour,
# measured on 11 photos: the jaw from eye level to the chin in 8 steps, the bridge of the nose in 3.
FACE_MESH_68 = (
    *(127, 234, 132, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 361, 454, 356),
    *(70, 63, 105, 66, 107, 336, 296, 334, 293, 300),
    *(168, 197, 5, 1, 98, 97, 2, 326, 327),
    *(33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380),
    *(61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91),
    *(78, 81, 13, 311, 308, 402, 14, 178),
)
# Index of the point that replaces each point in a mirrored picture.
BODY_MIRROR = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
FACE_MIRROR = (
    *range(16, -1, -1),
    *range(26, 16, -1),
    *(27, 28, 29, 30, 35, 34, 33, 32, 31),
    *(45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40),
    *(54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55),
    *(64, 63, 62, 61, 60, 67, 66, 65),
)


def _unknown(part: str) -> Points:
    return np.zeros(SHAPES[part], np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class PersonPose:
    """One person's points (x, y, score), float32, read-only.

    Attributes:
        body: [18, 3], in the order of `BODY_POINTS`.
        hands: [2, 21, 3], the person's left hand, then the right one: the wrist, then four points per finger from root
            to tip, thumb first.
        face: [68, 3], in 300-W's order, from the person's right to the left.

    Raises:
        DataError: a part has another shape, a score is outside 0..1, or a known point isn't finite or lies more than
            a million pixels away.
    """

    body: Points = field(default_factory=partial(_unknown, "body"))
    hands: Points = field(default_factory=partial(_unknown, "hands"))
    face: Points = field(default_factory=partial(_unknown, "face"))

    def __post_init__(self) -> None:
        for part, shape in SHAPES.items():
            object.__setattr__(self, part, _checked(part, getattr(self, part), shape))


def person_from_coco(points_n3: Any) -> PersonPose:
    """Convert COCO's 17 body points [17, 3]; scores above 1 (COCO's flag "visible" is 2) become 1."""
    return PersonPose(_body(_scored("COCO points", points_n3, 17), _COCO))


def person_from_whole_body(points_n3: Any) -> PersonPose:
    """Convert COCO-WholeBody's points [133, 3]: 17 body, 6 feet (unused), 68 face, 21 left and 21 right hand.

    Scores are clipped to 0..1; those of RTMW and DWPose can be larger.
    """
    points_n3 = _scored("COCO-WholeBody points", points_n3, 133)
    return PersonPose(_body(points_n3, _COCO), points_n3[91:].reshape(2, 21, 3), points_n3[23:91])


def person_from_synthetic(points_n3: Any) -> PersonPose:
    """Convert the key points of `fairhuman.synth` [59, 3]: 17 body, 21 left and 21 right hand.

    The third number is the visibility. The positions of hidden points (occluded or outside the picture) are known too;
    they get the score `HIDDEN`, so that a limb doesn't lose an end behind a hand. A hand with less than half of its
    points visible is unknown, since a viewer of the picture can't see it either.
    """
    points_n3 = _scored("synthetic key points", points_n3, 59)
    visible = points_n3[:, 2] > 0
    points_n3[:, 2] = np.where(visible, points_n3[:, 2], HIDDEN)
    hands = points_n3[17:].reshape(2, 21, 3)
    hands[visible[17:].reshape(2, 21).mean(axis=1) < 0.5] = 0
    return PersonPose(_body(points_n3, _COCO), hands)


def person_from_mediapipe(
    pose_n3: Any, left_hand_n3: Any = None, right_hand_n3: Any = None, mesh_n3: Any = None
) -> PersonPose:
    """Convert MediaPipe's pose [33, 3], hands [21, 3] and face mesh [468 or 478, 3]; None = not found."""
    hands: NDArray[Any] = np.zeros(SHAPES["hands"])
    for side, hand_n3 in enumerate((left_hand_n3, right_hand_n3)):
        if hand_n3 is not None:
            hands[side] = _scored("MediaPipe hand", hand_n3, 21)
    face: NDArray[Any] = np.zeros(SHAPES["face"])
    if mesh_n3 is not None:
        face = _scored("MediaPipe face mesh", mesh_n3, 468, 478)[list(FACE_MESH_68)]
    return PersonPose(_body(_scored("MediaPipe pose", pose_n3, 33), _BLAZEPOSE), hands, face)


# Layouts of key points in sources, identified by the number of points.
LAYOUTS: Mapping[int, Callable[[Any], PersonPose]] = {
    17: person_from_coco,
    18: PersonPose,
    33: person_from_mediapipe,
    59: person_from_synthetic,
    133: person_from_whole_body,
}


def people_from_source(value: Any) -> list[PersonPose]:
    """Parse a source's pose: the format of `people_to_list`, or key points [N, 3] or [people, N, 3].

    N is 17 (COCO), 18 (OpenPose), 33 (MediaPipe), 59 (synthetic people) or 133 (COCO-WholeBody).

    Raises:
        DataError: the value has another format, or its numbers can't be key points.
    """
    if not isinstance(value, list):
        raise DataError(f"pose must be a list of people or of key points, found {type(value).__name__}")
    if not value or isinstance(value[0], Mapping):
        return people_from_list(value)
    points = _numbers("pose", value)
    people_pn3 = points[None] if points.ndim == 2 else points
    if people_pn3.ndim != 3 or people_pn3.shape[1] not in LAYOUTS:
        counts = ", ".join(map(str, LAYOUTS))
        raise DataError(f"pose must be [N, 3] or [people, N, 3] with N of {counts}, found {list(points.shape)}")
    return [LAYOUTS[people_pn3.shape[1]](points_n3) for points_n3 in people_pn3]


def people_to_list(people: Sequence[PersonPose]) -> list[dict[str, Any]]:
    """Convert people to plain lists for Parquet (`PEOPLE_TYPE`) and JSON; a part without known points is None."""
    return [
        {part: points.tolist() if (points := getattr(person, part))[..., 2].any() else None for part in SHAPES}
        for person in people
    ]


def people_from_list(value: Any) -> list[PersonPose]:
    """The inverse of `people_to_list`; a part may also be missing.

    Raises:
        DataError: the value is invalid; names the person, the part and the value.
    """
    if not isinstance(value, list):
        raise DataError(f"pose must be a list of people, found {type(value).__name__}")
    return [_person(index, person) for index, person in enumerate(value)]


def flip_people(people: Sequence[PersonPose], width: float) -> list[PersonPose]:
    """Mirror people: x' = width - x, and left and right are swapped."""
    mirrored = [
        PersonPose(person.body[list(BODY_MIRROR)], person.hands[::-1], person.face[list(FACE_MIRROR)])
        for person in people
    ]
    return move_people(mirrored, (-1, 1), (-width, 0))


def move_people(
    people: Sequence[PersonPose], scale: tuple[float, float], shift: tuple[float, float]
) -> list[PersonPose]:
    """Transform people as a picture that is resized, then cropped: x' = scale_x x - left, y' = scale_y y - top.

    `shift` is (left, top). A point that lands beyond the limit of a million pixels becomes unknown.
    """
    factors, offsets = np.array([*scale, 1.0]), np.array([*shift, 0.0])
    return [
        PersonPose(*(_drop_far(getattr(person, part).astype(np.float64) * factors - offsets) for part in SHAPES))
        for person in people
    ]


def _drop_far(points: NDArray[Any]) -> NDArray[Any]:
    return np.asarray(np.where((np.abs(points) <= _FARTHEST).all(axis=-1, keepdims=True), points, 0.0))


def _person(index: int, value: Any) -> PersonPose:
    if not isinstance(value, Mapping):
        raise DataError(f"pose[{index}] must be a mapping of {', '.join(SHAPES)}, found {type(value).__name__}")
    if unknown := set(value) - set(SHAPES):
        raise DataError(f"pose[{index}] must have only {', '.join(SHAPES)}, found {sorted(map(str, unknown))}")
    try:
        return PersonPose(**{part: points for part, points in value.items() if points is not None})
    except DataError as error:
        raise DataError(f"pose[{index}].{error}") from error


def _numbers(name: str, value: Any) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise DataError(f"{name} must be key points of three numbers each, found a ragged list") from error
    if array.dtype.kind not in "iuf":
        raise DataError(f"{name} must be numbers, found {array.dtype}")
    return array.astype(np.float64)


def _scored(name: str, value: Any, *counts: int) -> NDArray[Any]:
    """Points [N, 3], with N in `counts` and scores clipped to 0..1."""
    points_n3 = _numbers(name, value)
    if points_n3.ndim != 2 or points_n3.shape[1] != 3 or len(points_n3) not in counts:
        wanted = " or ".join(map(str, counts))
        raise DataError(f"{name} must have the shape [{wanted}, 3], found {list(points_n3.shape)}")
    return np.concatenate([points_n3[:, :2], points_n3[:, 2:].clip(0, 1)], axis=1)


def _body(points_n3: NDArray[Any], order: Sequence[int]) -> NDArray[Any]:
    """OpenPose's body; the neck is midway between the shoulders, with the lower of their scores."""
    body = points_n3[list(order)]
    right, left = body[_RIGHT_SHOULDER], body[_LEFT_SHOULDER]
    neck = [*(right[:2] + left[:2]) / 2, min(right[2], left[2])]
    return np.asarray(np.insert(body, 1, neck, axis=0))


def _checked(part: str, value: Any, shape: tuple[int, ...]) -> Points:
    points = _numbers(part, value)
    if points.shape != shape:
        raise DataError(f"{part} must have the shape {list(shape)}, found {list(points.shape)}")
    scores = points[..., 2]
    if wrong := scores[~((scores >= 0) & (scores <= 1))].tolist():
        raise DataError(f"{part} must have scores in 0..1, found {wrong[0]}")
    points = np.where(scores[..., None] > 0, points, 0.0)
    if wrong := points[~(np.abs(points) <= _FARTHEST)].tolist():
        raise DataError(f"{part} must lie within {_FARTHEST:.0f} pixels, found {wrong[0]}")
    result = points.astype(np.float32)
    result.flags.writeable = False
    return result
