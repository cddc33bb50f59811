"""Conditions for redrawing a part: pose and depth; those of a hand come from its repaired landmarks."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as T

from fairhuman.data.condition.depth import DepthMap, decode_depth, depth_picture, encode_depth
from fairhuman.data.condition.depth_model import DepthEstimator, open_depth
from fairhuman.data.condition.people import PersonPose, Points, move_people
from fairhuman.data.condition.pose import draw_pose
from fairhuman.detect.detection import inside_any
from fairhuman.refine.crop import RefineCrop
from fairhuman.refine.hand_depth import HandDepthModel, capsule_depth
from fairhuman.refine.hand_repair import Array, repaired_hand
from fairhuman.refine.parts import BodyPart
from fairhuman.refine.settings import RefineSettings

CAPSULES = "capsules"

Conditions = Callable[[BodyPart, RefineCrop, Image.Image, Sequence[PersonPose]], dict[str, Tensor]]


@contextmanager
def open_conditions(settings: RefineSettings, follows: Sequence[str]) -> Iterator[Conditions]:
    """Open a function that returns the conditions of a part by name, [1, C, S, S] in 0..1.

    It takes the part, its crop, the crop's picture at working size, and the people of the whole picture. Unknown
    and all-zero conditions are left out.

    Raises:
        DetectorError: the model of `hand_depth` can't be used.
        ModelError: the model of `depth` can't be used.
    """
    with ExitStack() as stack:
        hand_model, estimator = None, None
        if "depth" in follows:
            hand_model = HandDepthModel(settings.hand_depth) if settings.hand_depth != CAPSULES else None
            estimator = stack.enter_context(open_depth(settings.depth)) if settings.depth is not None else None

        def conditions(
            part: BodyPart, crop: RefineCrop, picture: Image.Image, people: Sequence[PersonPose]
        ) -> dict[str, Tensor]:
            hand_n3 = hand_in_crop(part, crop) if part.points else None
            found = {}
            if "depth" in follows:
                depth_hw = _depth(part, picture, hand_n3, hand_model, estimator)
                if depth_hw is not None:
                    found["depth"] = torch.from_numpy(depth_hw)[None, None]
            if "pose" in follows:
                drawn = draw_pose(people_in_crop(part, crop, people, hand_n3), crop.worked, crop.worked)
                found["pose"] = T.pil_to_tensor(drawn)[None].float() / 255
            return {name: picture_bchw for name, picture_bchw in found.items() if picture_bchw.any()}

        yield conditions


def hand_in_crop(part: BodyPart, crop: RefineCrop) -> Array | None:
    """The repaired hand [21, 3] in pixels of the crop at working size; None if the landmarks can't be repaired."""
    repaired_n3 = repaired_hand(part.points, part.label)
    if repaired_n3 is None:
        return None
    left, top, side = crop.square
    return (repaired_n3 - [left, top, 0]) * (crop.worked / side)


def people_in_crop(
    part: BodyPart, crop: RefineCrop, people: Sequence[PersonPose], hand_n3: Array | None
) -> list[PersonPose]:
    """People in pixels of the crop at working size; the repaired hand, or none, replaces the detected one."""
    left, top, side = crop.square
    scale = crop.worked / side
    moved = move_people(people, (scale, scale), (left * scale, top * scale))
    if part.kind != "hand":
        return moved
    rest = [
        PersonPose(person.body, np.stack([_unless_in(part, points_n3, own) for points_n3, own in pairs]), person.face)
        for person, pairs in (
            (person, zip(person.hands, whole.hands, strict=True)) for person, whole in zip(moved, people, strict=True)
        )
    ]
    if hand_n3 is None:
        return rest
    hands = np.zeros((2, 21, 3), np.float32)
    hands[1 if part.label == "right hand" else 0] = np.column_stack([hand_n3[:, :2], np.ones(21)])
    return [*rest, PersonPose(hands=hands)]


def _unless_in(part: BodyPart, points_n3: Points, whole_n3: Points) -> Points:
    """Points of a hand, or zeros if its centre in the picture lies in the part's box."""
    known = whole_n3[whole_n3[:, 2] > 0, :2]
    if not len(known):
        return points_n3
    x, y = known.mean(axis=0).tolist()
    return np.zeros_like(points_n3) if inside_any((x, y), [part.box]) else points_n3


def _depth(
    part: BodyPart,
    picture: Image.Image,
    hand_n3: Array | None,
    hand_model: HandDepthModel | None,
    estimator: DepthEstimator | None,
) -> DepthMap | None:
    if part.kind == "hand" and hand_model is not None:
        small = picture.resize((hand_model.side, hand_model.side), Image.Resampling.LANCZOS)
        depth = Image.fromarray(hand_model(np.asarray(small))).resize(picture.size, Image.Resampling.BILINEAR)
        return np.array(depth)
    if part.kind == "hand":  # depth estimated from the picture would be that of the poor hand
        return None if hand_n3 is None else capsule_depth(hand_n3, picture.height, picture.width)
    if estimator is None:
        return None
    found_hw = estimator([np.asarray(picture)])[0]
    return depth_picture(decode_depth(encode_depth(found_hw, estimator.kind)), estimator.kind)
