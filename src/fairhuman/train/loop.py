"""The run around the steps: go on where it stopped, train, watch, save.

A step's result depends on the recipe and on the checkpointed state alone (see `step`), so a run that was killed and
started again with the same command ends with the same bits as one that wasn't.
"""

import platform
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from diffusers.training_utils import EMAModel
from torch import nn

from fairhuman import __version__
from fairhuman import recipe as recipes
from fairhuman.data.batch import Batch, collate
from fairhuman.data.report import LoadReport, Note
from fairhuman.errors import DataError
from fairhuman.fairness import FairBackward, FairStep
from fairhuman.fairness.distributed import world_size
from fairhuman.files import write_atomically, write_json
from fairhuman.models import TrainableModel
from fairhuman.randomness import Stream, mixed_seed
from fairhuman.report.overlay import overlay_sheet
from fairhuman.train import setup, sharding
from fairhuman.train.caches import Caches
from fairhuman.train.checkpoint import Checkpoints
from fairhuman.train.guard import check_earlier_part, explained, locked, signals
from fairhuman.train.metrics import Metrics, step_metrics
from fairhuman.train.settings import TrainRecipe
from fairhuman.train.step import Objectives, fair_step
from fairhuman.train.tracking import Tracker
from fairhuman.train.validation import held_out_losses


class Watcher:
    """What wants to know how a run goes, in its main process: a progress bar, previews. Override what matters."""

    def started(self, run: "Run") -> None:
        """The run is set up, at `run.step`."""

    def stepped(self, run: "Run", metrics: Metrics) -> None:
        """A step was taken."""

    def validated(self, run: "Run", losses: dict[str, float | None]) -> None:
        """Held-out losses are known."""

    def noted(self, run: "Run", notes: Sequence[Note]) -> None:
        """Pictures could not be read, and others took their places."""

    def told(self, text: str) -> None:
        """There is something to say about the run's caches."""

    def preview(self, run: "Run") -> None:
        """Time for pictures; averaged weights are in place."""


@dataclass
class Run:
    """All parts of a run, and the step that it is at.

    sharded: networks of which each process has a part; see `sharding`.
    """

    recipe: TrainRecipe
    process: PartialState
    data: setup.Data
    caches: Caches
    model: TrainableModel
    objectives: Objectives
    fair: FairBackward
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler | None
    average: EMAModel | None
    checkpoints: Checkpoints
    watchers: Sequence[Watcher]
    sharded: Sequence[nn.Module] = field(default_factory=list)
    step: int = 0
    stopped_by: int | None = None

    @property
    def main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self.process.is_main_process)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.recipe.steps


def train(recipe: TrainRecipe, watchers: Sequence[Watcher] = ()) -> Run:
    """Train, or go on with a run that was stopped. Returns the run; `finished` is False if a signal stopped it.

    Raises:
        FairHumanError: bad data, model or settings; out of memory or disk; a loss that isn't finite.
    """
    timeout = timedelta(seconds=recipe.processes.timeout)
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU")  # what `accelerate launch --cpu` sets
    process = PartialState(cpu=cpu, timeout=timeout)
    with explained(recipe), locked(recipe.out, bool(process.is_main_process)):
        run = set_up(recipe, process, watchers)
        tracker = (
            Tracker(recipe.out, run.step, recipe.track.wandb, recipe.model_dump(mode="json")) if run.main else None
        )
        try:
            _train(run, tracker)
        finally:
            _tell(run, run.caches.close())
            if tracker is not None:
                tracker.close()
    return run


def _train(run: Run, tracker: Tracker | None) -> None:
    recipe = run.recipe
    processes, rank, started_at = run.process.num_processes, run.process.process_index, run.step
    batches = iter(setup.build_loader(recipe, run.data, run.step, processes, rank))
    if run.main:
        _write_overlay(run)
        for watcher in run.watchers:
            watcher.started(run)
    with signals(lambda: run.stopped_by is not None, lambda number: setattr(run, "stopped_by", number)):
        while True:
            _look(run, tracker)
            if run.finished or run.stopped_by is not None:
                break
            micro, metrics = take_step(run, batches)
            if tracker is not None:
                _note_lost_pictures(run, micro)
                _tell(run, run.caches.news())
                tracker.metrics(run.step, metrics)
                for watcher in run.watchers:
                    watcher.stepped(run, metrics)
            _agree_on_stop(run)
            if run.finished or run.stopped_by is not None or run.step % recipe.checkpoint_every == 0:
                _save_checkpoint(run)
    if run.finished and _main_says(run, run.step > started_at or not recipe.product.exists()):
        _save_product(run)


def take_step(run: Run, batches: Iterator[Batch]) -> tuple[list[Batch], Metrics]:
    """Take one step with the next batches; return these and what it did."""
    started = time.perf_counter()
    micro = [next(batches).to(run.process.device) for _ in range(run.recipe.accumulate)]
    loaded = time.perf_counter()
    step, areas_k = _step(run, micro)
    run.step += 1
    times = (time.perf_counter() - started, loaded - started)
    processes = run.process.num_processes
    return micro, step_metrics(run.step, run.recipe, processes, step, areas_k, micro, run.schedule, times)


def _tell(run: Run, texts: Sequence[str]) -> None:
    for text in texts if run.main else ():
        for watcher in run.watchers:
            watcher.told(text)


def _step(run: Run, micro: Sequence[Batch]) -> tuple[FairStep, torch.Tensor]:
    """Take one optimiser step."""
    recipe = run.recipe
    if recipe.lora.dropout:
        torch.manual_seed(mixed_seed(recipe.seed, Stream.DROPOUT, run.step, run.process.process_index))
    measure = _due(run.step, recipe.fairness.measure_every)
    step, areas_k = fair_step(run.objectives, run.fair, micro, measure)
    if run.scaler is None:
        run.optimizer.step()
    else:
        run.scaler.step(run.optimizer)
        run.scaler.update()
    run.optimizer.zero_grad(set_to_none=True)
    setup.advance(run.schedule)
    if run.average is not None and not step.skipped:
        run.average.step(run.model.trainable_parameters())
    return step, areas_k


def set_up(recipe: TrainRecipe, process: PartialState, watchers: Sequence[Watcher] = ()) -> Run:
    """Build all parts, and put them where the newest checkpoint was."""
    report = LoadReport()
    try:
        data = setup.load_data(recipe, report)
    finally:
        if process.is_main_process:
            report.save(recipe.out / "data_report.json")
    model = setup.build_model(recipe, process.device)
    in_parts = recipe.processes.sharding == "fsdp" and process.num_processes > 1
    sharded = sharding.shard(model, process.device) if in_parts else []
    caches = Caches(recipe, data, model.pipeline)
    strategy = setup.build_strategy(recipe, process.device)
    scaler = torch.amp.GradScaler(process.device.type) if recipe.precision == "fp16" else None
    optimizer = setup.build_optimizer(recipe, model, strategy)
    decay = recipe.ema.decay
    run = Run(
        recipe=recipe,
        process=process,
        data=caches.data,
        caches=caches,
        model=model,
        objectives=Objectives(
            model,
            recipe.regions,
            recipe.noise,
            recipe.seed,
            setup.DTYPES[recipe.precision],
            caches.latents,
            caches.texts,
        ),
        fair=setup.build_fair_backward(recipe, model, strategy, scaler),
        optimizer=optimizer,
        schedule=setup.build_schedule(recipe, optimizer),
        scaler=scaler,
        average=EMAModel(model.trainable_parameters(), decay=decay, use_ema_warmup=True) if decay else None,
        checkpoints=Checkpoints(recipe.out / "checkpoints", recipe.keep_checkpoints),
        watchers=watchers,
        sharded=sharded,
    )
    _resume(run)
    if process.is_main_process:
        recipes.save(recipe, recipe.out / "recipe.yaml")
        write_json(recipe.out / "summary.json", _summary(run))
    return run


def _write_overlay(run: Run) -> None:
    """Show the samples that come next, with their masks at picture resolution and on the latent grid."""
    samples = run.recipe.samples(run.process.num_processes)
    first = run.step * samples
    bucketed = run.recipe.view.bucket_aspect is not None  # then the next step may have another resolution
    count = min(16, samples if bucketed else len(run.data.train))
    pictured = run.data.train.reading(None)
    batch = collate([pictured[first + i] for i in range(count)])
    latent_brhw = run.objectives.masks(batch)[:, 1:]
    names = run.recipe.regions.names
    masks = (batch.masks_brhw, latent_brhw)
    sheet = overlay_sheet(batch.pictures_bchw, *masks, names, batch.captions, batch.known_br, batch.conditions)
    write_atomically(run.recipe.out / "overlay.png", lambda partial: sheet.save(partial, format="PNG"))


def _resume(run: Run) -> None:
    loaded = run.checkpoints.load()
    if loaded is None:
        return
    trainable, state = loaded
    check_earlier_part(run.recipe, state["step"], state.get("samples"), run.process.num_processes)
    if state["data"] != run.data.fingerprint:
        raise DataError(
            f"{run.recipe.data_name}: other records than those the run in {run.recipe.out} was trained on and held out "
            f"(now {len(run.data.train)} and {len(run.data.held_out or ())}), or another mixture of them. Bring them "
            "back, or choose another out"
        )
    run.model.load_trainable_state(trainable)
    run.optimizer.load_state_dict(sharding.spread(state["optimizer"], run.optimizer))
    run.schedule.load_state_dict(state["schedule"])
    run.fair.load_state_dict(state["fair"])
    if run.scaler is not None:
        run.scaler.load_state_dict(state["scaler"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
        run.average.to(run.process.device)
    run.step = state["step"]


def _save_checkpoint(run: Run) -> None:
    if run.sharded or run.main:
        optimizer, trainable = run.optimizer.state_dict(), run.model.trainable_state()
    if run.sharded:
        optimizer, trainable = sharding.joined((optimizer, trainable), run.main)
    if run.main:
        state = {
            "data": run.data.fingerprint,
            "samples": run.recipe.samples(run.process.num_processes),
            "optimizer": optimizer,
            "schedule": run.schedule.state_dict(),
            "fair": run.fair.state_dict(),
            "scaler": run.scaler.state_dict() if run.scaler is not None else None,
            "average": run.average.state_dict() if run.average is not None else None,
        }
        run.checkpoints.save(run.step, trainable, state)
        run.data.report.save(run.recipe.out / "data_report.json")
    run.process.wait_for_everyone()


def _save_product(run: Run) -> None:
    """Write the result, with averaged weights where there are some; its folder appears whole or not at all."""
    state = sharding.joined(run.model.trainable_state(), run.main) if run.sharded else None
    if run.main:
        model = run.model
        if state is not None:
            model = setup.build_model(run.recipe, torch.device("cpu"))  # one that isn't sharded
            model.load_trainable_state(state)
        with _averaged(run):
            write_atomically(run.recipe.product, model.save)
        write_json(run.recipe.out / "summary.json", _summary(run))
    run.process.wait_for_everyone()


def _look(run: Run, tracker: Tracker | None) -> None:
    """Validate and draw previews where it is time to, with averaged weights where there are some.

    Comes after the step's checkpoint, and again if the run was killed meanwhile. A stop doesn't wait for it.
    """
    if run.stopped_by is not None and not run.finished:
        return
    ends = run.step == 0 or run.finished
    validate = run.data.held_out is not None and (ends or _due(run.step, run.recipe.validation.every))
    preview = run.recipe.preview.count > 0 and (ends or _due(run.step, run.recipe.preview.every))
    if validate or preview:
        with sharding.gathered(run.sharded):
            if tracker is not None:
                _measure(run, tracker, validate, preview)
    run.process.wait_for_everyone()


def _measure(run: Run, tracker: Tracker, validate: bool, preview: bool) -> None:
    """Validate and draw, in the main process."""
    done = run.step in tracker.validated
    with _averaged(run):
        if validate and not done:
            _validate(run, tracker)
        for watcher in run.watchers if preview and not (validate and done) else ():
            watcher.preview(run)


def _validate(run: Run, tracker: Tracker) -> None:
    assert run.data.held_out is not None
    timesteps, batch_size = run.recipe.validation.timesteps, max(8, run.recipe.batch_size)
    held_out = held_out_losses(run.objectives, run.data.held_out, timesteps, batch_size, run.process.device)
    losses = held_out.losses()
    tracker.validation(run.step, held_out.line(), losses)
    for watcher in run.watchers:
        watcher.validated(run, losses)


def _note_lost_pictures(run: Run, batches: Sequence[Batch]) -> None:
    """Tell of pictures that could be read before training and can't any more; too many end the run."""
    notes = [note for batch in batches for note in batch.notes]
    if not notes:
        return
    run.data.report.extend(notes)
    for watcher in run.watchers:
        watcher.noted(run, notes)
    lost = {(note.file, note.line) for note in run.data.report.skipped() if note.stage == notes[0].stage}
    limit = run.recipe.source.max_reject_share * len(run.data.train)
    if len(lost) > limit:
        raise DataError(
            f"{len(lost)} of {len(run.data.train)} pictures can't be read any more, more than "
            f"source.max_reject_share = {run.recipe.source.max_reject_share:.0%}; the last: {notes[-1]}"
        )


@contextmanager
def _averaged(run: Run) -> Iterator[None]:
    """Put the moving average in the place of the trained weights for a while."""
    if run.average is None:
        yield
        return
    parameters = run.model.trainable_parameters()
    run.average.store(parameters)
    run.average.copy_to(parameters)
    try:
        yield
    finally:
        run.average.restore(parameters)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _main_says(run: Run, flag: bool) -> bool:
    """Return the main process's `flag` in all; others may see its folder a moment later, or not at all."""
    if world_size() == 1:
        return flag
    told = torch.tensor(int(flag), device=run.process.device)
    dist.broadcast(told, src=0)
    return bool(told)


def _agree_on_stop(run: Run) -> None:
    """Let all processes stop at the same step when one got a signal."""
    if world_size() > 1:
        flag = torch.tensor(run.stopped_by or 0, device=run.process.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        run.stopped_by = int(flag) or None


def _summary(run: Run) -> dict[str, object]:
    return {
        "trained_values": setup.trained_count(run.model.trainable_parameters()),
        "pictures": len(run.data.train),
        "device": str(run.process.device),
        "processes": run.process.num_processes,
        "peak_memory_mib": _peak_memory(run.process.device) // 2**20,
        "machine": {"system": platform.platform(), "processor": platform.machine(), "threads": torch.get_num_threads()},
        "versions": {"fairhuman": __version__, "torch": torch.__version__, "python": platform.python_version()},
    }


def _peak_memory(device: torch.device) -> int:
    """Return the most bytes that were in use so far: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
