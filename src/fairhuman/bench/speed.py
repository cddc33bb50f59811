"""The trainer's steps against a bare loop over tensors that are in memory already, in turn, in one process."""

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
from fairhuman.data.samples.batch import Batch
from fairhuman.models.sdxl import encode_prompts, vae_factor
from fairhuman.train.data import build_loader
from fairhuman.train.loop import take_step
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run, set_up
from fairhuman.train.step import PARTS

BARE = "bare loop"
WARM_UP = 4  # steps such as will be timed: what is made once is made
LONGEST_WARM_UP = 64  # steps: an amortised mode takes exact ones first


@dataclass(frozen=True, slots=True)
class Speed:
    """Minimum, median and maximum over rounds.

    Attributes:
        name: of the way.
        images_per_s: pictures a second.
        ratio: of its speed to the bare loop's of the same round, in CPU time on a CPU, else in wall-clock time.
        waiting: share of a step that data was waited for; of the bare loop none.
        exact: share of the rounds that took all K gradients.
        warm_up_s: what the steps before took, compiling among it.
    """

    name: str
    images_per_s: tuple[float, float, float]
    ratio: tuple[float, float, float]
    waiting: tuple[float, float, float]
    exact: float
    warm_up_s: float


class StepFacts(NamedTuple):
    """What a step says of itself."""

    waiting: float = 0.0
    exact: bool = False


def measure_speed(recipe: TrainRecipe, rounds: int, modes: Sequence[str]) -> list[Speed]:
    """Take a step of each way in turn, `rounds` times after warming up.

    The bare loop is the model's forward pass, one loss, backward and optimiser; no data, no VAE, no text encoders.
    The others are whole steps of the trainer: the plain sum (LS), and the recipe's strategy in each of `modes`. An
    amortised mode is measured in its ordinary steps; its audits come on top, one in `every`.

    Args:
        recipe: of the run; nothing is written.
        rounds: that count.
        modes: of fairness.
    """
    trained = {BARE: recipe, "LS": _with(recipe, strategy="ls")}
    for mode in modes:
        trained[f"{recipe.strategy}, {mode}"] = _with(recipe, fairness={"mode": mode, "every": 10**6})
    ways = {name: (_bare if name == BARE else _trainer)(_run(one)) for name, one in trained.items()}
    device = PartialState().device
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    took: dict[str, list[StepFacts]] = {name: [] for name in ways}
    warm_up_s = {name: _warm_up(way, trained[name].amortised) for name, way in ways.items()}
    for _ in range(rounds):
        for name, way in ways.items():
            _finish(device)
            wall, cpu = time.perf_counter(), time.process_time()
            taken = way()
            _finish(device)
            seconds[name].append((time.perf_counter() - wall, time.process_time() - cpu))
            took[name].append(taken)
    clock = 1 if device.type == "cpu" else 0
    images = recipe.batch_size * recipe.accumulate
    return [
        Speed(
            name,
            _spread([images / wall for wall, _ in seconds[name]]),
            _spread([bare[clock] / ours[clock] for bare, ours in zip(seconds[BARE], seconds[name], strict=True)]),
            _spread([taken.waiting for taken in took[name]]),
            statistics.mean(taken.exact for taken in took[name]),
            warm_up_s[name],
        )
        for name in ways
    ]


def available_modes(recipe: TrainRecipe) -> tuple[str, ...]:
    """Return the modes of fairness that a run like this can have."""
    tail = recipe.control is None and not recipe.fairness.pairwise
    split = tail and recipe.kind == "lora" and recipe.lora.targets == "attention" and not recipe.compile
    return ("exact", "output", *(["split"] if split else []), *(["tail"] if tail else []))


def trace(recipe: TrainRecipe, path: Path, steps: int = 5) -> dict[str, float]:
    """Write a Chrome trace of some steps of the trainer, which chrome://tracing and perfetto.dev show.

    Returns:
        Seconds of a step in each of its parts, and in all the rest. A GPU works on while the CPU is further, so there
        only the trace tells; these are the CPU's.
    """
    take = _trainer(_run(recipe))
    _warm_up(take, recipe.amortised)
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if torch.cuda.is_available() else [])]
    with profile(activities=activities, record_shapes=True) as profiler:
        for _ in range(steps):
            with record_function("fairhuman: step"):
                take()
    profiler.export_chrome_trace(str(path))
    spent = {event.key: event.cpu_time_total / 1e6 / steps for event in profiler.key_averages()}
    parts = {name: spent.get(key, 0.0) for name, key in PARTS.items()}
    return {**parts, "the rest": spent["fairhuman: step"] - sum(parts.values())}


def _warm_up(way: Callable[[], StepFacts], amortised: bool) -> float:
    """Take `WARM_UP` steps; of an amortised mode ordinary ones. Return seconds."""
    start, left = time.perf_counter(), WARM_UP
    for _ in range(LONGEST_WARM_UP):
        if left == 0:
            break
        exact = way().exact
        left -= not (amortised and exact)
    return time.perf_counter() - start


def _with(recipe: TrainRecipe, **values: Any) -> TrainRecipe:
    return config.build(TrainRecipe, config.merge(recipe.model_dump(mode="json"), values))


def _run(recipe: TrainRecipe) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        return set_up(_with(recipe, out=folder, steps=10**9), PartialState())


def _trainer(run: Run) -> Callable[[], StepFacts]:
    """A step as the loop takes it."""
    batches = iter(build_loader(run.recipe, run.data, 0, 1, 0))

    def take() -> StepFacts:
        _, metrics = take_step(run, batches)
        return StepFacts(float(metrics["waiting"] or 0.0), bool(metrics["exact"]))

    return take


def _bare(run: Run) -> Callable[[], StepFacts]:
    """Forward, backward and optimiser alone."""
    batches = iter(build_loader(run.recipe, run.data, 0, 1, 0))
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
    """A batch whose captions are encoded already, latents, what to predict, and timesteps."""
    vae = run.model.pipeline.vae
    size = (side // vae_factor(vae) for side in run.recipe.size)
    noisy, target = torch.randn(2, len(batch.keys), vae.config.latent_channels, *size, device=run.process.device)
    with torch.no_grad():
        batch = replace(batch, text=encode_prompts(run.model.pipeline, batch.captions))
    return batch, noisy, target, torch.full((len(batch.keys),), 500, device=noisy.device)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _spread(values: Sequence[float]) -> tuple[float, float, float]:
    return min(values), statistics.median(values), max(values)
