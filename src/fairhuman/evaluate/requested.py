"""Pose and depth that pictures were requested to follow.

They come from the PNG metadata that `fairhuman sample` writes, or from the data set. A picture without a request is
compared with the request of another method's picture of the same prompt and number, so that methods without control
can be compared with controlled ones; failing that, with the reference picture of its prompt if there is exactly one.
"""

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from fairhuman.data.condition.depth import decode_depth, depth_picture
from fairhuman.data.condition.people import PersonPose, move_people, people_from_list, people_from_source
from fairhuman.data.pictures.decode import read_texts
from fairhuman.errors import DataError
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.results import Methods, shared_indices
from fairhuman.generate.control_inputs import DEPTH_TEXT, POSE_TEXT
from fairhuman.utils.parse import parse_json

Value = TypeVar("Value")


@dataclass(frozen=True)
class RequestedPose:
    """Requested people, in pixels of a picture of `size` (width, height)."""

    people: tuple[PersonPose, ...]
    size: tuple[int, int]

    def scaled_to(self, size: tuple[int, int]) -> list[PersonPose]:
        """The people in pixels of a picture of another size."""
        scale = (size[0] / self.size[0], size[1] / self.size[1])
        return list(self.people) if size == self.size else move_people(self.people, scale, (0, 0))


def requested_poses(methods: Methods, reference: Sequence[EvalImage] | None) -> dict[str, list[RequestedPose | None]]:
    """Requested pose of each picture, by method; raises the errors of `requested_values`."""
    return requested_values(methods, reference, _pose)


def requested_depths(
    methods: Methods, reference: Sequence[EvalImage] | None
) -> dict[str, list[NDArray[np.float32] | None]]:
    """Requested depth [h, w] of each picture, by method; any size, near = large. Errors: `requested_values`."""
    return requested_values(methods, reference, _depth)


def requested_values(
    methods: Methods, reference: Sequence[EvalImage] | None, read: Callable[[EvalImage], Value | None]
) -> dict[str, list[Value | None]]:
    """Values that `read` returns for each picture, or for the picture it is compared with; see the module.

    Raises:
        DataError: the request stored in a picture can't be read; names the picture.
    """
    own = {method: [_told(picture, read) for picture in pictures] for method, pictures in methods.items()}
    found = {method: list(values) for method, values in own.items()}
    for method, pictures in methods.items():
        for other, theirs in methods.items():
            for row, place in zip(*shared_indices(pictures, theirs), strict=True):
                if found[method][row] is None:
                    found[method][row] = own[other][place]
    by_prompt: dict[str, list[Value | None]] = {}
    if any(value is None for values in found.values() for value in values):
        for picture in reference or ():
            by_prompt.setdefault(picture.group, []).append(_told(picture, read))
    only = {group: values[0] for group, values in by_prompt.items() if len(values) == 1}
    return {
        method: [
            only.get(p.group) if value is None else value for p, value in zip(methods[method], values, strict=True)
        ]
        for method, values in found.items()
    }


def nan_for_none(values: Sequence[float | None]) -> NDArray[np.float64]:
    """Scores of pictures with None replaced by NaN, which metrics ignore."""
    return np.array([np.nan if value is None else value for value in values])


def _told(picture: EvalImage, read: Callable[[EvalImage], Value | None]) -> Value | None:
    try:
        return read(picture)
    except (ValueError, KeyError, TypeError, DataError) as error:
        raise DataError(f"{picture.record.location}: its requested pose or depth can't be read: {error}") from error


def _texts(picture: EvalImage) -> Mapping[str, str]:
    return read_texts(picture.record.image)


def _pose(picture: EvalImage) -> RequestedPose | None:
    size = (picture.record.width, picture.record.height)
    text = _texts(picture).get(POSE_TEXT)
    if text is not None:
        return RequestedPose(tuple(people_from_list(parse_json(text))), size)
    if isinstance(picture.record.pose, list):
        return RequestedPose(tuple(people_from_source(picture.record.pose)), size)
    return None


def _depth(picture: EvalImage) -> NDArray[np.float32] | None:
    text = _texts(picture).get(DEPTH_TEXT)
    if text is not None:
        return depth_picture(decode_depth(base64.b64decode(text, validate=True)), "relative")
    record = picture.record
    if record.depth is None or isinstance(record.depth, list):
        return None
    return depth_picture(decode_depth(record.depth), record.depth_kind)
