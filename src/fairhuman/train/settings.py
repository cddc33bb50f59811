"""The settings of a training run, a class a component; `TrainRecipe` has them all."""

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fairhuman.config import Settings
from fairhuman.data.sources import SourceSettings
from fairhuman.regions.settings import MaskSettings


class DataSource(Settings):
    """One of several data sets that a run learns from."""

    path: Path = Field(description="what `data` may be")
    repeats: int | None = Field(default=None, ge=1, description="how often a record comes in an epoch; 1 by default")
    weight: float | None = Field(default=None, gt=0.0, description="share of samples; only the proportion counts")
    regions: tuple[str, ...] | None = Field(
        default=None, description="of regions.names, those that it annotates; None: all"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> "DataSource":
        if self.repeats is not None and self.weight is not None:
            raise ValueError(f"repeats or weight, not both: found repeats={self.repeats}, weight={self.weight}")
        return self


class FullSettings(Settings):
    """`kind: full`."""

    text_encoders: bool = Field(default=False, description="train both text encoders too")


# Names of fairhuman.fairness.STRATEGIES, here so that a recipe is checked without torch; a test holds them together.
# Others are entry points of the group fairhuman.strategies.
LOSS_WEIGHTING = ("ls", "dwa", "uw", "rlw", "si")
GRADIENT_BALANCING = ("nash", "mpd", "alpha")
Length = Literal["radius", "clip", "scalarized"]
Mode = Literal["exact", "output", "split", "tail", "ema"]


class FairnessSettings(Settings):
    """How K gradients become one."""

    mode: Mode = Field(
        default="output",
        description="of nash, mpd and alpha: exact, or an estimate of the Gram matrix, audited: output, split, tail "
        "or ema, which stands in for them where gradients are accumulated",
    )
    every: int | None = Field(
        default=None,
        ge=1,
        description="steps between audits, which are exact; None: 32 output, 200 split and tail, 8 ema",
    )
    limit: float = Field(
        default=0.9, ge=-1.0, le=1.0, description="mean cosine of three audits under which a dearer mode takes over"
    )
    pairwise: bool = Field(
        default=False,
        description="exact steps hold 2 gradients instead of K, with 5 passes instead of 3 where K = 3; without "
        "accumulation, and not in modes split and tail",
    )
    length: Length = "radius"
    radius: float = Field(default=1.0, gt=0.0, description="r, where length is radius or clip")
    alpha: float = Field(default=2.0, gt=0.0, description="of strategy alpha")
    ridge: float | None = Field(default=None, ge=0.0, description="None: only where the Gram matrix is singular")
    measure_every: int = Field(
        default=10, ge=0, description="steps between Gram matrices of ls dwa uw rlw si; 0: never"
    )
    dwa_temperature: float = Field(default=2.0, gt=0.0)
    dwa_window: int = Field(default=100, ge=1, description="steps that a loss is averaged over")
    uw_learning_rate: float = Field(default=1e-3, gt=0.0)
    options: dict[str, bool | int | float | str] = Field(
        default={}, description="of a strategy that another package adds: arguments of its class, by name"
    )


class NoiseSettings(Settings):
    """The diffusion loss; holds for every objective."""

    min_snr_gamma: float | None = Field(default=None, gt=0.0, description="5 in Hang et al., ICCV 2023")
    offset: float = Field(default=0.0, ge=0.0, description="standard deviation of a constant added per channel")


class ViewSettings(Settings):
    """What the model sees of a picture."""

    crop: Literal["random", "center"] = "random"
    flip_probability: float = Field(default=0.5, ge=0.0, le=1.0)
    keep_region: float = Field(
        default=0.0, ge=0.0, le=1.0, description="share of crops that keep a face or hand in view"
    )
    zoom: tuple[float, float] = (1.0, 1.0)
    bucket_aspect: float | None = Field(
        default=None,
        ge=1.0,
        description="batches of one aspect ratio each: the greatest, longer side through shorter; None: one resolution",
    )
    bucket_step: int = Field(default=64, ge=8, description="pixels that the sides of buckets are multiples of")
    caption_dropout: float = Field(default=0.1, ge=0.0, le=1.0)


class SourceOptions(SourceSettings):
    """How the data set is read."""

    check: Literal["full", "header"] = Field(default="full", description="decode every picture first, or read headers")
    workers: int = Field(default=0, ge=0, description="processes that load pictures; 0: the training process")
    cache: bool | Path = Field(
        default=True, description="pictures inside Parquet are copied where they are read faster: a folder; false: not"
    )


class CacheSettings(Settings):
    """What frozen networks made is kept on disk, in float16, and not made again."""

    latents: bool = Field(default=False, description="of the VAE; views must come again, see variants")
    text: bool = Field(default=False, description="of the text encoders; not where they are trained")
    folder: Path | None = Field(default=None, description="None: in the machine's cache, shared by all runs")
    variants: int = Field(
        default=1, ge=1, description="crops of each picture, each in both flips, of which each epoch draws one"
    )


class OptimizerSettings(Settings):
    """Adam by default, as in the paper."""

    name: Literal["adam", "adamw", "adamw8bit", "sgd"] = "adam"
    betas: tuple[float, float] = (0.9, 0.999)
    epsilon: float = Field(default=1e-8, gt=0.0)
    weight_decay: float = Field(default=0.0, ge=0.0)
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0, description="of sgd")


class ScheduleSettings(Settings):
    """The learning rate over steps, `diffusers.optimization.get_scheduler`."""

    name: Literal["constant", "constant_with_warmup", "linear", "cosine", "polynomial"] = "constant"
    warmup_steps: int = Field(default=0, ge=0)


class EmaSettings(Settings):
    """An exponential moving average of the trained weights, used for validation, previews and the product."""

    decay: float | None = Field(default=None, gt=0.0, lt=1.0, description="None: no average")


class ValidationSettings(Settings):
    """Held-out losses on fixed noise."""

    every: int = Field(default=500, ge=0, description="steps; 0: never")
    data: Path | None = Field(default=None, description="a data set to validate on; None: held out of the run's own")
    count: int = Field(default=64, ge=1, description="pictures at most")
    share: float = Field(default=0.05, ge=0.0, lt=1.0, description="held out where the data set has no split")
    timesteps: tuple[float, ...] = Field(default=(0.05, 0.2, 0.4, 0.6, 0.8), description="shares of the schedule, 0..1")
    mask: MaskSettings = Field(
        default=MaskSettings(), description="where losses are measured, whatever the run trains on"
    )

    @field_validator("timesteps")
    @classmethod
    def _shares(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or not all(0.0 <= value < 1.0 for value in values):
            raise ValueError("must hold at least one number, each in 0 <= t < 1")
        return values


class PreviewSettings(Settings):
    """Pictures on fixed seeds."""

    every: int = Field(default=0, ge=0, description="steps; 0: at the start and the end only")
    count: int = Field(default=4, ge=0, description="rows; 0: none")
    steps: int = Field(default=30, ge=1)
    guidance: float = Field(default=5.0, ge=1.0)
    strength: float = Field(default=0.55, gt=0.0, le=1.0, description="how far a held-out photo is noised")


class ProcessSettings(Settings):
    """Of several processes, as `accelerate launch` starts them."""

    sharding: Literal["none", "fsdp"] = Field(
        default="none",
        description="none: each process has all weights; fsdp: of trained weights, gradients and optimizer each has a "
        "part (FSDP2), for kinds full, controlnet and t2i_adapter",
    )
    timeout: int = Field(
        default=1800, ge=1, description="seconds to wait for another process before the run ends with an error"
    )


class TrackSettings(Settings):
    """TensorBoard is always written."""

    wandb: str | None = Field(default=None, description="Weights & Biases project; None: off")
