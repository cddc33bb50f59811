"""What a reproduction takes, before it starts: runs, pictures, hours and disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from diffusers import UNet2DConditionModel
from torch.utils.flop_counter import FlopCounterMode

from fairhuman.compare.paper.drawing import sets_of_pictures
from fairhuman.compare.paper.recipe import ReproduceRecipe
from fairhuman.compare.run import planned_runs
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import FairHumanError
from fairhuman.models.sdxl import vae_factor
from fairhuman.report.text import duration, plural
from fairhuman.train.memory import shape_of, weight_bytes
from fairhuman.train.preflight import measured_speed, result_bytes
from fairhuman.train.recipe import TrainRecipe

GIB = 2**30
# Operations a second that networks reach: about 40 % of the peak of an A100 or A800 in half precision, and what the
# small SDXL reaches on one core of 2026 (60 passes at 128 px in 1.34 s, benchmarks/results/costs.json).
GPU, CPU = "one 80 GB GPU", "one CPU core"
RATES = {GPU: 1.2e14, CPU: 6e10}
LARGE = 1e12  # operations of a forward pass that are for a GPU
PNG_BYTES = 1.6  # of a picture, per pixel


@dataclass(frozen=True)
class Plan:
    """Amounts of a reproduction; `count` is the number of prompts, None if the validation set isn't there yet.

    Attributes:
        runs, tuning_runs: training runs.
        pictures: pictures to sample; None if the number of prompts isn't known.
        train_s, sample_s: seconds on `device`; `measured` says whether the speed of training was measured in a run.
        disk: bytes of results, checkpoints and pictures; None if the model's shapes aren't known.
    """

    runs: int
    tuning_runs: int
    pictures: int | None
    train_s: float
    sample_s: float | None
    disk: int | None
    device: str
    measured: bool

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        yield f"training: {plural(self.runs, 'run')}, and {self.tuning_runs} to find learning rates"
        if self.pictures is None:
            yield "pictures: not known, as the validation set doesn't exist yet and sampling.count isn't set"
        else:
            yield f"pictures: {self.pictures:,}"
        how = "at the speed measured in a run here" if self.measured else "estimated from the U-Net's arithmetic"
        sampling = "" if self.sample_s is None else f", sampling {duration(self.sample_s)} (estimated)"
        yield f"hours on {self.device}: training {duration(self.train_s)} ({how}){sampling}; detectors and metrics add"
        yield "disk: not known" if self.disk is None else f"disk: about {self.disk / GIB:.1f} GiB"


def prompts_of(recipe: ReproduceRecipe) -> int | None:
    """Number of prompts; None if the validation set doesn't exist yet and no setting says it.

    Raises:
        DataError: the validation set can't be read.
    """
    sampling = recipe.sampling
    if sampling.count is not None:
        return sampling.count
    if sampling.data in recipe.people:
        return recipe.people[sampling.data].count
    data = recipe.data(sampling.data)
    return len(read_source(data, (), SourceSettings(), LoadReport())) if data.exists() else None


def plan_of(recipe: ReproduceRecipe, prompts: int | None) -> Plan:
    """The plan of a recipe whose validation set has `prompts` prompts; nothing is loaded.

    Training costs a forward pass and a backward pass for each gradient, a backward pass as much as a forward pass (the
    weights of a LoRA are few), and twice that with gradient checkpointing.
    """
    runs, variants = planned_runs(recipe), len(recipe.comparisons)
    tuning = recipe.tuning.runs_of(recipe.cells) if recipe.tuning is not None else 0
    device = device_of(runs[0])
    speeds = [measured_speed(run) for run in runs]
    train_s = sum(train_seconds(run, device, found and found[0]) for run, found in zip(runs, speeds, strict=True))
    pictures = None if prompts is None else prompts * recipe.sampling.images_per_prompt * sets_of_pictures(recipe)
    size = (recipe.sampling.height or runs[0].size[0], recipe.sampling.width or runs[0].size[1])
    passes = recipe.sampling.steps * (2 if recipe.sampling.guidance > 1 else 1)
    each = passes * forward_flops(runs[0].model, size) / RATES[device]
    return Plan(
        variants * len(runs),
        tuning,
        pictures,
        train_s * (variants + tuning / len(runs)),
        None if pictures is None else pictures * each,
        _disk(recipe, runs, tuning, pictures, size),
        device,
        all(speeds),
    )


@cache
def forward_flops(model: str, size: tuple[int, int]) -> float:
    """Floating-point operations of the U-Net for one picture of (height, width), counted on its shapes."""
    pipeline = shape_of(model)
    unet: UNet2DConditionModel = pipeline.unet
    factor = vae_factor(pipeline.vae)
    width, pooled = unet.config.cross_attention_dim, pipeline.text_encoder_2.config.projection_dim
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        unet(
            torch.empty(1, unet.config.in_channels, size[0] // factor, size[1] // factor),
            torch.empty(1),
            torch.empty(1, 77, width),
            added_cond_kwargs={"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)},
        )
    return float(counter.get_total_flops())


def device_of(run: TrainRecipe) -> str:
    """The device that a run is for, by the size of its U-Net; a key of `RATES`."""
    return GPU if forward_flops(run.model, run.size) > LARGE else CPU


def train_seconds(run: TrainRecipe, device: str, pictures_per_s: float | None) -> float:
    """Seconds of a run's steps on `device`; at the measured speed where there is one."""
    if pictures_per_s is not None:
        return run.steps * run.samples(1) / pictures_per_s
    gradients = len(run.objective_names) if run.balances and not run.amortised else 1
    passes = 1 + gradients * (2 if run.gradient_checkpointing else 1)
    return run.steps * run.samples(1) * passes * forward_flops(run.model, run.size) / RATES[device]


def _disk(
    recipe: ReproduceRecipe, runs: list[TrainRecipe], tuning: int, pictures: int | None, size: tuple[int, int]
) -> int | None:
    try:
        each = max(result_bytes(run, weight_bytes(run)) for run in {run.lora.rank: run for run in runs}.values())
    except (OSError, ValueError, FairHumanError):
        return None
    drawn = 0 if pictures is None else int(pictures * PNG_BYTES * size[0] * size[1])
    return each * (len(recipe.comparisons) * len(runs) + tuning) + drawn
