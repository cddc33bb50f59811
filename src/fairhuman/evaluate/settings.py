"""Settings of an evaluation: metrics and their weights."""

from typing import Annotated, ClassVar, Literal, get_args

from pydantic import AfterValidator, Field, model_validator

from fairhuman.config import Settings
from fairhuman.data.condition.settings import DepthSettings
from fairhuman.data.sources import SourceSettings
from fairhuman.evaluate.people.crops import MIN_SIDE
from fairhuman.models.settings import BaseSettings
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
"""A built-in group, or the name of an entry point `fairhuman.metrics`."""
NO_DOWNLOAD: tuple[Group, ...] = ("strict", "efficientnet")


class Weights(Settings):
    """Location of a network's weights."""

    weights: str | None = Field(default=None, description="path or hub id; None: the original on the hub")


class RewardWeights(Weights):
    """Weights and tokenizer of ImageReward."""

    tokenizer: str | None = Field(default=None, description="folder or hub id of bert-base-uncased")


class Expected(Settings):
    """Expected number of faces and hands in a picture if neither it nor the reference is annotated."""

    face: int | None = Field(default=None, ge=0, description="faces per picture; None: unknown")
    hand: int | None = Field(default=None, ge=0, description="hands per picture; None: unknown")


class EvaluateSettings(Settings):
    """All settings of an evaluation."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"workers", "batch_size"})

    metrics: list[GroupName] = Field(
        default=list(NO_DOWNLOAD), min_length=1, description="groups of metrics; the defaults need no download"
    )
    hps: Weights = Weights()
    image_reward: RewardWeights = RewardWeights()
    clip_score: Weights = Weights()
    inception: Weights = Field(default=Weights(), description="weights of FID and KID; a local path, never downloaded")
    depth: DepthSettings | None = Field(default=None, description="estimator for depth_agreement; None: not measured")
    expected: Expected = Expected()
    crop_min_side: float = Field(
        default=MIN_SIDE, ge=1, description="longer side in pixels of a face or hand box below which it gives no crop"
    )
    upscale: int = Field(default=4, ge=1, description="enlargement of pictures of up to 256 px before detection")
    batch_size: int = Field(default=16, ge=1, description="pictures per forward pass")
    workers: int = Field(default=2, ge=1, description="detector processes, and threads that decode pictures")


class LossSettings(Settings):
    """Settings of held-out losses."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    resolution: int = Field(default=1024, ge=8, description="width and height in pixels")
    timesteps: tuple[float, ...] = Field(
        default=tuple(round(0.05 + 0.1 * k, 2) for k in range(10)),
        min_length=1,
        description="fractions of the schedule",
    )
    seed: int = Field(default=0, ge=0, description="seed of the noise")
    count: int | None = Field(default=None, ge=1, description="use only the first pictures; None: all")
    regions: RegionSettings = RegionSettings()
    source: SourceSettings = SourceSettings()
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="precision of the forward pass; the VAE is always fp32"
    )
    base: BaseSettings = BaseSettings()
    batch_size: int = Field(default=8, ge=1, description="pictures per forward pass")

    @model_validator(mode="after")
    def _of_data(self) -> "LossSettings":
        if self.regions.prior:
            raise ValueError("regions.prior is an objective of training and has no held-out loss: leave it out")
        return self
