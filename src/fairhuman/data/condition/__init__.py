"""Conditions for ControlNet and T2I-Adapter: pose and depth, their storage formats and their estimators.

MediaPipe and `transformers` are imported when an estimator is opened.
"""

from fairhuman.data.condition.conditions import ConditionInputs, Conditions, open_conditions
from fairhuman.data.condition.depth import decode_depth, depth_picture, depth_png, encode_depth
from fairhuman.data.condition.depth_model import DepthEstimator, open_depth
from fairhuman.data.condition.holistic import HolisticPose
from fairhuman.data.condition.people import (
    PEOPLE_TYPE,
    PersonPose,
    flip_people,
    move_people,
    people_from_list,
    people_from_source,
    people_to_list,
)
from fairhuman.data.condition.pose import draw_pose
from fairhuman.data.condition.settings import ConditionSettings, DepthSettings
from fairhuman.data.condition.whole_body import WholeBodyPose

__all__ = [
    "PEOPLE_TYPE",
    "ConditionInputs",
    "ConditionSettings",
    "Conditions",
    "DepthEstimator",
    "DepthSettings",
    "HolisticPose",
    "PersonPose",
    "WholeBodyPose",
    "decode_depth",
    "depth_picture",
    "depth_png",
    "draw_pose",
    "encode_depth",
    "flip_people",
    "move_people",
    "open_conditions",
    "open_depth",
    "people_from_list",
    "people_from_source",
    "people_to_list",
]
