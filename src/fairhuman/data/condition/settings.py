"""Which conditions are made for records, and how."""

from typing import Literal

from pydantic import Field, model_validator

from fairhuman.config import Settings
from fairhuman.detect.settings import WholeBodySettings
from fairhuman.record import DepthKind


class DepthSettings(Settings):
    """Which model estimates depth, and how.

    Attributes:
        model: hub id or folder of a model of the type Depth Anything or DPT.
        kind: what it gives: inverse depth (`relative`) or metres (`metric_mm`); None = as its config says.
        device: as torch names it; `auto` = the GPU if there is one.
        batch_size: pictures a step.

    """

    EXECUTION = frozenset(("device", "batch_size"))

    model: str = "depth-anything/Depth-Anything-V2-Small-hf"
    kind: DepthKind | None = None
    device: str = "auto"
    batch_size: int = Field(default=8, ge=1)


class ConditionSettings(Settings):
    """What estimates pose and depth where a source has none.

    Attributes:
        pose: `mediapipe` (one person), `whole-body` (everybody); `none` keeps only poses of the source.
        whole_body: the models of `whole-body`.
        min_score: least score, 0..1, of a point that is drawn; a person without such a point isn't kept.
        depth: None keeps only depth of the source.

    """

    pose: Literal["mediapipe", "whole-body", "none"] = "mediapipe"
    whole_body: WholeBodySettings = WholeBodySettings()
    min_score: float = Field(default=0.3, ge=0, le=1)
    depth: DepthSettings | None = None

    @model_validator(mode="after")
    def _check(self) -> "ConditionSettings":
        if self.pose == "whole-body" and not (self.whole_body.detector and self.whole_body.pose):
            raise ValueError("pose is whole-body, so whole_body.detector and whole_body.pose must be given")
        return self
