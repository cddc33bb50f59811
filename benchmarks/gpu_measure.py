"""How a cell of `gpu.py` is measured, and what memory is predicted for it."""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from fairhuman import config
from fairhuman.bases.base import base_of
from fairhuman.bench.noise import noise_recipe
from fairhuman.bench.speed import StepFacts, free_memory, spread, start, timed, warm_up, way_of
from fairhuman.data.samples.batch import Batch
from fairhuman.models.registry import DTYPES
from fairhuman.train.fairness import build_fair_backward, build_strategy
from fairhuman.train.live_bytes import bytes_of
from fairhuman.train.loop import train
from fairhuman.train.memory import memory_of, shape_of
from fairhuman.train.model import make_trainable, prepare
from fairhuman.train.optimizer import build_optimizer
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import AUDITS
from fairhuman.train.step import Objectives, fair_step
from fairhuman.utils.memory import peak_resident_bytes
from gpu_cells import SMALL, TRUE, Cell, Kind
from peak_memory import peak_allocated_bytes
from true_size import save_sdxl, with_weights

PICTURES = 4  # all are in the caches after as many steps, which is the warm-up of LS
ROUNDS = {False: 10, True: 1}  # timed steps, by whether the model is small
RUN_STEPS = {False: 20, True: 2}  # of a whole run: more than the exact ones at its start


@dataclass(frozen=True, slots=True)
class Task:
    """A cell with all that a process needs to measure it. `recipe`: as JSON."""

    kind: Kind
    recipe: Mapping[str, Any]
    device: str
    small: bool


@dataclass(frozen=True, slots=True)
class Building:
    """A pipeline's folder to be written."""

    folder: Path
    device: str
    small: bool


def task_of(cell: Cell, work: Path, model: Path, device: str, small: bool) -> Task:
    """Write the noise that a cell trains on, and return what a process needs."""
    settings = [f"model={model}", *(SMALL if small else TRUE), *cell.settings]
    recipe = noise_recipe(work / "noise", settings, fill_caches=False, pictures=PICTURES)
    return Task(cell.kind, recipe.model_dump(mode="json"), device, small)


def expected_of(task: Task) -> dict[str, int]:
    """Return the bytes that `fairhuman bench --memory` predicts, by name as in `measure`."""
    recipe = config.build(TrainRecipe, dict(task.recipe))
    memory = memory_of(recipe)
    if task.kind == "run":
        return {"run": memory.on_cpu if task.device == "cpu" else memory.total, "device": memory.needed}
    resting = memory.resting or 0
    if task.kind == "steps" and task.device != "cpu":
        resting += memory.vae or 0
    encode = memory.encode if task.kind == "shape" or not recipe.cache.latents else 0
    on_device = memory.frozen + memory.trained + memory.optimizer
    found = {"live": on_device - (resting if task.kind == "shape" or task.device != "cpu" else 0)}
    found["step"] = max(memory.step, memory.update, encode)
    return found if memory.audit is None else found | {"audit": max(memory.audit, memory.update, encode)}


def measure(task: Task | Building) -> dict[str, Any]:
    """Measure a cell, or write a pipeline's folder; what needs more memory than there is is a result too."""
    device = PartialState(cpu=task.device == "cpu").device
    if isinstance(task, Building):
        begun = time.perf_counter()
        save_sdxl(task.folder, torch.bfloat16, device, "small" if task.small else "sdxl")
        return {"seconds": time.perf_counter() - begun}
    recipe = config.build(TrainRecipe, dict(task.recipe))
    _forget(device)
    try:
        return _KINDS[task.kind](recipe, device, task.small)
    except Exception as error:
        if not _is_out_of_memory(error):
            raise
        return {"out_of_memory": str(error).partition("\n")[0], "bytes": {"peak": torch.cuda.max_memory_allocated()}}
    finally:
        _forget(device)


def _forget(device: torch.device) -> None:
    free_memory(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _is_out_of_memory(error: BaseException | None) -> bool:
    return error is not None and (isinstance(error, torch.OutOfMemoryError) or _is_out_of_memory(error.__cause__))


def _steps(recipe: TrainRecipe, device: torch.device, small: bool, *, bare: bool = False) -> dict[str, Any]:
    """Measure steps of the trainer, or of a bare loop."""
    begun = time.perf_counter()
    run = start(recipe)
    loaded = time.perf_counter() - begun
    meter = Meter(way_of(run, bare), device, peaks=not bare)  # a bare loop's networks aren't those of a run
    return {"load_s": loaded, **_measured(meter, recipe, ROUNDS[small], lambda: _held(run.model, run.optimizer))}


class Meter:
    """Takes steps and keeps what they took, without the first ones.

    Those make the optimizer's state and fill the cache of latents.
    """

    def __init__(self, way: Callable[[], StepFacts], device: torch.device, peaks: bool = True) -> None:
        self.device, self.peaks = device, peaks
        self.taken: list[tuple[StepFacts, int]] = []
        self._way, self._first = way, PICTURES

    def __call__(self) -> StepFacts:
        """Take a step."""
        facts: list[StepFacts] = []

        def take() -> None:
            facts.append(timed(self._way, self.device))

        self._first -= 1
        if self._first >= 0:
            take()
        elif self.peaks:
            peak = _peak_of(take, self.device)
            self.taken.append((facts[0], peak))
        else:
            take()
            self.taken.append((facts[0], 0))
        return facts[0]


def _measured(
    meter: Meter, recipe: TrainRecipe, rounds: int, tensors: Callable[[], Iterator[torch.Tensor]]
) -> dict[str, Any]:
    """Warm up and take `rounds` steps; return times, and bytes: at rest, and the peaks of ordinary and exact steps.

    Steps that an amortised mode takes exactly are audits. `tensors` yields what is held at rest, on a CPU.
    """
    warm_up_s = warm_up(meter, recipe.amortised)
    for _ in range(rounds):
        meter()
    timed_steps = [facts for facts, _ in meter.taken[-rounds:]]
    audits = [(facts, peak) for facts, peak in meter.taken if recipe.amortised and facts.exact]
    ordinary = [peak for facts, peak in meter.taken if not (recipe.amortised and facts.exact)]
    found: dict[str, Any] = {
        "images_per_s": spread([recipe.batch_size / facts.wall_s for facts in timed_steps]),
        "step_s": spread([facts.wall_s for facts in timed_steps]),
        "waiting": spread([facts.waiting for facts in timed_steps]),
        "exact": sum(facts.exact for facts in timed_steps) / rounds,
        "warm_up_s": warm_up_s,
    }
    if audits:
        found["exact_s"] = spread([facts.wall_s for facts, _ in audits])
        every = AUDITS[recipe.fairness.mode]
        found["with_audits_s"] = found["step_s"][1] + (found["exact_s"][1] - found["step_s"][1]) / every
    if meter.peaks:
        on_gpu = meter.device.type == "cuda"
        held = torch.cuda.memory_allocated(meter.device) if on_gpu else bytes_of(tensors())
        peaks = {"step": max(ordinary, default=0), "audit": max((peak for _, peak in audits), default=0)}
        found["bytes"] = {"live": held, **{name: peak for name, peak in peaks.items() if peak}}
        if on_gpu:
            found["reserved_bytes"] = torch.cuda.max_memory_reserved(meter.device)
    return found


def _peak_of(call: Callable[[], object], device: torch.device) -> int:
    """Return the peak of the bytes allocated in a call, beyond those before it."""
    if device.type == "cpu":
        return peak_allocated_bytes(call)
    torch.cuda.synchronize(device)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return torch.cuda.max_memory_allocated(device) - before


def _held(model: Any, optimizer: torch.optim.Optimizer) -> Iterator[torch.Tensor]:
    """Yield the weights of all networks, and the optimizer's state."""
    parts = [part for part in model.pipeline.components.values() if isinstance(part, torch.nn.Module)]
    control = getattr(model, "control", None)
    for part in parts if control is None else [*parts, control.network]:
        yield from (p for p in part.parameters() if p.device.type != "meta")
    for values in optimizer.state.values():
        yield from (tensor for tensor in values.values() if torch.is_tensor(tensor) and tensor.numel() > 1)


def _run(recipe: TrainRecipe, device: torch.device, small: bool) -> dict[str, Any]:
    """Train, with empty caches; measure the peak of the whole run, and what the device holds for it."""
    with tempfile.TemporaryDirectory(dir=recipe.out.parents[1]) as folder:  # the work folder, which has the disk
        own = {"out": folder, "steps": RUN_STEPS[small], "cache": {"folder": f"{folder}/cache"}}
        begun = time.perf_counter()
        train(config.build(TrainRecipe, config.merge(recipe.model_dump(mode="json"), own)))
        seconds = time.perf_counter() - begun
    if device.type == "cpu":
        return {"seconds": seconds, "bytes": {"run": peak_resident_bytes()}}
    free, total = torch.cuda.mem_get_info(device)
    context = total - free - torch.cuda.memory_reserved(device)  # and what other processes hold
    peaks = {"run": torch.cuda.max_memory_allocated(device)}
    return {"seconds": seconds, "bytes": peaks | {"device": context + torch.cuda.max_memory_reserved(device)}}


def _shape(recipe: TrainRecipe, device: torch.device, small: bool) -> dict[str, Any]:
    """Measure steps of a base in shape alone: network and VAE have random weights, captions random embeddings."""
    begun = time.perf_counter()
    dtype = DTYPES[recipe.precision] or torch.float32
    pipeline = shape_of(recipe.model)
    base = base_of(pipeline)
    for name, own in ((base.part, dtype), ("vae", torch.float32)):
        pipeline.register_modules(**{name: with_weights(getattr(pipeline, name), device, own)})
    model = make_trainable(recipe, pipeline, prepare(recipe, pipeline))
    strategy = build_strategy(recipe, device)
    fair, optimizer = build_fair_backward(recipe, model, strategy, None), build_optimizer(recipe, model, strategy)
    objectives = Objectives(model, recipe.regions, recipe.noise, recipe.seed, DTYPES[recipe.precision])
    batch = _random_batch(recipe, objectives.base.text_shapes(base.network.config)).to(device)
    loaded = time.perf_counter() - begun

    def take() -> StepFacts:
        step, _ = fair_step(objectives, fair, [batch])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return StepFacts(exact=step.exact)

    return {"load_s": loaded, **_measured(Meter(take, device), recipe, ROUNDS[small], lambda: _held(model, optimizer))}


def _random_batch(recipe: TrainRecipe, text_shapes: Mapping[str, Sequence[int]]) -> Batch:
    """Return noise with a face and a hand in each picture, and random embeddings of captions of full length."""
    count, (height, width) = recipe.batch_size, recipe.size
    masks = torch.zeros(count, len(recipe.regions.names), height, width)
    for number in range(masks.shape[1]):
        masks[:, number, : height // 2, number * width // 4 : (number + 1) * width // 4] = 1.0
    known = torch.ones(masks.shape[:2], dtype=torch.bool)
    texts = [{name: torch.randn(*shape) for name, shape in text_shapes.items()} for _ in range(count)]
    pictures, ids = torch.rand(count, 3, height, width) * 2 - 1, torch.zeros(count, 6)
    keys, positions = [str(number) for number in range(count)], torch.arange(count)
    return Batch(pictures, masks, known, [""] * count, ids, keys, [], positions, texts=texts)


def _bare(recipe: TrainRecipe, device: torch.device, small: bool) -> dict[str, Any]:
    return _steps(recipe, device, small, bare=True)


_KINDS: Mapping[str, Callable[[TrainRecipe, torch.device, bool], dict[str, Any]]] = {
    "bare": _bare,
    "steps": _steps,
    "run": _run,
    "shape": _shape,
}
