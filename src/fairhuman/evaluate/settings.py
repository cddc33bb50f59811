"""What is measured, and with which weights."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field

from fairhuman.config import Settings
from fairhuman.data.condition.settings import DepthSettings
from fairhuman.data.sources import SourceSettings
from fairhuman.regions.settings import RegionSettings
from fairhuman.utils.plugins import METRICS, check_name

Group = Literal[
    "strict",
    "official",
    "efficientnet",
    "hps",
    "image_reward",
    "clip_score",
    "fid",
    "pose_agreement",
    "depth_agreement",
]
GroupName = Annotated[Group | str, AfterValidator(lambda name: check_name(name, get_args(Group), METRICS))]
"""One of ours, or an entry point of the group `fairhuman.metrics`."""
NO_DOWNLOAD: tuple[Group, ...] = ("strict", "official", "efficientnet")


class Weights(Settings):
    """Where a network's weights are."""

    weights: str | None = Field(default=None, description="path or hub id; None: the original on the hub")


class RewardWeights(Weights):
    """ImageReward's network and the tokenizer that it reads prompts with."""

    tokenizer: str | None = Field(default=None, description="folder or hub id of bert-base-uncased")


class Expected(Settings):
    """How many faces and hands a picture should show, where neither it nor the reference is annotated."""

    face: int | None = Field(default=None, ge=0, description="None: not known, only what is found counts")
    hand: int | None = Field(default=None, ge=0)


class EvaluateSettings(Settings):
    """All settings of an evaluation."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"workers", "batch_size"})

    metrics: list[GroupName] = Field(
        default=list(NO_DOWNLOAD), min_length=1, description="groups of metrics; the default ones need no download"
    )
    hps: Weights = Weights()
    image_reward: RewardWeights = RewardWeights()
    clip_score: Weights = Weights()
    inception: Weights = Field(default=Weights(), description="of FID and KID; a path, nothing is downloaded")
    depth: DepthSettings | None = Field(default=None, description="estimator of depth_agreement; None: not measured")
    expected: Expected = Expected()
    upscale: int = Field(default=4, ge=1, description="pictures of up to 256 px are enlarged so before detection")
    batch_size: int = Field(default=16, ge=1, description="pictures at once in a network")
    workers: int = Field(default=2, ge=1, description="processes of the detectors, threads that decode")


class LossSettings(Settings):
    """How losses are measured."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    resolution: int = Field(default=1024, ge=8, description="pixels a side")
    timesteps: tuple[float, ...] = Field(
        default=tuple(round(0.05 + 0.1 * k, 2) for k in range(10)), min_length=1, description="shares of the schedule"
    )
    seed: int = Field(default=0, ge=0, description="of the noise")
    count: int | None = Field(default=None, ge=1, description="pictures, the first ones; None: all")
    regions: RegionSettings = RegionSettings()
    source: SourceSettings = SourceSettings()
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    batch_size: int = Field(default=8, ge=1)
