"""What surrounds a run: one run a folder and one recipe a run, orderly stops, failures explained."""

import errno
import fcntl
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch
import torch.distributed as dist

from fairhuman import recipe as recipes
from fairhuman.errors import RecipeError, TrainingError
from fairhuman.fairness.distributed import world_size
from fairhuman.train.memory import cheapest_changes, memory_of
from fairhuman.train.recipe import TrainRecipe, free_on_resume


def check_earlier_part(recipe: TrainRecipe, at_step: int, samples: int | None, processes: int) -> None:
    """Check that the run that goes on from a checkpoint is the one that the folder's recipe started.

    The number of processes may be another one, and with it `batch_size` and `accumulate`, as long as a step has the
    same samples: then it has them in the same order, and its result is the same up to the rounding of sums.

    Args:
        recipe: what is to be gone on with.
        at_step: of the checkpoint.
        samples: of a step of the earlier part, over all processes; None: not known, then all must be the same.
        processes: now.

    Raises:
        RecipeError: a setting that steps depend on differs, a step would have other samples, or the run has gone
            further than `steps`; names it.
    """
    path = recipe.out / "recipe.yaml"
    if not path.is_file():
        return
    earlier, now = recipes.load(TrainRecipe, path), recipe.samples(processes)
    if samples is not None and samples != now:
        raise RecipeError(
            f"{recipe.out} holds a run of {samples} samples a step, but batch_size {recipe.batch_size} x accumulate "
            f"{recipe.accumulate} x {processes} processes are {now}. Choose batch_size and accumulate so that they are "
            f"{samples}, or another out"
        )
    fixed = () if recipe.schedule.name.startswith("constant") else ("steps",)
    divided = frozenset(("batch_size", "accumulate") if samples is not None else ())
    if recipe.fairness.mode in ("output", "split", "tail") and (earlier.accumulate > 1) != (recipe.accumulate > 1):
        divided -= {"accumulate"}  # another estimator would go on, ema
    for name, (old, new) in recipes.differences(earlier, recipe).items():
        if name in divided:
            continue
        if name in fixed or not free_on_resume(name):
            raise RecipeError(
                f"{recipe.out} holds a run with another {name}: {old!r} there, {new!r} now. "
                "Choose another out, or the same settings to go on"
            )
    if at_step > recipe.steps:
        raise RecipeError(f"steps is {recipe.steps}, but the run in {recipe.out} is at step {at_step} already")


@contextmanager
def signals(stopped: Callable[[], bool], stop: Callable[[int], None]) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a stop after the step; a second one ends at once."""

    def handle(number: int, _frame: object) -> None:
        if stopped():
            raise KeyboardInterrupt
        stop(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def locked(folder: Path, main: bool) -> Iterator[None]:
    """Keep a second run out of the folder; the lock goes with the process, however it ends."""
    if not main:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        _lock(file, folder)
        yield


def _lock(file: IO[str], folder: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise TrainingError(f"{folder}: another run is writing here; wait for it, or choose another out") from error


@contextmanager
def explained(recipe: TrainRecipe) -> Iterator[None]:
    """Turn the failures that every trainer meets into messages that say what to change."""
    try:
        yield
    except FloatingPointError as error:
        other = ", precision=bf16" if recipe.precision == "fp16" else ""
        raise TrainingError(
            f"{error}. Start again with another out and a lower learning_rate (now {recipe.learning_rate}){other}"
        ) from error
    except torch.OutOfMemoryError as error:
        raise TrainingError(_out_of_memory(recipe, device_bytes())) from error
    except RuntimeError as error:
        if world_size() == 1 or not _is_of_another_process(error):
            raise
        raise TrainingError(
            "another process of the run ended, or didn't answer in processes.timeout = "
            f"{recipe.processes.timeout} s ({' '.join(str(error).split())[:200]}); its own message says why. Start the "
            "same command again: it goes on from the last complete checkpoint"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainingError(
                f"{recipe.out}: the disk is full. Free space and run the same command again: it goes on from the last "
                f"complete checkpoint; keep_checkpoints={recipe.keep_checkpoints} can be lowered"
            ) from error
        if error.filename is None:
            raise
        raise TrainingError(f"{error.filename}: {error.strerror}") from error


def _is_of_another_process(error: RuntimeError) -> bool:
    """Whether a collective failed: NCCL's errors have classes, gloo's a text."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def device_bytes() -> int:
    """Memory of the GPU that is used, or of the machine."""
    if torch.cuda.is_available():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _out_of_memory(recipe: TrainRecipe, limit: int) -> str:
    """Say what a run needs, and the cheapest changes with which it fits."""
    needed, fitting = memory_of(recipe).needed, cheapest_changes(recipe, limit)
    changes = "; or ".join(map(str, fitting)) or "none: it needs a larger device, or a lower resolution"
    return (
        f"out of memory: the run needs about {needed / 2**30:.1f} GiB, the device has {limit / 2**30:.1f}, for others "
        f"too. The cheapest changes that fit: {changes}. With another out, if this one holds checkpoints"
    )
