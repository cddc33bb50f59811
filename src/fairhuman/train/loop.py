"""The training loop: steps, evaluation, checkpoints, stopping.

A step's result depends only on the recipe and the checkpointed state (see `step`), so a run that was killed and resumed
ends with the same bits as an uninterrupted one; on a GPU, whose attention sums in any order, up to rounding.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, nullcontext, suppress
from datetime import timedelta

import torch
import torch.distributed as dist
from accelerate import PartialState
from accelerate.utils import gather_object
from torch.profiler import record_function
from torch.utils.data import Subset

from fairhuman.data.samples.batch import Batch, collate
from fairhuman.data.samples.sampler import BucketOrder, Order
from fairhuman.errors import DataError
from fairhuman.fairness import FairStep
from fairhuman.fairness.distributed import sum_over_processes, world_size
from fairhuman.regions.settings import GLOBAL
from fairhuman.report.overlay import overlay_sheet
from fairhuman.report.text import percent
from fairhuman.train import sharding
from fairhuman.train.cache.fill import encoded, views_to_come
from fairhuman.train.cache.plan import captions
from fairhuman.train.captions import cut_captions
from fairhuman.train.data import build_loader
from fairhuman.train.guard import explain_failures, locked
from fairhuman.train.metrics import Metrics, floor_metrics, step_metrics
from fairhuman.train.optimizer import advance
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import (
    STOP,
    Run,
    StoppedError,
    Watcher,
    averaged_weights,
    peak_memory,
    save_checkpoint,
    save_product,
    set_up,
)
from fairhuman.train.step import PARTS, fair_step
from fairhuman.train.tracking import Tracker
from fairhuman.train.validation import held_out_losses
from fairhuman.utils.files import leaving_nothing, write_atomically
from fairhuman.utils.randomness import Stream, mixed_seed
from fairhuman.utils.signals import signals
from fairhuman.utils.torch_device import without_gpu


def train(recipe: TrainRecipe, watchers: Sequence[Watcher] = ()) -> Run:
    """Train, or resume a stopped run. Return the run; `finished` is False if a signal stopped it.

    Raises:
        FairHumanError: invalid data, model or settings; out of memory; disk full; non-finite loss.
    """
    timeout = timedelta(seconds=recipe.processes.timeout)
    process = PartialState(cpu=without_gpu(), timeout=timeout)
    main = bool(process.is_main_process)
    begun = leaving_nothing(recipe.out, ".lock", "data_report.json") if main else nullcontext()
    with explain_failures(recipe), begun, locked(recipe.out, main):
        if main:
            (recipe.out / STOP).unlink(missing_ok=True)  # asked of a process that has ended
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
    saved = run.step
    batches = iter(build_loader(recipe, run.data, run.step, processes, rank))
    _tell(run, [*run.checkpoints.notes, *recipe.short_of_its_rate])
    if run.main:
        _tell(run, cut_captions(run.objectives.base, captions(recipe, run.data)))
        _write_overlay(run)
        for watcher in run.watchers:
            watcher.on_start(run)
    ending = "Ending after this step" if run.main else ""
    with signals(lambda: run.stopped_by is not None, lambda number: setattr(run, "stopped_by", number), ending):
        cache_texts(run)
        if run.process.device.type != "cpu":  # there the steps of the first epoch do it, as nothing has to make room
            cache_latents(run)
        while True:
            _steer_if_due(run)
            _evaluate_if_due(run, tracker)
            if run.stopped_by is not None and run.step > saved:  # the signal came while previews were drawn
                _tell_saving(run)
                save_checkpoint(run)
            if run.finished or run.stopped_by is not None:
                break
            micro, metrics = take_step(run, batches)
            _note_lost_pictures(run, micro)
            if tracker is not None:
                _tell(run, run.caches.new_messages())
                tracker.metrics(run.step, metrics)
                for watcher in run.watchers:
                    watcher.on_step(run, metrics)
            _agree_on_stop(run)
            if run.finished or run.stopped_by is not None or run.step % recipe.checkpoint_every == 0:
                _tell_saving(run)
                save_checkpoint(run)
                saved = run.step
    # the main process decides: others may not see its folder, or only later
    if run.finished and _from_main(run, run.step > started_at or not recipe.product.exists() or _has_other_files(run)):
        save_product(run)


def _has_other_files(run: Run) -> bool:
    """Whether settings of the LoRA's files, such as `lora.title`, have changed since the last step was taken."""
    starts = [start for start in run.starts if start["step"] == run.step]
    return any(name.startswith("lora.") for start in starts for name in start["changed"])


def take_step(run: Run, batches: Iterator[Batch]) -> tuple[list[Batch], Metrics]:
    """Take one step with the next batches; return the batches and the step's metrics."""
    started = time.perf_counter()
    with record_function(PARTS["loading"]):
        micro = [next(batches).to(run.process.device) for _ in range(run.recipe.accumulate)]
    loaded = time.perf_counter()
    rate = float(run.schedule.get_last_lr()[0])  # of this step: `_step` advances the schedule
    step, areas_k = _step(run, micro)
    run.step += 1
    times = (time.perf_counter() - started, loaded - started)
    processes = run.process.num_processes
    cells = run.recipe.samples(processes) * micro[0].masks_brhw.shape[-2:].numel() / run.objectives.base.factor**2
    metrics = step_metrics(run.step, run.recipe, processes, step, areas_k / cells, micro, rate, times)
    metrics |= floor_metrics(run.fair.strategy, step, run.steering)
    return micro, metrics | {"peak_memory_mib": peak_memory(run.process.device) // 2**20}


def _tell(run: Run, texts: Sequence[str]) -> None:
    for text in texts if run.main else ():
        for watcher in run.watchers:
            watcher.on_message(text)


def _tell_saving(run: Run) -> None:
    """Say what takes the seconds after a signal."""
    if run.stopped_by is not None and not run.finished:
        _tell(run, [f"step {run.step} is done; saving a checkpoint and writing the report"])


def cache_texts(run: Run) -> None:
    """Encode the captions that aren't cached yet, and what watchers ask for, while the trained network rests.

    Then the text encoders rest: unless the cache can't hold all texts. A signal ends the encoding between two captions.
    """
    texts = run.caches.texts
    if texts is None or run.finished:
        return
    everything = captions(run.recipe, run.data)
    new = texts.missing(everything[run.process.process_index :: run.process.num_processes])
    watchers = run.watchers if run.main else ()
    with run.caches.encoding() if new else nullcontext():
        for done, caption in enumerate(new, start=1):
            if run.stopped_by is not None or texts.kept.full:
                break
            texts.texts([caption])
            for watcher in watchers:
                watcher.on_texts(run, done, len(new))
        for watcher in watchers if run.stopped_by is None else ():
            watcher.on_texts_cached(run)
    texts.kept.flush()
    _agree_on_stop(run)  # and waits for the captions of the other processes
    if texts.missing(everything):
        texts.encoders.wake()


def cache_latents(run: Run) -> None:
    """Encode the views of all steps to come that aren't cached yet, while the trained network rests; then the VAE does.

    What the cache can't hold is encoded in steps. A signal ends the encoding between two pictures.
    """
    latents, recipe = run.caches.latents, run.recipe
    if latents is None or run.finished:
        return
    processes, rank = run.process.num_processes, run.process.process_index
    samples = recipe.samples(processes)
    items = views_to_come(run.data, range(run.step * samples, recipe.steps * samples))
    mine = Subset(items, range(rank, len(items), processes))
    with closing(encoded(mine, run.caches, recipe)) as views:
        for done, _ in enumerate(views, start=1):
            for watcher in run.watchers if run.main else ():
                watcher.on_latents(run, done, len(mine))
            if run.stopped_by is not None or latents.kept.full:
                break
    latents.vae.rest()
    latents.kept.flush()
    _agree_on_stop(run)


def _step(run: Run, micro: Sequence[Batch]) -> tuple[FairStep, torch.Tensor]:
    """Take one optimiser step."""
    recipe = run.recipe
    if recipe.lora.dropout:
        torch.manual_seed(mixed_seed(recipe.seed, Stream.DROPOUT, run.step, run.process.process_index))
    measure = _due(run.step, recipe.fairness.measure_every)
    step, areas_k = fair_step(run.objectives, run.fair, micro, measure)
    with record_function(PARTS["optimizer"]):
        if run.scaler is None:
            run.optimizer.step()
        elif any(parameter.grad is not None for parameter in run.fair.parameters):  # without one, the scaler fails
            run.scaler.step(run.optimizer)
            run.scaler.update()
        run.optimizer.zero_grad(set_to_none=True)
        advance(run.schedule)
    if run.average is not None and not step.skipped:
        run.average.step(run.model.trainable_parameters())
    return step, areas_k


def _write_overlay(run: Run) -> None:
    """Write `overlay.png`: the first samples with their masks at picture resolution and on the latent grid.

    A run that goes on keeps the one that it began with.
    """
    if run.step and (run.recipe.out / "overlay.png").is_file():
        return
    samples = run.recipe.samples(run.process.num_processes)
    pictured = run.data.train.reading(None)
    drawn = [pictured[position] for position in _shown_positions(pictured.order, run.step, samples)]
    batches = [collate([sample]) for sample in drawn]
    names = run.recipe.regions.names
    ignored = [batch.ignored_bhw[0] for batch in batches if batch.ignored_bhw is not None]
    sheet = overlay_sheet(
        [batch.pictures_bchw[0] for batch in batches],
        [batch.masks_brhw[0] for batch in batches],
        [run.objectives.masks(batch)[0, 1:] for batch in batches],
        names,
        ["(caption dropped: view.caption_dropout)" if one.caption_dropped else one.caption for one in drawn],
        torch.cat([batch.known_br for batch in batches]),
        {name: [batch.conditions[name][0] for batch in batches] for name in batches[0].conditions},
        ignored or None,
        {name: run.data.coverage.whole(name) for name in names},
    )
    write_atomically(run.recipe.out / "overlay.png", lambda partial: sheet.save(partial, format="PNG"))


def _shown_positions(order: Order, step: int, samples: int, most: int = 16) -> list[int]:
    """Return up to `most` positions of the next steps, of a record each.

    The samples of a step have one resolution, so that with buckets several steps give some.
    """
    each = -(-most // len(order.resolutions)) if isinstance(order, BucketOrder) else most
    found: dict[int, int] = {}
    for later in range(step, step + 4 * most):
        new: dict[int, int] = {}
        for position in range(later * samples, (later + 1) * samples):
            if len(new) < each and order.index(position) not in found:
                new.setdefault(order.index(position), position)
        found |= new
    return list(found.values())[:most]


def _steer_if_due(run: Run) -> None:
    """Measure the whole picture's held-out loss if due, and set the floor of the next steps.

    Runs after the step's checkpoint, and again if the run was killed or stopped meanwhile: with the same result.
    """
    if run.steering is None or not (run.finished or _due(run.step, run.recipe.steer.every)):
        return
    loss = 0.0
    with sharding.gathered(run.sharded):
        if run.main:
            loss = _steering_loss(run)
    run.steering.update(_from_main(run, loss))
    _tell(run, [run.steering.line()] if run.finished else [])


def _steering_loss(run: Run) -> float:
    assert run.data.steering is not None
    timesteps, batch_size = run.recipe.validation.timesteps, run.recipe.batch_size
    with averaged_weights(run):
        held_out = held_out_losses(run.objectives, run.data.steering, timesteps, batch_size, run.process.device)
    loss = held_out.losses()[GLOBAL]
    assert loss is not None, "every picture has the whole picture"
    return loss


def _evaluate_if_due(run: Run, tracker: Tracker | None) -> None:
    """Validate and draw previews if due, with the averaged weights if there are any.

    Runs after the step's checkpoint, and again if the run was killed or stopped meanwhile. Skipped when the run is
    stopping; a signal meanwhile stops all processes.
    """
    if run.stopped_by is not None and not run.finished:
        return
    ends = run.step == 0 or run.finished
    validate = run.data.held_out is not None and (ends or _due(run.step, run.recipe.validation.every))
    previews = run.recipe.preview
    turn = previews.at_start if run.step == 0 else run.finished or _due(run.step, previews.every)
    preview = turn and (previews.count > 0 or bool(previews.prompts))
    if validate or preview:
        with sharding.gathered(run.sharded):
            if tracker is not None:
                _measure(run, tracker, validate, preview)
        run.process.wait_for_everyone()
        _agree_on_stop(run)


def _measure(run: Run, tracker: Tracker, validate: bool, preview: bool) -> None:
    """Validate and draw previews, in the main process."""
    with averaged_weights(run):
        if validate and run.step not in tracker.validated:
            with suppress(StoppedError):
                _validate(run, tracker)
        if preview and run.stopped_by is None:
            for watcher in run.watchers:
                watcher.on_preview(run)


def _validate(run: Run, tracker: Tracker) -> None:
    assert run.data.held_out is not None
    timesteps, batch_size = run.recipe.validation.timesteps, run.recipe.batch_size
    device, stop = run.process.device, (lambda: None) if run.stopped_by is not None else run.check_stop
    held_out = held_out_losses(run.objectives, run.data.held_out, timesteps, batch_size, device, stop)
    losses = held_out.losses()
    tracker.validation(run.step, {**held_out.line(), "records": run.data.contents["held-out"]}, losses)
    for watcher in run.watchers:
        watcher.on_validation(run, losses)


def _note_lost_pictures(run: Run, batches: Sequence[Batch]) -> None:
    """Report once what is found in pictures, in any process; all raise if too many have become unreadable."""
    notes = [note for batch in batches for note in batch.notes if note not in run.noted]
    if not sum_over_processes(torch.tensor([float(len(notes))]), run.process.device):
        return
    notes = gather_object(notes)
    run.noted.update(notes)
    new = run.data.report.add_new(notes)
    for watcher in run.watchers if run.main and new else ():
        watcher.on_data_notes(run, new)
    lost = {(note.file, note.line) for note in run.noted if note.action == "skipped"}
    limit = run.recipe.source.max_reject_share * len(run.data.train)
    if len(lost) > limit:
        raise DataError(
            f"{len(lost)} of {len(run.data.train)} pictures have become unreadable, more than "
            f"source.max_reject_share = {percent(run.recipe.source.max_reject_share)}; the last one: {notes[-1]}"
        )


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _from_main(run: Run, value: float) -> float:
    """Return the main process's `value` in all processes."""
    mine = torch.tensor([value if run.main else 0.0], dtype=torch.float64)
    return float(sum_over_processes(mine, run.process.device))


def _agree_on_stop(run: Run) -> None:
    """Stop all processes at the same step when one received a signal, or a file asks for it."""
    run.check_stop_file()
    if world_size() > 1:
        flag = torch.tensor(run.stopped_by or 0, device=run.process.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        run.stopped_by = int(flag) or None
