"""The recipe of a training run: all settings, and the rules between them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from fairhuman.config import Settings
from fairhuman.data.samples.buckets import bucket_resolutions
from fairhuman.models.locations import SDXL_SIDE_MULTIPLE, largest_side, side_multiple
from fairhuman.models.settings import BaseSettings, ControlSettings, LoraSettings, MoleSettings
from fairhuman.regions.settings import RegionSettings, by_objective, check_objectives
from fairhuman.train.effects import EFFECTS, Condition
from fairhuman.train.settings import (
    GRADIENT_BALANCING,
    LOSS_WEIGHTING,
    CacheSettings,
    DataSource,
    EmaSettings,
    FairnessSettings,
    FullSettings,
    NoiseSettings,
    ObjectiveSettings,
    OptimizerSettings,
    PreviewSettings,
    ProcessSettings,
    ScheduleSettings,
    SourceOptions,
    SteerSettings,
    TrackSettings,
    ValidationSettings,
    ViewSettings,
    needs_gram,
    of_another_package,
)
from fairhuman.utils.plugins import STRATEGIES, check_name

MOST_OBJECTIVES = 5  # with bands: each costs a backward pass a step
BAND_SAMPLES = 16  # with bands, samples of a step in a process
LEAST_RATE = 1e-7  # at which diffusers' polynomial schedule ends
SDXL_STEP = 64  # pixels between the sides of SDXL's own training resolutions


def _data_kind(value: Any) -> str:
    return "sources" if isinstance(value, list | tuple) else "path"


class TrainRecipe(Settings):
    """A training run. Read by `fairhuman train`."""

    EFFECTS: ClassVar[Mapping[str, tuple[Condition, ...]]] = EFFECTS

    kind: Literal["lora", "full", "controlnet", "t2i_adapter", "mole"] = Field(
        default="lora", description="what is trained; lora, full, controlnet, t2i_adapter and mole have a section each"
    )
    model: str = Field(
        default="small",
        description="'small' or 'small-flow', either with '-untrained'; a folder, a .safetensors file or a hub id",
    )
    data: Annotated[
        Annotated[Path, Tag("path")] | Annotated[tuple[DataSource, ...], Tag("sources")], Discriminator(_data_kind)
    ] = Field(description="a folder, a file, or a list of {path, repeats or weight, regions}")
    build: bool = Field(
        default=False, description="build a data set of a bare folder of photos first, beside `out` in OUT-data"
    )
    out: Path = Field(description="the run's folder; run the same command again to resume")
    seed: int = Field(default=0, ge=0, description="seed of new weights, data order, crops, dropout and noise")
    steps: int = Field(ge=1, description="optimiser steps")
    batch_size: int = Field(default=1, ge=1, description="per process and micro-batch")
    accumulate: int = Field(default=1, ge=1, description="micro-batches per optimiser step")
    resolution: int | tuple[int, int] = Field(default=1024, description="pixels; (height, width)")
    learning_rate: float = Field(default=1e-5, gt=0.0, description="maximum learning rate, see `schedule`")
    subject: Literal["people", "person"] = Field(
        default="people", description="person: one person is learned, so pictures aren't mirrored unless set"
    )
    strategy: str = Field(
        default="mpd",
        description="what makes one direction of the objectives' losses: "
        f"{', '.join((*LOSS_WEIGHTING, *GRADIENT_BALANCING))}, torchjd:NAME, or a plug-in's name",
    )
    checkpoint_every: int = Field(default=500, ge=1, description="steps")
    keep_checkpoints: int = Field(default=2, ge=1, description="number of newest checkpoints kept")
    precision: Literal["fp32", "bf16", "fp16"] = Field(
        default="fp32", description="of frozen weights and the forward pass; trained weights are always fp32"
    )
    gradient_checkpointing: bool = Field(
        default=False, description="recompute activations in the backward pass: less memory, about a third more time"
    )
    compile: bool = Field(default=False, description="torch.compile of the network's repeated blocks")

    base: BaseSettings = BaseSettings()
    lora: LoraSettings = LoraSettings()
    full: FullSettings = FullSettings()
    controlnet: ControlSettings = ControlSettings()
    t2i_adapter: ControlSettings = ControlSettings()
    mole: MoleSettings = MoleSettings()
    source: SourceOptions = SourceOptions()
    cache: CacheSettings = CacheSettings()
    view: ViewSettings = ViewSettings()
    regions: RegionSettings = RegionSettings()
    objectives: ObjectiveSettings = ObjectiveSettings()
    noise: NoiseSettings = NoiseSettings()
    fairness: FairnessSettings = FairnessSettings()
    steer: SteerSettings = SteerSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    ema: EmaSettings = EmaSettings()
    validation: ValidationSettings = ValidationSettings()
    preview: PreviewSettings = PreviewSettings()
    track: TrackSettings = TrackSettings()
    processes: ProcessSettings = ProcessSettings()

    @property
    def control(self) -> ControlSettings | None:
        """The settings of a controlnet or t2i_adapter; None for other kinds."""
        return {"controlnet": self.controlnet, "t2i_adapter": self.t2i_adapter}.get(self.kind)

    @property
    def objective_names(self) -> tuple[str, ...]:
        """The K objectives of a step: the whole picture, in bands if it is split, the regions, and the prior."""
        return self.objectives.split(self.regions.step_objectives)

    @property
    def needs_gram(self) -> bool:
        """Whether the strategy balances gradients; see `needs_gram`, and its errors."""
        return needs_gram(self.strategy)

    @property
    def added_strategy(self) -> bool:
        """Whether the strategy is a plug-in of another package."""
        return of_another_package(self.strategy)

    @property
    def amortised(self) -> bool:
        """Whether most steps use an estimate of the Gram matrix."""
        return self.needs_gram and self.fairness.mode != "exact"

    @property
    def short_of_its_rate(self) -> list[str]:
        """A note if the warm-up is as long as the run."""
        warm_up = self.schedule.warmup_steps
        if self.schedule.name == "constant" or warm_up < self.steps:
            return []
        return [
            f"schedule.warmup_steps={warm_up} isn't below steps={self.steps}: the learning rate never reaches "
            f"{self.learning_rate:g}; lower it"
        ]

    @property
    def product(self) -> Path:
        """The folder of the result: `model` for a whole pipeline, otherwise named after the kind."""
        return self.out / ("model" if self.kind == "full" else self.kind)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return (self.resolution, self.resolution) if isinstance(self.resolution, int) else self.resolution

    def samples(self, processes: int) -> int:
        """Return the number of samples per optimiser step over all processes."""
        return self.batch_size * self.accumulate * processes

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of each possible bucket; without buckets, one entry. None has a larger area than `size`.

        `auto` has none that is longer than the model's positions.
        """
        view = self.view
        if view.bucket_aspect is None:
            return [self.size]
        if view.bucket_aspect != "auto":
            return bucket_resolutions(self.size, view.bucket_aspect, self.bucket_step, view.bucket_area)
        found = bucket_resolutions(self.size, self.source.limits.max_aspect, self.bucket_step, view.bucket_area)
        longest = largest_side(self.model)
        return [size for size in found if longest is None or size == self.size or max(size) <= longest]

    @property
    def bucket_step(self) -> int:
        """Pixels of which the sides of buckets are multiples."""
        if self.view.bucket_step != "auto":
            return self.view.bucket_step
        least = side_multiple(self.model)
        wide = least == SDXL_SIDE_MULTIPLE and min(self.size) >= 8 * SDXL_STEP
        return SDXL_STEP if wide and not any(side % SDXL_STEP for side in self.size) else least

    @property
    def sources(self) -> tuple[DataSource, ...]:
        """The data sets to train on; at least one."""
        return (DataSource(path=self.data),) if isinstance(self.data, Path) else self.data

    @property
    def data_name(self) -> str:
        """Name of the data sets in messages."""
        return ", ".join(str(source.path) for source in self.sources)

    @model_validator(mode="before")
    @classmethod
    def _one_person_is_not_mirrored(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("subject") != "person":
            return values
        view = values.get("view", {})
        return {**values, "view": {"flip_probability": 0.0, **view}} if isinstance(view, dict) else values

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
        return check_name(value, (*LOSS_WEIGHTING, *GRADIENT_BALANCING), STRATEGIES)

    @model_validator(mode="after")
    def _options_are_of_an_added_strategy(self) -> "TrainRecipe":
        if self.fairness.options and not self.added_strategy:
            raise ValueError(
                "fairness.options are of strategies that other packages add, "
                f"found strategy {self.strategy} and options {self.fairness.options}"
            )
        return self

    @model_validator(mode="after")
    def _steered_by_held_out_pictures(self) -> "TrainRecipe":
        if self.steer.at_most is not None and self.steer.data is None and not self.validation.every:
            raise ValueError(
                "steer.at_most needs held-out pictures: set validation.every above 0, or steer.data, found "
                f"validation.every={self.validation.every} and no steer.data"
            )
        return self

    @model_validator(mode="after")
    def _weighed_once_a_step(self) -> "TrainRecipe":
        if self.strategy in ("torchjd:PCGrad", "torchjd:GradVac") and self.fairness.mode != "exact":
            raise ValueError(
                f"strategy {self.strategy} draws at random, so it is asked once a step: it needs fairness.mode=exact, "
                f"found {self.fairness.mode}"
            )
        return self

    @model_validator(mode="after")
    def _bands_can_be_told_apart(self) -> "TrainRecipe":
        bands, names = self.objectives.bands, self.objective_names
        if bands is None:
            return self
        if len(names) > MOST_OBJECTIVES or len(set(names)) < len(names):
            raise ValueError(
                f"objectives.bands needs at most {MOST_OBJECTIVES} objectives of different names, found "
                f"{', '.join(names)}"
            )
        if self.batch_size * self.accumulate < BAND_SAMPLES:
            raise ValueError(
                f"objectives.bands needs batch_size x accumulate of at least {BAND_SAMPLES}, so that a step has "
                f"samples of each band, found {self.batch_size} x {self.accumulate}"
            )
        if self.amortised:
            raise ValueError(
                "objectives.bands needs fairness.mode=exact, as an estimate can't see how the gradients of different "
                f"samples agree, found {self.fairness.mode}"
            )
        return self

    @model_validator(mode="after")
    def _views_come_again(self) -> "TrainRecipe":
        view, cache = self.view, self.cache
        if cache.latents and not view.same_crop and cache.variants == 1:
            raise ValueError(
                "cache.latents needs repeating views: view.crop=center, view.zoom=[1,1] and view.keep_region=0 or 1, "
                f"found {view.crop}, {list(view.zoom)} and {view.keep_region}; or set cache.variants to at least 2, "
                "which fixes that many crops of each picture for the whole run"
            )
        if cache.latents and view.close_up:
            raise ValueError(f"cache.latents needs repeating views, found view.close_up={dict(view.close_up)}")
        if cache.variants > 1 and (view.same_crop or not cache.latents):
            why = "all crops of a picture are the same here" if cache.latents else "cache.latents is false"
            raise ValueError(f"cache.variants must be 1, as {why}; found {cache.variants}")
        return self

    @model_validator(mode="after")
    def _encoders_are_frozen(self) -> "TrainRecipe":
        if self.cache.text and self.kind == "full" and self.full.text_encoders:
            raise ValueError("cache.text needs frozen text encoders, but full.text_encoders is true")
        return self

    @model_validator(mode="after")
    def _linear_layers_are_frozen(self) -> "TrainRecipe":
        for name in ("quantize", "offload") if self.kind == "full" else ():
            if (found := getattr(self.base, name)) not in ("none", False):
                raise ValueError(
                    f"base.{name} needs frozen weights, which kind full trains: leave it out, found {found}"
                )
        if self.base.offload and self.compile:
            raise ValueError("base.offload brings weights by a stream that compile=true can't follow: leave one out")
        return self

    @model_validator(mode="after")
    def _sources_agree(self) -> "TrainRecipe":
        if not self.sources:
            raise ValueError("data must name at least one data set, the list is empty")
        weighted = [source.weight is not None for source in self.sources]
        if any(weighted) and not all(weighted):
            without = self.sources[weighted.index(False)]
            raise ValueError(f"data: either all sources must have a weight or none; {without.path} has none")
        annotated: set[str] = set()
        for source in self.sources:
            names = self.regions.names if source.regions is None else source.regions
            for name in names:
                if name not in self.regions.names:
                    known = f"are {', '.join(self.regions.names)}" if self.regions.names else "is empty"
                    raise ValueError(f"data: {source.path} has the region {name!r}, regions.names {known}")
            annotated.update(names)
        for name in self.regions.names:
            if name not in annotated:
                raise ValueError(f"data: no source annotates the region {name!r} of regions.names")
        return self

    @model_validator(mode="after")
    def _buckets_fit(self) -> "TrainRecipe":
        step = self.view.bucket_step
        if self.view.bucket_aspect is not None and step != "auto" and any(side % step for side in self.size):
            raise ValueError(f"resolution must be a multiple of view.bucket_step = {step}, found {self.size}")
        return self

    @model_validator(mode="after")
    def _gradients_of_one_micro_batch(self) -> "TrainRecipe":
        if self.fairness.pairwise and (self.accumulate > 1 or self.fairness.mode in ("split", "tail")):
            raise ValueError(
                "fairness.pairwise needs accumulate=1 and a fairness.mode other than split and tail, found "
                f"{self.accumulate} and {self.fairness.mode}"
            )
        if self.fairness.gradients == "bf16" and self.accumulate > 1:
            raise ValueError(
                "fairness.gradients=bf16 needs accumulate=1, as a sum over micro-batches would be rounded at each of "
                f"them, found {self.accumulate}: leave it out"
            )
        if self.fairness.mode == "split" and self.compile:
            raise ValueError("fairness.mode=split hooks the network's layers and needs compile=false, found true")
        return self

    @model_validator(mode="after")
    def _prior_is_of_a_lora(self) -> "TrainRecipe":
        if self.regions.prior and self.kind != "lora":
            raise ValueError(
                f"regions.prior needs kind=lora, whose base is at hand without its updates, not {self.kind}"
            )
        if self.regions.prior and self.strategy == "si" and self.lora.start is None:
            raise ValueError(
                "regions.prior needs a strategy other than si, which takes a logarithm of each loss: that of the prior "
                "is 0 for a new LoRA; choose another strategy, or set lora.start"
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
    def _polynomial_falls(self) -> "TrainRecipe":
        if self.schedule.name == "polynomial" and self.learning_rate <= LEAST_RATE:
            raise ValueError(
                f"schedule.name=polynomial ends at a learning rate of {LEAST_RATE}, so learning_rate must be larger, "
                f"found {self.learning_rate}"
            )
        return self

    @model_validator(mode="after")
    def _controls_are_of_the_kind(self) -> "TrainRecipe":
        for name in ("controlnet", "t2i_adapter"):
            if name != self.kind and getattr(self, name) != ControlSettings():
                raise ValueError(f"{name}: these settings apply to kind {name} only, found kind {self.kind}")
        return self

    @model_validator(mode="after")
    def _scales_and_weights_name_objectives(self) -> "TrainRecipe":
        self.regions.factors()
        check_objectives("noise.density", self.noise.density, self.regions.objectives)
        check_objectives("view.close_up", self.view.close_up, self.regions.names)
        weights = by_objective("fairness.weights", self.fairness.weights, self.objective_names)
        if not any(weights):
            raise ValueError("fairness.weights must have a weight above 0, found 0 for every objective")
        return self
