"""The settings of a training run; a class a component."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from fairhuman.data.order import bucket_resolutions
from fairhuman.data.sources import SourceSettings
from fairhuman.fairness import STRATEGIES, Length
from fairhuman.models.control import ControlSettings
from fairhuman.models.lora import LoraSettings
from fairhuman.models.mole import MoleSettings
from fairhuman.recipe import Settings
from fairhuman.regions.masks import MaskSettings
from fairhuman.regions.objectives import RegionSettings


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


Mode = Literal["exact", "output", "tail", "ema"]


class FairnessSettings(Settings):
    """How K gradients become one."""

    mode: Mode = Field(
        default="exact",
        description="of nash, mpd and alpha: exact, or an estimate of the Gram matrix, audited: output, tail, or ema, "
        "which stands in for them where gradients are accumulated",
    )
    every: int | None = Field(
        default=None, ge=1, description="steps between audits, which are exact; None: 32 output, 200 tail, 8 ema"
    )
    limit: float = Field(
        default=0.9, ge=-1.0, le=1.0, description="mean cosine of three audits under which a dearer mode takes over"
    )
    pairwise: bool = Field(
        default=False,
        description="exact steps hold 2 gradients instead of K, with 5 passes instead of 3 where K = 3; without "
        "accumulation, and not in mode tail",
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


def _data_kind(value: Any) -> str:
    return "sources" if isinstance(value, list | tuple) else "path"


class TrainRecipe(Settings):
    """A training run. Read by `fairhuman train`."""

    kind: Literal["lora", "full", "controlnet", "t2i_adapter", "mole"] = "lora"
    model: str = Field(
        default="small", description="'small' (ships with the package), 'small-untrained', a folder or a hub id"
    )
    data: Annotated[
        Annotated[Path, Tag("path")] | Annotated[tuple[DataSource, ...], Tag("sources")], Discriminator(_data_kind)
    ] = Field(description="a folder, a file, or a list of {path, repeats or weight, regions}")
    out: Path = Field(description="the run's folder; the same again resumes")
    seed: int = Field(default=0, ge=0)
    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(default=1, ge=1, description="per process and micro-batch")
    accumulate: int = Field(default=1, ge=1, description="micro-batches of an optimiser step")
    resolution: int | tuple[int, int] = Field(default=1024, description="pixels; (height, width)")
    learning_rate: float = Field(default=1e-5, gt=0.0)
    strategy: str = Field(default="mpd", description="a name in fairhuman.fairness.STRATEGIES")
    checkpoint_every: int = Field(default=500, ge=1, description="steps")
    keep_checkpoints: int = Field(default=2, ge=1)
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    gradient_checkpointing: bool = False
    compile: bool = Field(default=False, description="torch.compile of the U-Net's repeated blocks")

    lora: LoraSettings = LoraSettings()
    full: FullSettings = FullSettings()
    controlnet: ControlSettings = ControlSettings()
    t2i_adapter: ControlSettings = ControlSettings()
    mole: MoleSettings = MoleSettings()
    source: SourceOptions = SourceOptions()
    cache: CacheSettings = CacheSettings()
    view: ViewSettings = ViewSettings()
    regions: RegionSettings = RegionSettings()
    noise: NoiseSettings = NoiseSettings()
    fairness: FairnessSettings = FairnessSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    ema: EmaSettings = EmaSettings()
    validation: ValidationSettings = ValidationSettings()
    preview: PreviewSettings = PreviewSettings()
    track: TrackSettings = TrackSettings()
    processes: ProcessSettings = ProcessSettings()

    @property
    def control(self) -> ControlSettings | None:
        """What is followed, of the kinds that follow something."""
        return {"controlnet": self.controlnet, "t2i_adapter": self.t2i_adapter}.get(self.kind)

    @property
    def product(self) -> Path:
        """The folder that the result goes to: a whole pipeline in `model`, else one named by the kind."""
        return self.out / ("model" if self.kind == "full" else self.kind)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.resolution, self.resolution) if isinstance(self.resolution, int) else self.resolution

    def samples(self, processes: int) -> int:
        """Samples of an optimiser step over all processes."""
        return self.batch_size * self.accumulate * processes

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each bucket, or of all samples."""
        aspect = self.view.bucket_aspect
        return [self.size] if aspect is None else bucket_resolutions(self.size, aspect, self.view.bucket_step)

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """The data sets to train on; at least one."""
        return (DataSource(path=self.data),) if isinstance(self.data, Path) else self.data

    @property
    def data_name(self) -> str:
        """The data sets in messages."""
        return ", ".join(str(source.path) for source in self.sources)

    @field_validator("resolution")
    @classmethod
    def _positive(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        sides = (value,) if isinstance(value, int) else value
        if min(sides) < 16:
            raise ValueError("must be at least 16 pixels")
        return value

    @field_validator("strategy")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in STRATEGIES:
            raise ValueError(f"must be one of {', '.join(STRATEGIES)}")
        return value

    @model_validator(mode="after")
    def _views_come_again(self) -> "TrainRecipe":
        view, cache = self.view, self.cache
        still = view.crop == "center" and view.zoom == (1.0, 1.0) and view.keep_region == 0.0
        if cache.latents and not still and cache.variants == 1:
            raise ValueError(
                "cache.latents needs views that come again: view.crop=center, view.zoom=[1,1] and view.keep_region=0, "
                f"found {view.crop}, {list(view.zoom)} and {view.keep_region}; or cache.variants of at least 2, which "
                "keeps that many crops of each picture for the whole run"
            )
        if cache.variants > 1 and (still or not cache.latents):
            why = "all crops of a picture are the same here" if cache.latents else "cache.latents is false"
            raise ValueError(f"cache.variants must be 1, as {why}; found {cache.variants}")
        return self

    @model_validator(mode="after")
    def _encoders_are_frozen(self) -> "TrainRecipe":
        if self.cache.text and self.kind == "full" and self.full.text_encoders:
            raise ValueError("cache.text needs frozen text encoders, but full.text_encoders is true")
        return self

    @model_validator(mode="after")
    def _sources_agree(self) -> "TrainRecipe":
        if not self.sources:
            raise ValueError("data must name at least one data set, the list is empty")
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            without = self.sources[weighted.index(False)]
            raise ValueError(f"data: all sources have a weight or none has one; there is none for {without.path}")
        annotated: set[str] = set()
        for source in self.sources:
            names = self.regions.names if source.regions is None else source.regions
            for name in names:
                if name not in self.regions.names:
                    known = ", ".join(self.regions.names)
                    raise ValueError(f"data: {source.path} has the region {name!r}, regions.names are {known}")
            annotated.update(names)
        for name in self.regions.names:
            if name not in annotated:
                raise ValueError(f"data: no source annotates the region {name!r} of regions.names")
        return self

    @model_validator(mode="after")
    def _buckets_fit(self) -> "TrainRecipe":
        step = self.view.bucket_step
        if self.view.bucket_aspect is not None and any(side % step for side in self.size):
            raise ValueError(f"resolution must be a multiple of view.bucket_step = {step}, found {self.size}")
        return self

    @model_validator(mode="after")
    def _pairs_of_one_graph(self) -> "TrainRecipe":
        if self.fairness.pairwise and (self.accumulate > 1 or self.fairness.mode == "tail"):
            raise ValueError(
                f"fairness.pairwise needs accumulate=1 and a fairness.mode other than tail, found {self.accumulate} "
                f"and {self.fairness.mode}"
            )
        return self

    @model_validator(mode="after")
    def _can_be_sharded(self) -> "TrainRecipe":
        if self.processes.sharding == "none":
            return self
        allowed: dict[str, tuple[object, tuple[object, ...]]] = {
            "kind": (self.kind, ("full", "controlnet", "t2i_adapter")),
            "full.text_encoders": (self.kind == "full" and self.full.text_encoders, (False,)),
            "fairness.mode": (self.fairness.mode, ("exact", "output", "ema")),
            "precision": (self.precision, ("fp32", "bf16")),
            "compile": (self.compile, (False,)),
            "optimizer.name": (self.optimizer.name, ("adam", "adamw", "sgd")),
            "ema.decay": (self.ema.decay, (None,)),
        }
        for name, (found, known) in allowed.items():
            if found not in known:
                expected = " or ".join(str(value) for value in known)
                raise ValueError(f"processes.sharding=fsdp needs {name} to be {expected}, found {found}")
        return self

    @model_validator(mode="after")
    def _scales_name_objectives(self) -> "TrainRecipe":
        self.regions.factors()
        return self


# What may differ between the parts of a run that is resumed, as no step's result depends on it; "x." is a section.
# Data sets may move: which records they hold is checked apart.
# `steps` is one only where the learning rate doesn't depend on it.
FREE_ON_RESUME = frozenset(
    {
        "data",
        "validation.data",
        "out",
        "steps",
        "checkpoint_every",
        "keep_checkpoints",
        "source.workers",
        "source.cache",
        "cache.folder",
        "track.",
        "preview.",
        "processes.timeout",
    }
)


def free_on_resume(name: str) -> bool:
    """Whether the setting of this dotted name is one of `FREE_ON_RESUME`."""
    return name in FREE_ON_RESUME or f"{name.partition('.')[0]}." in FREE_ON_RESUME
