"""What a comparison, a reproduction or a measurement of costs takes, before it starts: runs, pictures, hours, disk."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch.utils.flop_counter import FlopCounterMode

from fairhuman.bases.base import base_of
from fairhuman.compare.paper.drawing import sets_of_pictures
from fairhuman.compare.paper.recipe import ReproduceRecipe
from fairhuman.compare.paper.settings import SDXL_SHAPE, VARIANTS, CostSettings
from fairhuman.compare.run import planned_runs, start_findings
from fairhuman.compare.runs import cost, exact_steps, passes
from fairhuman.compare.sampling import PromptSampling
from fairhuman.compare.settings import CompareRecipe, GridSettings
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.prompts import captions_of
from fairhuman.errors import DataError, FairHumanError
from fairhuman.evaluate.needed import check_weights
from fairhuman.evaluate.networks.extractor import WeightsError
from fairhuman.models.locations import SDXL
from fairhuman.models.settings import BaseSettings
from fairhuman.report.text import duration, plural
from fairhuman.train.memory import shape_of, weight_bytes
from fairhuman.train.preflight import StartFinding, measured_speed, model_finding, result_bytes
from fairhuman.train.recipe import TrainRecipe

GIB = 2**30
# Operations a second that networks reach: about 40 % of the peak of an A100 or A800 in half precision, and what the
# small SDXL reaches on one core of 2026 (60 passes at 128 px in 1.34 s, benchmarks/results/costs.json).
GPU, CPU = "one 80 GB GPU", "one CPU core"
RATES = {GPU: 1.2e14, CPU: 6e10}
LARGE = 1e12  # operations of a forward pass that are for a GPU
PNG_BYTES = 1.6  # of a picture, per pixel
# Settings that a run's checkpoints and result depend on in size.
OF_SIZE = {
    *("kind", "model", "base", "precision", "full", "lora", "controlnet", "t2i_adapter", "mole"),
    *("optimizer", "ema", "keep_checkpoints"),
}
ADDED = "detectors, metrics and held-out losses add"


@dataclass(frozen=True)
class Plan:
    """Amounts of a comparison or reproduction.

    Attributes:
        runs, tuning_runs: training runs.
        pictures: pictures to sample, 0 without any; None if the number of prompts isn't known.
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
            yield "pictures: not known, as the number of prompts isn't"
        elif self.pictures:
            yield f"pictures: {self.pictures:,}"
        how = "at the speed measured in a run here" if self.measured else "estimated from the network's arithmetic"
        sampling = f", sampling {duration(self.sample_s)} (estimated)" if self.sample_s else ""
        yield f"hours on {self.device}: training {duration(self.train_s)} ({how}){sampling}; {ADDED}"
        yield "disk: not known" if self.disk is None else f"disk: about {self.disk / GIB:.1f} GiB"


def findings(recipe: CompareRecipe) -> Iterator[StartFinding]:
    """Yield what a comparison or reproduction needs: data, models, prompts, and weights of metrics.

    Raises:
        RecipeError: a setting that training doesn't have, or that the comparison sets itself.
    """
    yield from start_findings(recipe, planned_runs(recipe))
    try:
        count = prompts_of(recipe)
        if count and not _not_made_yet(recipe):  # a data set that is missing is among the findings
            yield StartFinding("prompts", "ok", f"{count:,}")
    except DataError as error:
        yield StartFinding("prompts", "missing", str(error))
    if isinstance(recipe, ReproduceRecipe):
        names = ", ".join(recipe.evaluate.metrics)
        try:
            check_weights(recipe.evaluate, True, "evaluate.", download=False)
            yield StartFinding("metrics", "ok", names)
        except WeightsError as error:
            yield StartFinding("metrics", "missing", str(error))


def prompts_of(recipe: CompareRecipe) -> int | None:
    """Number of prompts, 0 if no pictures are drawn; None if their data set doesn't exist yet and no setting says it.

    Raises:
        DataError: the data set can't be read, has too few records, or one has no caption.
    """
    asked = _asked(recipe)
    if asked is None:
        return 0
    wanted = asked.count if isinstance(asked, PromptSampling) else None
    data = recipe.data(asked.data)
    if asked.data in recipe.people or not data.exists():
        rendered = recipe.people[asked.data].count if asked.data in recipe.people else None
        return rendered if wanted is None else wanted
    records = read_source(data, (), SourceSettings(), LoadReport())
    if wanted is not None and len(records) < wanted:
        named = "sampling" if isinstance(recipe, ReproduceRecipe) else "front.samples"
        raise DataError(f"{data}: {named}.count is {wanted}, found {len(records)} records")
    return len(captions_of(records[:wanted], data))


def _asked(recipe: CompareRecipe) -> PromptSampling | GridSettings | None:
    """What says which pictures are drawn, if any are."""
    if isinstance(recipe, ReproduceRecipe):
        return recipe.sampling
    return recipe.front.samples if recipe.front is not None else recipe.grid


def _not_made_yet(recipe: CompareRecipe) -> bool:
    """Whether the prompts' data set doesn't exist, and isn't one that is rendered."""
    asked = _asked(recipe)
    return asked is not None and asked.data not in recipe.people and not recipe.data(asked.data).exists()


def plan_of(recipe: CompareRecipe, prompts: int | None) -> Plan:
    """The plan of a recipe that draws `prompts` prompts; nothing is loaded.

    Training costs what `passes` counts.
    """
    runs, variants = planned_runs(recipe), len(recipe.comparisons)
    tuning = recipe.tuning.runs_of(recipe.cells) if recipe.tuning is not None else 0
    device = device_of(runs[0])
    speeds = [measured_speed(run) for run in runs]
    train_s = sum(train_seconds(run, device, found and found[0]) for run, found in zip(runs, speeds, strict=True))
    each, size, seconds = _drawing(recipe, runs, device)
    pictures = None if prompts is None else prompts * each
    return Plan(
        variants * len(runs),
        tuning,
        pictures,
        train_s * (variants + tuning / len(runs)),
        None if pictures is None else pictures * seconds,
        _disk(recipe, runs, tuning, pictures, size),
        device,
        all(speeds),
    )


def _drawing(recipe: CompareRecipe, runs: list[TrainRecipe], device: str) -> tuple[int, tuple[int, int], float]:
    """Pictures of a prompt over all models, their (height, width), and the seconds of one."""
    if isinstance(recipe, ReproduceRecipe):
        sampling = recipe.sampling
        count = sampling.images_per_prompt * sets_of_pictures(recipe)
        size = sampling.size(runs[0].size)
        return count, size, sample_seconds(runs[0].model, size, sampling.steps, sampling.guidance, device)
    grid, size = recipe.grid, runs[0].size
    if grid is None:
        return 0, size, 0.0
    return 1 + len(recipe.cells), size, sample_seconds(runs[0].model, size, grid.steps, grid.guidance, device)


def cost_model(settings: CostSettings) -> StartFinding:
    """Whether the model of `fairhuman cost` is here, or can be downloaded."""
    if settings.model == SDXL_SHAPE:
        return StartFinding("model", "ok", "the shape of SDXL, with random weights")
    return model_finding(settings.model, BaseSettings())


def cost_lines(settings: CostSettings) -> list[str]:
    """What `fairhuman cost` takes: pictures, hours and disk."""
    model, size = SDXL if settings.model == SDXL_SHAPE else settings.model, (settings.size, settings.size)
    pictures, device = len(VARIANTS) * (1 + settings.repeats), _device(model, size)
    seconds = pictures * sample_seconds(model, size, settings.steps, None, device)
    return [
        f"pictures: {pictures}, of {len(VARIANTS)} variants in {settings.repeats} rounds and one to warm up",
        f"hours on {device}: {duration(seconds)} (estimated from the network's arithmetic)",
        "disk: less than 1 MiB; pictures aren't kept",
    ]


def device_of(run: TrainRecipe) -> str:
    """The device that a run is for, by the size of its network; a key of `RATES`."""
    return _device(run.model, run.size)


def _device(model: str, size: tuple[int, int]) -> str:
    return GPU if forward_flops(model, size) > LARGE else CPU


def sample_seconds(model: str, size: tuple[int, int], steps: int, guidance: float | None, device: str) -> float:
    """Seconds of a picture; guidance doubles the forward passes."""
    return steps * (1 if guidance == 1 else 2) * forward_flops(model, size) / RATES[device]


@cache
def forward_flops(model: str, size: tuple[int, int]) -> float:
    """Floating-point operations of the network for one picture of (height, width), counted on its shapes."""
    base = base_of(shape_of(model))
    cells = [side // base.factor for side in size]
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        base.predict(
            torch.empty(1, base.channels, *cells),
            torch.empty(1),
            [{name: torch.empty(shape) for name, shape in base.text_shapes(base.network.config).items()}],
        )
    return float(counter.get_total_flops())


def train_seconds(run: TrainRecipe, device: str, pictures_per_s: float | None) -> float:
    """Seconds of a run's steps on `device`; at the measured speed where there is one."""
    if pictures_per_s is not None:
        return run.steps * run.samples(1) / pictures_per_s
    whole = cost(run, exact_steps(run)) * passes(run, False)
    return whole * run.samples(1) * forward_flops(run.model, run.size) / RATES[device]


def _disk(
    recipe: CompareRecipe, runs: list[TrainRecipe], tuning: int, pictures: int | None, size: tuple[int, int]
) -> int | None:
    try:
        unlike = {run.model_dump_json(include=OF_SIZE): run for run in runs}
        each = max(result_bytes(run, weight_bytes(run)) for run in unlike.values())
    except (OSError, ValueError, FairHumanError):
        return None
    drawn = 0 if pictures is None else int(pictures * PNG_BYTES * size[0] * size[1])
    return each * (len(recipe.comparisons) * len(runs) + tuning) + drawn
