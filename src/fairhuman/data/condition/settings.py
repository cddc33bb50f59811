"""Settings of conditions: how pose and depth are estimated."""

from typing import Literal

from pydantic import Field, model_validator

from fairhuman.config import Settings
from fairhuman.detect.settings import WholeBodySettings
from fairhuman.record import DepthKind


class DepthSettings(Settings):
    """The depth model.

    Attributes:
        model: hub id or folder of a Depth Anything or DPT model.
        kind: output of the model: inverse depth (`relative`) or metres (`metric_mm`); None = from its config.
        device: torch device; `auto` = a GPU if there is one.
        batch_size: pictures per batch.
    """

    EXECUTION = frozenset(("device", "batch_size"))

    model: str = "depth-anything/Depth-Anything-V2-Small-hf"
    kind: DepthKind | None = None
    device: str = "auto"
    batch_size: int = Field(default=8, ge=1)


class ConditionSettings(Settings):
    """Estimators of pose and depth for records whose source has none.

    Attributes:
        pose: `mediapipe` (one person) or `whole-body` (everybody); `none` keeps only the source's poses.
        whole_body: the models of `whole-body`.
        min_score: minimum score, 0..1, of a point that is drawn; a person without such a point is left out.
        depth: None keeps only the source's depth maps.
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
