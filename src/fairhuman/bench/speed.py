"""Speed of the trainer's steps relative to a bare loop over tensors in memory, interleaved in one process."""

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from accelerate import PartialState
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile, record_function

from fairhuman import config
from fairhuman.bases.base import base_of
from fairhuman.data.samples.batch import Batch
from fairhuman.models.streaming import forget
from fairhuman.train.data import build_loader
from fairhuman.train.loop import cache_texts, take_step
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run, set_up
from fairhuman.train.step import PARTS
from fairhuman.utils.files import write_atomically
from fairhuman.utils.torch_device import without_gpu

BARE = "bare loop"
WARM_UP = 4  # steps before timing, so that one-time work is done
LONGEST_WARM_UP = 64  # steps: an amortised mode starts with exact ones


@dataclass(frozen=True, slots=True)
class Speed:
    """Speed of one method: minimum, median and maximum over rounds.

    Attributes:
        name: of the method.
        images_per_s: images per second.
        ratio: speed relative to the bare loop in the same round, in CPU time on a CPU, otherwise in wall-clock time.
        waiting: share of a step spent waiting for data; 0 for the bare loop.
        exact: share of the rounds that computed all K gradients.
        warm_up_s: seconds of the warm-up steps, including compilation.
    """

    name: str
    images_per_s: tuple[float, float, float]
    ratio: tuple[float, float, float]
    waiting: tuple[float, float, float]
    exact: float
    warm_up_s: float


class StepFacts(NamedTuple):
    """Facts about one step: from its metrics, and the seconds that it took."""

    waiting: float = 0.0
    exact: bool = False
    wall_s: float = 0.0
    cpu_s: float = 0.0


def measure_speed(recipe: TrainRecipe, rounds: int, modes: Sequence[str]) -> list[Speed]:
    """Take one step with each method in turn, `rounds` times after warming up; nothing is written to the run's folder.

    The bare loop is the model's forward pass, one loss, backward and optimiser; no data, no VAE, no text encoders. The
    others are complete steps of the trainer: the plain sum (LS), and the recipe's strategy in each of `modes`, values
    of `fairness.mode`. An amortised mode is measured by its ordinary steps; its audits, one in `every`, are not
    included. On a GPU one method is measured after the other, so that its memory holds one model at a time.
    """
    trained = {BARE: recipe, "LS": with_settings(recipe, strategy="ls")}
    for mode in modes:
        trained[f"{recipe.strategy}, {mode}"] = with_settings(recipe, fairness={"mode": mode, "every": 10**6})
    device = PartialState(cpu=without_gpu()).device
    on_cpu = device.type == "cpu"
    took: dict[str, list[StepFacts]] = {}
    warm_up_s: dict[str, float] = {}
    ways: dict[str, Callable[[], StepFacts]] = {}
    for group in [trained] if on_cpu else [{name: one} for name, one in trained.items()]:
        ways.clear()
        free_memory(device)
        ways = {name: way_of(start(one), bare=name == BARE) for name, one in group.items()}
        warm_up_s |= {name: warm_up(way, group[name].amortised) for name, way in ways.items()}
        taken = [{name: timed(way, device) for name, way in ways.items()} for _ in range(rounds)]
        took |= {name: [one[name] for one in taken] for name in ways}
    images = recipe.batch_size * recipe.accumulate
    seconds = {name: [one.cpu_s if on_cpu else one.wall_s for one in taken] for name, taken in took.items()}
    return [
        Speed(
            name,
            spread([images / one.wall_s for one in taken]),
            spread([bare / ours for bare, ours in zip(seconds[BARE], seconds[name], strict=True)]),
            spread([one.waiting for one in taken]),
            statistics.mean(one.exact for one in taken),
            warm_up_s[name],
        )
        for name, taken in took.items()
    ]


def available_modes(recipe: TrainRecipe) -> tuple[str, ...]:
    """Return the values of fairness.mode that a recipe supports."""
    tail = recipe.control is None and not recipe.fairness.pairwise
    split = tail and recipe.kind == "lora" and recipe.lora.targets == "attention" and not recipe.compile
    return ("exact", "output", *(["split"] if split else []), *(["tail"] if tail else []))


def trace(recipe: TrainRecipe, path: Path, steps: int = 5) -> dict[str, float]:
    """Write a Chrome trace of some trainer steps, for chrome://tracing or perfetto.dev.

    Returns:
        CPU seconds per step for each part and for the rest. GPU work is asynchronous and only visible in the trace.
    """
    take = way_of(start(recipe))
    warm_up(take, recipe.amortised)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(steps):
            with record_function("fairhuman: step"):
                take()

    def write(partial: Path) -> None:
        with tempfile.TemporaryDirectory(dir=partial.parent) as folder:
            named = Path(folder, path.name)  # torch compresses it where the name ends in .gz
            profiler.export_chrome_trace(str(named))
            named.replace(partial)

    write_atomically(path, write)
    spent = {event.key: event.cpu_time_total / 1e6 / steps for event in profiler.key_averages()}
    parts = {name: spent.get(key, 0.0) for name, key in PARTS.items()}
    return {**parts, "the rest": spent["fairhuman: step"] - sum(parts.values())}


def warm_up(way: Callable[[], StepFacts], amortised: bool) -> float:
    """Take `WARM_UP` steps, for an amortised mode ordinary ones; return the seconds."""
    begun, left = time.perf_counter(), WARM_UP
    for _ in range(LONGEST_WARM_UP):
        if left == 0:
            break
        exact = way().exact
        left -= not (amortised and exact)
    return time.perf_counter() - begun


def timed(way: Callable[[], StepFacts], device: torch.device) -> StepFacts:
    """Take a step, and wait until the device has finished it."""
    _finish(device)
    wall, cpu = time.perf_counter(), time.process_time()
    taken = way()
    _finish(device)
    return taken._replace(wall_s=time.perf_counter() - wall, cpu_s=time.process_time() - cpu)


def with_settings(recipe: TrainRecipe, **values: Any) -> TrainRecipe:
    """Return a recipe with other settings."""
    return config.build(TrainRecipe, config.merge(recipe.model_dump(mode="json"), values))


def start(recipe: TrainRecipe) -> Run:
    """Set up a run that leaves nothing in its folder; as in training, captions to be cached are encoded first."""
    with tempfile.TemporaryDirectory() as folder:
        run = set_up(with_settings(recipe, out=folder, steps=10**9), PartialState(cpu=without_gpu()))
    cache_texts(run)
    return run


def way_of(run: Run, bare: bool = False) -> Callable[[], StepFacts]:
    """Return a function that takes one step of the trainer; `bare`: forward, backward and optimiser alone."""
    return _bare(run) if bare else _trainer(run)


def _trainer(run: Run) -> Callable[[], StepFacts]:
    batches = iter(build_loader(run.recipe, run.data, 0, 1, 0))

    def take() -> StepFacts:
        _, metrics = take_step(run, batches)
        return StepFacts(float(metrics["waiting"] or 0.0), bool(metrics["exact"]))

    return take


def _bare(run: Run) -> Callable[[], StepFacts]:
    batches = iter(build_loader(run.recipe, run.data, 0, 1, 0))
    with run.caches.encoding():
        parts = [_inputs(run, next(batches).to(run.process.device)) for _ in range(run.recipe.accumulate)]
    precision = run.objectives.precision

    def take() -> StepFacts:
        for batch, noisy, target, steps in parts:
            with torch.autocast(noisy.device.type, precision, enabled=precision is not None):
                prediction = run.model.predict(batch, noisy, steps)
            nn.functional.mse_loss(prediction.float(), target).backward()  # type: ignore[no-untyped-call]
        run.optimizer.step()
        run.optimizer.zero_grad(set_to_none=True)
        return StepFacts()

    return take


def _inputs(run: Run, batch: Batch) -> tuple[Batch, Tensor, Tensor, Tensor]:
    """Return a batch with encoded captions, noisy latents, targets and noise levels."""
    base = base_of(run.model.pipeline)
    size = (side // base.factor for side in run.recipe.size)
    noisy, target = torch.randn(2, len(batch.keys), base.channels, *size, device=run.process.device)
    levels_b = base.noising(run.recipe.noise.times).at(0.5).to(noisy.device).expand(len(batch.keys))
    return replace(batch, texts=base.texts(batch.captions)), noisy, target, levels_b


def free_memory(device: torch.device) -> None:
    """Free what is left of earlier runs, whose parts refer to each other, and what torch compiled for them."""
    forget()
    gc.collect()
    if device.type == "cuda":
        torch._dynamo.reset()
        torch.cuda.empty_cache()


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Return minimum, median and maximum."""
    return min(values), statistics.median(values), max(values)
