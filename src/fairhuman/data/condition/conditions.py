"""Pose and depth of each picture: taken from the source if it has them, otherwise estimated."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar

from fairhuman.data.condition.depth import decode_depth, depth_png, encode_depth
from fairhuman.data.condition.depth_model import DepthEstimator, open_depth
from fairhuman.data.condition.holistic import HolisticPose
from fairhuman.data.condition.people import PersonPose, people_from_source, people_to_list
from fairhuman.data.condition.pose import draw_pose, is_drawn
from fairhuman.data.condition.settings import ConditionSettings
from fairhuman.data.condition.whole_body import WholeBodyPose
from fairhuman.data.pictures.decode import ANY_SHAPE, decode
from fairhuman.data.pictures.encode import encode_png
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.detection import Picture
from fairhuman.detect.whole_body import WholeBodyDetector
from fairhuman.errors import DataError
from fairhuman.record import DepthKind, Finding, Stored
from fairhuman.regions.boxes import shorten

Value = TypeVar("Value")
SOURCE = "source"  # origin of a condition that wasn't estimated


class PoseEstimator(Protocol):
    """Estimates poses of people; `source` is the estimator's name as stored in a data set."""

    source: str

    def __call__(self, image: Picture) -> list[PersonPose]:
        """People in an upright RGB picture [H, W, 3], uint8."""
        ...


class ConditionInputs(NamedTuple):
    """An upright picture [H, W, 3] and the conditions of its source, as in `HumanRecord`."""

    picture: Picture
    pose: Stored | list[Any] | None = None
    depth: Stored | list[Any] | None = None
    depth_kind: DepthKind = "relative"


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of a picture, as they are stored; None = unknown.

    Attributes:
        pose: as from `people_to_list`; [] = the source says there is nobody; also None if the source has only a pose
            image.
        pose_png: the pose image, of the picture's size.
        depth_png: the 16-bit depth map of `depth_kind`, of the picture's size.
        pose_by, depth_by: `source` or the name of the model; "" if unknown.
        findings: unusable conditions of the source, which are treated as missing.
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
    """Load the estimators and yield a function from a batch of inputs to their conditions.

    Pass `partial(open_conditions, settings)` as `start` of a guarded process. Depth is estimated in batches; the
    result of one picture doesn't depend on the others.

    Raises:
        DetectorError: the pose estimator can't be loaded.
        ModelError: the depth model can't be loaded or, later, can't process a picture.
    """
    with ExitStack() as stack:
        find_pose = None
        if settings.pose != "none":
            find_pose = stack.enter_context(POSE_ESTIMATORS[settings.pose](settings))
        find_depth = stack.enter_context(open_depth(settings.depth)) if settings.depth else None

        def conditions(inputs: Sequence[ConditionInputs]) -> list[Conditions]:
            return _conditions(inputs, find_pose, find_depth, settings)

        yield conditions


def _conditions(
    inputs: Sequence[ConditionInputs],
    find_pose: PoseEstimator | None,
    find_depth: DepthEstimator | None,
    settings: ConditionSettings,
) -> list[Conditions]:
    findings: list[list[Finding]] = [[] for _ in inputs]
    poses, depths = [], []
    for item, notes in zip(inputs, findings, strict=True):
        pose = _read_or_note("pose", notes, _source_pose, item, settings.min_score)
        if pose is None and find_pose is not None:
            pose = _estimated_pose(item.picture, find_pose, settings.min_score)
        poses.append(pose)
        depths.append(_read_or_note("depth", notes, _source_depth, item))
    missing = [index for index, depth in enumerate(depths) if depth is None]
    if find_depth is not None and missing:
        found = find_depth([inputs[index].picture for index in missing])
        for index, depth_hw in zip(missing, found, strict=True):
            depths[index] = _Depth(encode_depth(depth_hw, find_depth.kind), find_depth.kind, find_depth.source)
    return [
        Conditions(*(pose or _NO_POSE), *(depth or _NO_DEPTH), tuple(notes))
        for pose, depth, notes in zip(poses, depths, findings, strict=True)
    ]


def _read_or_note(name: str, notes: list[Finding], read: Callable[..., Value | None], *arguments: Any) -> Value | None:
    """Read a condition of the source; if it can't be used, note that and return None."""
    try:
        return read(*arguments)
    except PictureError as error:
        notes.append(Finding("dropped", f"{name}: {error.finding.reason}", error.finding.value))
    except DataError as error:
        notes.append(Finding("dropped", f"{name} can't be used", shorten(str(error))))
    return None


def _source_pose(item: ConditionInputs, min_score: float) -> _Pose | None:
    if item.pose is None:
        return None
    if isinstance(item.pose, list):
        return _pose(people_from_source(item.pose), item.picture, min_score, SOURCE)
    picture = decode(item.pose, ANY_SHAPE).picture
    _check_size((picture.height, picture.width), item.picture)
    return _Pose(None, encode_png(picture), SOURCE)


def _estimated_pose(picture: Picture, find_pose: PoseEstimator, min_score: float) -> _Pose | None:
    people = [person for person in find_pose(picture) if is_drawn(person, min_score)]
    return _pose(people, picture, min_score, find_pose.source) if people else None


def _pose(people: Sequence[PersonPose], picture: Picture, min_score: float, by: str) -> _Pose:
    height, width = picture.shape[:2]
    return _Pose(people_to_list(people), encode_png(draw_pose(people, height, width, min_score)), by)


def _source_depth(item: ConditionInputs) -> _Depth | None:
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
