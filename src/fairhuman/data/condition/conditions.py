"""Pose and depth of each picture: what its source has is kept, what is missing is estimated."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from PIL import Image

from fairhuman.data.condition.depth import ANY_SHAPE, decode_depth, depth_png, encode_depth
from fairhuman.data.condition.depth_model import DepthEstimator, open_depth
from fairhuman.data.condition.holistic import HolisticPose
from fairhuman.data.condition.people import PersonPose, people_from_source, people_to_list
from fairhuman.data.condition.pose import draw_pose, is_drawn
from fairhuman.data.condition.settings import ConditionSettings
from fairhuman.data.condition.whole_body import WholeBodyPose
from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.detection import Picture
from fairhuman.detect.whole_body import WholeBodyDetector
from fairhuman.errors import DataError
from fairhuman.record import DepthKind, Finding, Stored
from fairhuman.regions.boxes import shorten

Kept = TypeVar("Kept")
SOURCE = "source"  # who made a condition that wasn't estimated


class PoseEstimator(Protocol):
    """Finds people; `source` is its name for the data set."""

    source: str

    def __call__(self, image: Picture) -> list[PersonPose]:
        """People in an upright RGB picture [H, W, 3], uint8."""
        ...


class ConditionInputs(NamedTuple):
    """A picture [H, W, 3], upright, and the conditions that its source has, as `HumanRecord` holds them."""

    picture: Picture
    pose: Stored | list[Any] | None = None
    depth: Stored | list[Any] | None = None
    depth_kind: DepthKind = "relative"


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is stored of a picture's conditions; None = not known.

    Attributes:
        pose: as `people_to_list` gives it; [] = the source says that nobody is there; None too where the source has
            only a picture of the pose.
        pose_png: the pose picture, as large as the picture.
        depth_png: the depth map, 16 bits, as large as the picture, of `depth_kind`.
        pose_by, depth_by: `source` or the name of the model; "" where not known.
        findings: conditions of the source that can't be used; they count as missing.

    """

    pose: list[dict[str, Any]] | None = None
    pose_png: bytes | None = None
    pose_by: str = ""
    depth_png: bytes | None = None
    depth_kind: DepthKind | None = None
    depth_by: str = ""
    findings: tuple[Finding, ...] = ()


class _Pose(NamedTuple):
    points: list[dict[str, Any]] | None
    png: bytes | None
    by: str


class _Depth(NamedTuple):
    png: bytes | None
    kind: DepthKind | None
    by: str


_NO_POSE, _NO_DEPTH = _Pose(None, None, ""), _Depth(None, None, "")


@contextmanager
def _mediapipe(_: ConditionSettings) -> Iterator[PoseEstimator]:
    with HolisticPose() as estimator:
        yield estimator


@contextmanager
def _whole_body(settings: ConditionSettings) -> Iterator[PoseEstimator]:
    own = settings.whole_body
    with WholeBodyDetector(own.detector, own.pose, own.confidence) as detector:
        yield WholeBodyPose(detector, detector.source)


POSE_ESTIMATORS: Mapping[str, Callable[[ConditionSettings], AbstractContextManager[PoseEstimator]]] = {
    "mediapipe": _mediapipe,
    "whole-body": _whole_body,
}


@contextmanager
def open_conditions(settings: ConditionSettings) -> Iterator[Callable[[Sequence[ConditionInputs]], list[Conditions]]]:
    """Load what is needed for the time of a `with` block.

    `partial(open_conditions, settings)` is the `start` of a guarded process. The function takes some pictures at
    once so that depth is estimated in batches; the result of one picture doesn't depend on the others.

    Raises:
        DetectorError: the pose estimator can't be loaded.
        ModelError: the depth model can't be loaded or, later, can't take a picture.

    """
    with ExitStack() as stack:
        find_pose = None
        if settings.pose != "none":
            find_pose = stack.enter_context(POSE_ESTIMATORS[settings.pose](settings))
        find_depth = stack.enter_context(open_depth(settings.depth)) if settings.depth else None

        def conditions(given: Sequence[ConditionInputs]) -> list[Conditions]:
            return _conditions(given, find_pose, find_depth, settings)

        yield conditions


def _conditions(
    given: Sequence[ConditionInputs],
    find_pose: PoseEstimator | None,
    find_depth: DepthEstimator | None,
    settings: ConditionSettings,
) -> list[Conditions]:
    findings: list[list[Finding]] = [[] for _ in given]
    poses, depths = [], []
    for item, notes in zip(given, findings, strict=True):
        pose = _kept("pose", notes, _own_pose, item, settings.min_score)
        if pose is None and find_pose is not None:
            pose = _found_pose(item.picture, find_pose, settings.min_score)
        poses.append(pose)
        depths.append(_kept("depth", notes, _own_depth, item))
    missing = [index for index, depth in enumerate(depths) if depth is None]
    if find_depth is not None and missing:
        found = find_depth([given[index].picture for index in missing])
        for index, depth_hw in zip(missing, found, strict=True):
            depths[index] = _Depth(encode_depth(depth_hw, find_depth.kind), find_depth.kind, find_depth.source)
    return [
        Conditions(*(pose or _NO_POSE), *(depth or _NO_DEPTH), tuple(notes))
        for pose, depth, notes in zip(poses, depths, findings, strict=True)
    ]


def _kept(name: str, notes: list[Finding], read: Callable[..., Kept | None], *arguments: Any) -> Kept | None:
    """What the source has; where that can't be used, a note of it and None."""
    try:
        return read(*arguments)
    except PictureError as error:
        notes.append(Finding("dropped", f"{name}: {error.finding.reason}", error.finding.value))
    except DataError as error:
        notes.append(Finding("dropped", f"{name} can't be used", shorten(str(error))))
    return None


def _own_pose(item: ConditionInputs, min_score: float) -> _Pose | None:
    if item.pose is None:
        return None
    if isinstance(item.pose, list):
        return _pose(people_from_source(item.pose), item.picture, min_score, SOURCE)
    picture = decode(item.pose, ANY_SHAPE).picture
    _check_size((picture.height, picture.width), item.picture)
    return _Pose(None, _png(picture), SOURCE)


def _found_pose(picture: Picture, find_pose: PoseEstimator, min_score: float) -> _Pose | None:
    people = [person for person in find_pose(picture) if is_drawn(person, min_score)]
    return _pose(people, picture, min_score, find_pose.source) if people else None


def _pose(people: Sequence[PersonPose], picture: Picture, min_score: float, by: str) -> _Pose:
    height, width = picture.shape[:2]
    return _Pose(people_to_list(people), _png(draw_pose(people, height, width, min_score)), by)


def _own_depth(item: ConditionInputs) -> _Depth | None:
    if item.depth is None:
        return None
    if isinstance(item.depth, list):
        raise DataError(f"depth must be a picture, found a list of {len(item.depth)}")
    depth_hw = decode_depth(item.depth)
    _check_size(depth_hw.shape, item.picture)
    return _Depth(depth_png(depth_hw), item.depth_kind, SOURCE)


def _check_size(size: tuple[int, ...], picture: Picture) -> None:
    (height, width), (wanted_height, wanted_width) = size, picture.shape[:2]
    if (height, width) != (wanted_height, wanted_width):
        raise PictureError("not as large as its picture", f"{width}x{height}, not {wanted_width}x{wanted_height}")


def _png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
