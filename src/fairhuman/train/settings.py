"""The settings of a training run, one class per component; `TrainRecipe` combines them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from fairhuman.bases.settings import TimeSettings
from fairhuman.config import Settings
from fairhuman.data.sources import SourceSettings
from fairhuman.regions.settings import MaskSettings
from fairhuman.utils.plugins import STRATEGIES, load_plugin, misfit


class DataSource(Settings):
    """One of several data sets of a run."""

    path: Path = Field(description="a folder or file, as `data` accepts")
    repeats: int | None = Field(default=None, ge=1, description="how often an epoch contains each record; None: 1")
    weight: float | None = Field(default=None, gt=0.0, description="relative share of samples")
    regions: tuple[str, ...] | None = Field(default=None, description="the regions.names that it annotates; None: all")

    @model_validator(mode="after")
    def _one_of_both(self) -> "DataSource":
        if self.repeats is not None and self.weight is not None:
            raise ValueError(f"set repeats or weight, not both: found repeats={self.repeats}, weight={self.weight}")
        return self


class FullSettings(Settings):
    """Read by `kind: full`: all weights of the base's network."""

    text_encoders: bool = Field(default=False, description="train both text encoders too")


# Names of fairhuman.fairness.STRATEGIES, repeated here so that recipes validate without torch; a test compares them.
# Plug-ins register others as entry points in the group fairhuman.strategies, as fairhuman.balancers does.
LOSS_WEIGHTING = ("ls", "dwa", "uw", "rlw", "si")
GRADIENT_BALANCING = ("nash", "mpd", "alpha")
TORCHJD = "torchjd:"  # the names of fairhuman.balancers start with it
Length = Literal["radius", "clip", "scalarized"]
Mode = Literal["exact", "output", "split", "tail", "ema"]
AUDITS: Mapping[str, int] = {"output": 32, "split": 200, "tail": 200, "ema": 8}  # steps between audits if none are set
CLOSE_UP_SIZE = (0.3, 0.6)
WARM_UP = 16  # exact steps at the start in mode output
TRIAL = 32  # exact steps at the start in modes split and tail, which choose where the network is cut


def needs_gram(strategy: str) -> bool:
    """Whether a strategy balances gradients, so that it needs their Gram matrix and `fairness.mode` applies.

    Raises:
        PluginError: the strategy is a plug-in that can't be loaded.
    """
    if strategy in (*LOSS_WEIGHTING, *GRADIENT_BALANCING):
        return strategy in GRADIENT_BALANCING
    kind = load_plugin(STRATEGIES, strategy)
    needed = getattr(kind, "needs_gram", None)
    if not isinstance(needed, bool):
        raise misfit(STRATEGIES, strategy, "a subclass of LossWeighting or GradientBalancing", kind)
    return needed


def of_another_package(strategy: str) -> bool:
    """Whether a strategy is a plug-in that isn't fairhuman's own."""
    return strategy not in (*LOSS_WEIGHTING, *GRADIENT_BALANCING) and not strategy.startswith(TORCHJD)


class TorchJDSettings(Settings):
    """Read by `strategy: torchjd:NAME`: a balancer of another paper."""

    c: float = Field(
        default=0.4, ge=0.0, description="for torchjd:CAGrad: radius around the mean gradient, as a share of its length"
    )
    scale_mode: Literal["min", "median", "rmse"] = Field(
        default="min",
        description="for torchjd:AlignedMTL: the gradients' common length, from the smallest eigenvalue of M, their "
        "median or their mean",
    )
    beta: float = Field(
        default=0.5, ge=0.0, le=1.0, description="for torchjd:GradVac: weight of a step in the averages of the cosines"
    )
    mu: float = Field(
        default=0.1, gt=0.0, description="for torchjd:STCH: the smaller, the nearer to the largest loss alone"
    )


class FairnessSettings(Settings):
    """How K gradients are combined."""

    mode: Mode = Field(
        default="output",
        description="where the gradients' Gram matrix is from: exact, or an audited estimate: output, split, tail or "
        "ema; with accumulate above 1 the first three become ema",
    )
    every: int | None = Field(
        default=None,
        ge=1,
        description="steps between audits, which are exact steps; None: output 32, split and tail 200, ema 8",
    )
    limit: float = Field(
        default=0.9,
        ge=-1.0,
        le=1.0,
        description="a more expensive mode takes over if the mean cosine of three audits is lower",
    )
    pairwise: bool = Field(
        default=False,
        description="exact steps hold 2 gradients instead of K, in 5 passes instead of 3 for K = 3; needs accumulate=1 "
        "and a mode other than split and tail",
    )
    gradients: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="of exact steps: in what each objective's gradient is kept until all are there; bf16: half of the "
        "memory, and with gradient checkpointing a forward pass for each objective; needs accumulate=1",
    )
    length: Length = Field(
        default="radius",
        description="length of the direction: radius: r; clip: at most r; scalarized: that of the gradients' plain sum",
    )
    radius: float = Field(default=1.0, gt=0.0, description="the length r, for length radius or clip")
    weights: Mapping[str, Annotated[float, Field(ge=0.0)]] = Field(
        default={}, description="for ls: fixed weight of each objective's loss, by name; 1 where left out"
    )
    alpha: float = Field(default=2.0, gt=0.0, description="the exponent of strategy alpha")
    ridge: float | None = Field(default=None, ge=0.0, description="relative ridge; None: only if M is singular")
    floor: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="least rate of the whole picture, 0..1: cosine of its gradient and the direction, which is turned "
        "towards it if needed; None: as the strategy has it",
    )
    measure_every: int = Field(
        default=10,
        ge=0,
        description="steps between logged Gram matrices of the gradients, for which a step holds all K; 0: never",
    )
    dwa_temperature: float = Field(
        default=2.0,
        gt=0.0,
        description="for dwa: temperature of the softmax over loss ratios; higher = more equal weights",
    )
    dwa_window: int = Field(default=100, ge=1, description="steps over which a loss is averaged")
    uw_learning_rate: float = Field(
        default=1e-2,
        gt=0.0,
        description="for uw: constant learning rate of the log variances s, which move by about this much a step",
    )
    torchjd: TorchJDSettings = TorchJDSettings()
    options: dict[str, bool | int | float | str] = Field(
        default={}, description="of a strategy that another package adds: arguments of its class, by name"
    )

    @field_validator("weights", mode="before")
    @classmethod
    def _by_name(cls, weights: object) -> object:
        if isinstance(weights, Mapping):
            return weights
        raise ValueError("expected a weight for each objective by its name, such as {global: 1, face: 0.5, hand: 2}")


class SteerSettings(Settings):
    """Most that the whole picture may get worse, by held-out losses that are measured during the run."""

    at_most: float | None = Field(
        default=None,
        gt=0.0,
        description="allowed rise of the whole picture's held-out loss, as a share: 0.001 is +0.1 %; the part of it "
        "that is used up is the fairness.floor of the next steps; None: not steered",
    )
    every: int = Field(default=50, ge=1, description="steps between measurements")
    data: Path | None = Field(
        default=None,
        description="data set that is measured on, so that held-out losses stay independent; None: the held-out "
        "pictures of the run",
    )
    count: int = Field(default=32, ge=1, description="maximum number of pictures of steer.data")


class ObjectiveSettings(Settings):
    """The objectives of a step, besides the `regions`."""

    bands: int | None = Field(
        default=None,
        ge=2,
        le=4,
        description="split the global loss by log SNR into this many, of equally many draws each; with "
        "fairness.mode=exact for strategies that balance gradients, and at least 16 samples a step; None: one",
    )

    def split(self, names: Sequence[str]) -> tuple[str, ...]:
        """Return the names of a step's objectives: `global_1` (the least noise), `global_2`, ... in place of `global`.

        Args:
            names: of the whole picture's objective, then of the regions'.
        """
        first, *regions = names
        return (first, *regions) if self.bands is None else (*(f"{first}_{b + 1}" for b in range(self.bands)), *regions)


class NoiseSettings(Settings):
    """The diffusion loss of every objective."""

    min_snr_gamma: float | None = Field(
        default=None, gt=0.0, description="γ of min-SNR weighting (5 in Hang et al., ICCV 2023); None: off"
    )
    offset: float = Field(
        default=0.0, ge=0.0, description="of SDXL: standard deviation of offset noise, constant per channel"
    )
    times: TimeSettings = TimeSettings()
    density: Mapping[
        str, Annotated[tuple[Annotated[float, Field(gt=0.0)], ...], Field(min_length=2, max_length=100)]
    ] = Field(
        default={},
        description="objective to how often noise levels are drawn in samples that have it: relative densities in "
        "bins of equally many draws, from the least noise; losses are divided by the density, so what they "
        "estimate doesn't change; uniform where left out",
    )


class ViewSettings(Settings):
    """What the model sees of a picture."""

    crop: Literal["random", "center"] = Field(
        default="random", description="place of the crop: uniformly random, or the centre"
    )
    flip_probability: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="probability of mirroring a picture; 0 by default for subject person; a pose given as a picture is "
        "never mirrored",
    )
    keep_region: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="share of crops that are placed to keep faces and hands whole in view, the largest first",
    )
    min_in_view: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="share of a region that must be in view; with less, it counts as not annotated in that sample",
    )
    close_up: Mapping[str, Annotated[float, Field(gt=0.0)]] = Field(
        default={},
        description="region to the share of samples that show one of its boxes large and count for it alone, as much "
        "as in the whole view; a picture with too few pixels is shown whole; changes what the region's loss is a mean "
        "over",
    )
    close_up_size: tuple[float, float] = Field(
        default=CLOSE_UP_SIZE,
        description="share of the view's height or width that the box of a close-up takes, drawn uniformly",
    )
    zoom: tuple[float, float] = Field(
        default=(1.0, 1.0),
        description="range of an enlargement before the crop, drawn uniformly; [1, 1] shows as much as possible",
    )
    bucket_aspect: Annotated[float, Field(ge=1.0)] | Literal["auto"] | None = Field(
        default="auto",
        description="aspect-ratio buckets: largest ratio of the longer to the shorter side; auto: up to that of the "
        "pictures; None: one resolution",
    )
    bucket_step: Annotated[int, Field(ge=8)] | Literal["auto"] = Field(
        default="auto",
        description="sides of buckets are multiples of this, in pixels; auto: 16 for the small SDXL; 64 for SDXL, "
        "below 512 pixels 32",
    )
    bucket_area: float | None = Field(
        default=0.8,
        gt=0.0,
        le=1.0,
        description="smallest area of a bucket, as a share of the resolution's; None: for each side the largest area",
    )
    bucket_crop: float = Field(
        default=0.05,
        ge=0.0,
        le=1.0,
        description="records of a bucket smaller than a batch join the next one if each loses at most this share of "
        "its area; otherwise they repeat within a batch",
    )
    caption_dropout: float = Field(
        default=0.1, ge=0.0, le=1.0, description="probability of an empty caption, for classifier-free guidance"
    )

    @field_validator("zoom")
    @classmethod
    def _enlarges(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 1.0 <= value[0] <= value[1]:
            raise ValueError("must be [low, high] with 1 <= low <= high")
        return value

    @model_validator(mode="after")
    def _some_views_are_whole(self) -> "ViewSettings":
        if sum(self.close_up.values()) >= 1.0:
            raise ValueError(f"close_up: the shares must sum to less than 1, found {dict(self.close_up)}")
        low, high = self.close_up_size
        if not self.close_up and (low, high) != CLOSE_UP_SIZE:
            raise ValueError(f"close_up_size needs close_up, found {[low, high]} without a region")
        if not 0.0 < low <= high <= 1.0:
            raise ValueError(f"close_up_size must be [low, high] with 0 < low <= high <= 1, found {[low, high]}")
        return self

    @property
    def same_crop(self) -> bool:
        """Whether all crops of a picture are the same."""
        return self.crop == "center" and self.zoom == (1.0, 1.0) and self.keep_region in (0.0, 1.0)


class SourceOptions(SourceSettings):
    """How the data set is read."""

    check: Literal["full", "header"] = Field(
        default="full", description="before training: decode every picture, or read headers only"
    )
    workers: int = Field(default=0, ge=0, description="processes that load pictures; 0: load in the training process")
    cache: bool | Path = Field(
        default=True, description="copy pictures from Parquet to a faster format: true, false or a folder"
    )


class CacheSettings(Settings):
    """On-disk caches of the frozen networks' outputs, in float16."""

    latents: bool = Field(
        default=False,
        description="cache the VAE's latents, on a GPU before the first step; needs repeating views, see variants",
    )
    text: bool = Field(
        default=False,
        description="cache text embeddings, before the first step; needs frozen text encoders, which then leave a GPU",
    )
    folder: Path | None = Field(default=None, description="None: in the user's cache folder, shared by all runs")
    variants: int = Field(default=1, ge=1, description="fixed crops per picture, each in both flips; one an epoch")


NO_EIGHTBIT = "optimizer.name is adamw8bit, but bitsandbytes isn't installed: pip install 'fairhuman[eightbit]'"


class OptimizerSettings(Settings):
    """Adam by default, as in the paper."""

    name: Literal["adam", "adamw", "adamw8bit", "sgd"] = Field(
        default="adam", description="optimiser; adamw8bit needs the extra `eightbit`"
    )
    betas: tuple[float, float] = Field(
        default=(0.9, 0.999),
        description="for adam, adamw and adamw8bit: decay rates of the averages of gradient and squared gradient",
    )
    epsilon: float = Field(
        default=1e-8, gt=0.0, description="for adam, adamw and adamw8bit: added to the denominator of the update"
    )
    weight_decay: float = Field(
        default=0.0, ge=0.0, description="decoupled for adamw and adamw8bit; for adam and sgd, added to the gradient"
    )
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0, description="for sgd")

    @field_validator("betas")
    @classmethod
    def _average(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not all(0.0 <= beta < 1.0 for beta in value):
            raise ValueError("must be two numbers, each in 0 <= beta < 1")
        return value


class ScheduleSettings(Settings):
    """The learning-rate schedule, from `diffusers.optimization.get_scheduler`."""

    name: Literal["constant", "constant_with_warmup", "linear", "cosine", "polynomial"] = Field(
        default="constant", description="shape of the schedule over the steps of the run"
    )
    warmup_steps: int = Field(
        default=0, ge=0, description="steps over which the learning rate rises from 0; constant ignores them"
    )
    power: float = Field(
        default=1.0,
        gt=0.0,
        description="for polynomial: exponent of the decay, which ends at a learning rate of 1e-7; 1: along a line",
    )


class EmaSettings(Settings):
    """An exponential moving average of the trained weights, used for validation, previews and the result."""

    decay: float | None = Field(
        default=None,
        gt=0.0,
        lt=1.0,
        description="share of the average that a step keeps, in step n at most 1 - n^(-2/3): 0.954 at 100, 0.990 at "
        "1,000, 0.998 at 10,000; None: no average",
    )


class ValidationSettings(Settings):
    """Held-out losses on fixed noise."""

    every: int = Field(default=500, ge=0, description="steps; 0: never")
    data: Path | None = Field(default=None, description="data set to validate on; None: records held out of the run's")
    count: int = Field(
        default=64, ge=1, description="maximum number of pictures; of `data` the same ones for all values of `seed`"
    )
    share: float = Field(default=0.05, ge=0.0, lt=1.0, description="share held out if the data set has no split")
    timesteps: tuple[float, ...] = Field(default=(0.05, 0.2, 0.4, 0.6, 0.8), description="shares of the schedule, 0..1")
    mask: MaskSettings = Field(
        default=MaskSettings(), description="the masks of validation losses, independent of the run's own"
    )

    @field_validator("timesteps")
    @classmethod
    def _shares(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or not all(0.0 <= value < 1.0 for value in values):
            raise ValueError("must hold at least one number, each in 0 <= t < 1")
        return values


class PreviewSettings(Settings):
    """Preview pictures drawn with fixed seeds."""

    every: int = Field(default=0, ge=0, description="steps; 0: only at the start and the end")
    at_start: bool = Field(
        default=True,
        description="also before the first step, which shows what training changes; false: the run begins at once",
    )
    count: int = Field(default=4, ge=0, description="rows of held-out captions and photos; 0: none")
    prompts: tuple[str, ...] = Field(
        default=(), description="prompts of your own, drawn beside them at `resolution`, without a condition"
    )
    steps: int = Field(default=30, ge=1, description="UniPC steps")
    guidance: float | None = Field(
        default=None, ge=1.0, description="as the base means it, 1 of SDXL: none; None: the base's own, 5.0 of SDXL"
    )
    strength: float = Field(
        default=0.55, gt=0.0, le=1.0, description="share of the schedule to which a held-out photo is noised"
    )


class ProcessSettings(Settings):
    """Training with several processes, started by `accelerate launch`."""

    sharding: Literal["none", "fsdp"] = Field(
        default="none",
        description="none: each process has all weights; fsdp: trained weights, gradients and optimizer state are "
        "sharded (FSDP2), for kinds full, controlnet and t2i_adapter",
    )
    timeout: int = Field(default=1800, ge=1, description="seconds to wait for another process before an error")


class TrackSettings(Settings):
    """Experiment tracking; TensorBoard logs are always written."""

    wandb: str | None = Field(default=None, description="Weights & Biases project; None: off")
