"""Pose and depth of a record, transformed with its picture.

A pose stored as key points is transformed and then drawn at the sample's resolution, with left and right swapped if
the view is mirrored. In a pose stored as an *image*, colours encode left and right, so mirroring would make it wrong;
a record with a pose image isn't mirrored if its pose is used.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as T

from fairhuman.data.condition.depth import decode_depth, depth_picture
from fairhuman.data.condition.people import PersonPose, flip_people, move_people, people_from_source
from fairhuman.data.condition.pose import draw_pose
from fairhuman.data.pictures.decode import PictureLimits, decode
from fairhuman.data.pictures.stored import PictureError
from fairhuman.errors import DataError
from fairhuman.record import CONDITIONS, Finding, HumanRecord
from fairhuman.regions.transforms import ViewDraw

Condition = Tensor | list[PersonPose]  # a tensor is a tv_tensors Image or Mask, which determines how it is resized


def read_conditions(
    record: HumanRecord, names: Sequence[str], limits: PictureLimits
) -> tuple[dict[str, Condition], list[Finding]]:
    """Read the record's conditions, by name; also return findings about unusable ones.

    A pose is an image (`Image`) or people; depth is in 0..1 with near = 1 (`Mask`).
    """
    found: dict[str, Condition] = {}
    findings: list[Finding] = []
    for name in names:
        if getattr(record, name) is None:
            continue
        try:
            found[name] = _pose(record, limits) if name == "pose" else _depth(record)
        except PictureError as error:
            findings.append(error.finding._replace(action="dropped", value=f"{name}: {error.finding.value}"))
        except DataError as error:
            findings.append(Finding("dropped", f"{name} can't be used", str(error)))
    return found, findings


def can_be_mirrored(conditions: Mapping[str, Condition]) -> bool:
    """Whether mirroring keeps the conditions correct."""
    return not isinstance(conditions.get("pose"), tv_tensors.Image)


def conditions_in_view(
    conditions: Mapping[str, Condition],
    moved: Mapping[str, Tensor],
    names: Sequence[str],
    draw: ViewDraw,
    size: tuple[int, int],
    resolution: tuple[int, int],
) -> dict[str, Tensor]:
    """Conditions in the view, float32 [C, H, W] in 0..1; zeros for those of `names` that the record lacks.

    `conditions` are from `read_conditions`, `moved` the transformed tensors among them. `size` of the upright picture
    and `resolution` of the sample are (height, width).
    """
    in_view = {name: torch.zeros(CONDITIONS[name], *resolution) for name in names}
    for name, condition in conditions.items():
        if isinstance(condition, list):
            in_view[name] = _draw_people(condition, draw, size, resolution)
        elif isinstance(condition, tv_tensors.Image):
            in_view[name] = moved[name].float() / 255.0
        else:  # interpolation may exceed 0..1 by rounding
            in_view[name] = moved[name].clamp(0, 1)
    return in_view


def _pose(record: HumanRecord, limits: PictureLimits) -> Condition:
    if isinstance(record.pose, list):
        return people_from_source(record.pose)
    assert record.pose is not None
    picture = decode(record.pose, limits).picture
    _check_size((picture.height, picture.width), record)
    pose_chw: Tensor = tv_tensors.Image(T.pil_to_tensor(picture))
    return pose_chw


def _depth(record: HumanRecord) -> Condition:
    if record.depth is None or isinstance(record.depth, list):
        raise PictureError("depth is not a picture")
    depth_hw = decode_depth(record.depth)
    _check_size(depth_hw.shape, record)
    depth_1hw: Tensor = tv_tensors.Mask(torch.from_numpy(depth_picture(depth_hw, record.depth_kind))[None])
    return depth_1hw


def _check_size(found: tuple[int, ...], record: HumanRecord) -> None:
    if found != (record.height, record.width):
        shown = f"{found[1]}x{found[0]}, the picture is {record.width}x{record.height}"
        raise PictureError("condition has not the size of its picture", shown)


def _draw_people(
    people: Sequence[PersonPose], draw: ViewDraw, size: tuple[int, int], resolution: tuple[int, int]
) -> Tensor:
    height, width = resolution
    scale = (draw.resized_hw[1] / size[1], draw.resized_hw[0] / size[0])
    people = move_people(people, scale, (draw.left, draw.top))
    picture = draw_pose(flip_people(people, width) if draw.flip else people, height, width)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255.0
