"""A run: build its parts from a recipe, restore the newest checkpoint, save checkpoints and the result."""

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import PartialState
from diffusers.training_utils import EMAModel
from torch import nn

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport, Note
from fairhuman.data.sources import source_kind
from fairhuman.errors import DataError, ModelError
from fairhuman.fairness import FairBackward
from fairhuman.models.fingerprint import base_fingerprint
from fairhuman.models.model import TrainableModel
from fairhuman.models.registry import DTYPES
from fairhuman.report.run_folder import read_json
from fairhuman.report.text import listed
from fairhuman.train import sharding
from fairhuman.train.cache.plan import Caches
from fairhuman.train.checkpoint import Checkpoints
from fairhuman.train.data import RunData, load_data
from fairhuman.train.fairness import build_fair_backward, build_strategy
from fairhuman.train.metrics import Metrics
from fairhuman.train.model import build_model, networks_of_step
from fairhuman.train.optimizer import build_optimizer, build_schedule, restore_schedule
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import check_resumable, checkpoint_folders, note_start
from fairhuman.train.steering import Steering
from fairhuman.train.step import Objectives
from fairhuman.train.views import view_lines
from fairhuman.utils.files import write_atomically, write_json
from fairhuman.utils.memory import peak_resident_bytes
from fairhuman.utils.provenance import origin

STOP = "stop"  # a file in the run's folder that asks the run to save and end, as a signal does


class Watcher:
    """Callbacks of a run, in its main process, for progress bars, previews and the like. All do nothing by default."""

    def on_start(self, run: "Run") -> None:
        """The run is set up; `run.step` is its first step."""

    def on_texts(self, run: "Run", done: int, total: int) -> None:
        """Of `total` captions that this process caches before the first step, `done` are."""

    def on_latents(self, run: "Run", done: int, total: int) -> None:
        """Of `total` pictures whose latents this process caches before the first step, on a GPU, `done` are."""

    def on_texts_cached(self, run: "Run") -> None:
        """All captions are cached, and the text encoders about to leave a GPU: the time to encode other texts."""

    def on_step(self, run: "Run", metrics: Metrics) -> None:
        """A step was taken."""

    def on_validation(self, run: "Run", losses: dict[str, float | None]) -> None:
        """Held-out losses were computed."""

    def on_data_notes(self, run: "Run", notes: Sequence[Note]) -> None:
        """Pictures could not be read and were replaced by others, or some of theirs was left out; each note once."""

    def on_message(self, text: str) -> None:
        """A message about the run's checkpoints or caches."""

    def on_preview(self, run: "Run") -> None:
        """Previews are due; the averaged weights are in place."""


class StoppedError(Exception):
    """A signal came."""


@dataclass
class Run:
    """All parts of a run and its current step.

    sharded: the sharded networks; see `sharding`.
    stopped_by: the signal that requested a stop; None: none.
    starts: when the run was started and resumed; see `note_start`.
    steering: None if the run isn't steered.
    other_records: the records whose content differs from that at the checkpoint; see `RunData.contents`.
    noted: what this process has found in pictures since its start, and the others with it; the same in all of them.
    """

    recipe: TrainRecipe
    process: PartialState
    data: RunData
    caches: Caches
    model: TrainableModel
    objectives: Objectives
    fair: FairBackward
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler | None
    average: EMAModel | None
    checkpoints: Checkpoints
    watchers: Sequence[Watcher]
    sharded: Sequence[nn.Module] = field(default_factory=list)
    step: int = 0
    stopped_by: int | None = None
    starts: Sequence[dict[str, Any]] = ()
    steering: Steering | None = None
    other_records: Sequence[str] = ()
    noted: set[Note] = field(default_factory=set)

    @property
    def main(self) -> bool:
        """Whether this is the main process, which writes all files."""
        return bool(self.process.is_main_process)

    def check_stop_file(self) -> None:
        """Follow a request to stop that another program, such as the studio, left as a file in the run's folder."""
        file = self.recipe.out / STOP
        if self.main and self.stopped_by is None and file.exists():
            self.stopped_by = signal.SIGTERM
            file.unlink(missing_ok=True)

    @property
    def finished(self) -> bool:
        """Whether all steps are done."""
        return self.step >= self.recipe.steps

    def check_stop(self) -> None:
        """End what can be done again when the run goes on, such as a validation.

        Raises:
            StoppedError: a signal, or a file in the run's folder, has requested a stop.
        """
        self.check_stop_file()
        if self.stopped_by is not None:
            raise StoppedError


def set_up(recipe: TrainRecipe, process: PartialState, watchers: Sequence[Watcher] = ()) -> Run:
    """Build all parts and restore the newest checkpoint that isn't damaged."""
    strategy = build_strategy(recipe, process.device)  # first: a wrong option or package shouldn't cost a model's load
    report = LoadReport()
    try:
        data = load_data(recipe, report)
    finally:
        if process.is_main_process:
            report.add_new(_notes_before(recipe))
            report.save(recipe.out / "data_report.json")
    model = build_model(recipe, process.device)
    in_parts = recipe.processes.sharding == "fsdp" and process.num_processes > 1
    sharded = sharding.shard(model, process.device) if in_parts else []
    # shards can't be moved
    caches = Caches(recipe, data, model.pipeline, process.device, [] if sharded else networks_of_step(model))
    scaler = torch.amp.GradScaler(process.device.type) if recipe.precision == "fp16" else None
    optimizer = build_optimizer(recipe, model, strategy)
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
            DTYPES[recipe.precision],
            caches.latents,
            caches.texts,
            recipe.objectives.bands or 1,
        ),
        fair=build_fair_backward(recipe, model, strategy, scaler),
        optimizer=optimizer,
        schedule=build_schedule(recipe, optimizer),
        scaler=scaler,
        average=EMAModel(model.trainable_parameters(), decay=decay, use_ema_warmup=True) if decay else None,
        checkpoints=Checkpoints(recipe.out / "checkpoints", recipe.keep_checkpoints),
        watchers=watchers,
        sharded=sharded,
        steering=Steering.of(recipe, strategy),
    )
    _resume(run)
    if process.is_main_process:
        run.starts = note_start(recipe, run.step, run.other_records)
        config.save(recipe, recipe.out / "recipe.yaml")
        write_json(recipe.out / "summary.json", _summary(run))
    return run


def _notes_before(recipe: TrainRecipe) -> list[Note]:
    """Return the notes of the steps before a resume, from the run's report; none if it can't be read."""
    notes = read_json(recipe.out / "data_report.json").get("notes", ())
    with suppress(LookupError, TypeError):
        if checkpoint_folders(recipe.out / "checkpoints"):
            return [Note(**entry) for entry in notes if entry["stage"] == "train"]
    return []


def _resume(run: Run) -> None:
    loaded = run.checkpoints.load()
    if loaded is None:
        return
    trainable, state = loaded
    check_resumable(run.recipe, state["step"], state.get("samples"), run.process.num_processes)
    base = base_fingerprint(run.recipe.model, run.recipe.base)
    if None not in (base, state.get("base")) and state["base"] != base:
        raise ModelError(
            f"model {run.recipe.model!r}: its weights, or those of base.vae, differ from those that the run in "
            f"{run.recipe.out} began with. Restore them, or choose another out"
        )
    if state["data"] != run.data.fingerprint:
        raise DataError(_other_data(run, state.get("records")))
    run.other_records = [
        name for name, digest in state.get("contents", {}).items() if run.data.contents.get(name, digest) != digest
    ]
    if run.other_records:
        run.checkpoints.notes.append(_other_contents(run))
    run.model.load_trainable_state(trainable)
    run.optimizer.load_state_dict(sharding.scatter_state(state["optimizer"], run.optimizer))
    restore_schedule(run.schedule, state["schedule"])
    run.fair.load_state_dict(state["fair"])
    if run.scaler is not None:
        run.scaler.load_state_dict(state["scaler"])
    if run.average is not None:
        run.average.load_state_dict(state["average"])
        run.average.to(run.process.device)
    if run.steering is not None:
        run.steering.load_state_dict(state["steering"])
    run.step = state["step"]


def _other_data(run: Run, before: Sequence[int] | None) -> str:
    """That the data differs from the run's, with numbers of records trained on and held out."""
    then = "" if before is None else f"{' + '.join(map(str, before))} there, "
    now = " + ".join(map(str, _records(run)))
    trainers = {"kohya", "onetrainer", "ai_toolkit", "diffusion_pipe"}
    foreign = run.recipe.source.format is None and any(source_kind(s.path) in trainers for s in run.recipe.sources)
    hint = "; folders such as 10_name, and masks beside photos, were read as plain photos before: source.format=folder "
    return (
        f"{run.recipe.data_name}: the training or held-out records, or their mixture, differ from those of the run in "
        f"{run.recipe.out} ({then}{now} now, trained on + held out). Restore them, or choose another out"
        + (f"{hint}does so" if foreign else "")
    )


def _other_contents(run: Run) -> str:
    """That records say something else than before; an earlier version didn't note what they said."""
    measured = "; held-out losses from before are not compared with later ones"
    floor = "; steer.at_most still refers to the loss before the first step"
    return (
        f"warning: sizes, captions, boxes or masks of the {listed(run.other_records)} records differ from those up to "
        f"the checkpoint; the run goes on with what they are now{measured if 'held-out' in run.other_records else ''}"
        f"{floor if run.steering is not None and run.other_records != ['training'] else ''}"
    )


def _records(run: Run) -> list[int]:
    return [len(run.data.train), len(run.data.held_out or ())]


def save_checkpoint(run: Run) -> None:
    """Write a checkpoint: everything that resuming needs."""
    if run.sharded or run.main:
        optimizer, trainable = run.optimizer.state_dict(), run.model.trainable_state()
    if run.sharded:
        optimizer, trainable = sharding.gather_state((optimizer, trainable), run.main)
    if run.main:
        state = {
            "data": run.data.fingerprint,
            "records": _records(run),
            "contents": run.data.contents,
            "base": base_fingerprint(run.recipe.model, run.recipe.base),
            "samples": run.recipe.samples(run.process.num_processes),
            "optimizer": optimizer,
            "schedule": run.schedule.state_dict(),
            "fair": run.fair.state_dict(),
            "scaler": run.scaler.state_dict() if run.scaler is not None else None,
            "average": run.average.state_dict() if run.average is not None else None,
            "steering": run.steering.state_dict() if run.steering is not None else None,
        }
        run.checkpoints.save(run.step, trainable, state)
        run.data.report.save(run.recipe.out / "data_report.json")
    run.process.wait_for_everyone()


def save_product(run: Run) -> None:
    """Write the result atomically, with the averaged weights if there are any."""
    state = sharding.gather_state(run.model.trainable_state(), run.main) if run.sharded else None
    if run.main:
        model = run.model
        if state is not None:
            model = build_model(run.recipe, torch.device("cpu"))  # an unsharded copy
            model.load_trainable_state(state)
        with averaged_weights(run):
            write_atomically(run.recipe.product, model.save)
        write_json(run.recipe.out / "summary.json", _summary(run))
    run.process.wait_for_everyone()


@contextmanager
def averaged_weights(run: Run) -> Iterator[None]:
    """Replace the trained weights by their moving average inside the block."""
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


def _summary(run: Run) -> dict[str, object]:
    return {
        "trained_values": sum(parameter.numel() for parameter in run.model.trainable_parameters()),
        "pictures": len(run.data.train),
        "data_lines": [*run.data.lines(), *view_lines(run.recipe, run.data.train, run.data.coverage)],
        "cropped_share": run.data.cropped_share,
        "device": str(run.process.device),
        "processes": run.process.num_processes,
        "peak_memory_mib": peak_memory(run.process.device) // 2**20,
        "starts": list(run.starts),
        **origin(),
    }


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: of the GPU or, on a CPU, of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return peak_resident_bytes()
