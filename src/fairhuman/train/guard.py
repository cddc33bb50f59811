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

from fairhuman import recipe as recipes
from fairhuman.errors import RecipeError, TrainingError
from fairhuman.train.memory import cheapest_changes, memory_of
from fairhuman.train.settings import TrainRecipe, free_on_resume


def check_earlier_part(recipe: TrainRecipe, at_step: int) -> None:
    """Check that the run that goes on from a checkpoint is the one that the folder's recipe started.

    Raises:
        RecipeError: a setting that steps depend on differs, or the run has gone further than `steps`; names it.
    """
    path = recipe.out / "recipe.yaml"
    if not path.is_file():
        return
    fixed = () if recipe.schedule.name.startswith("constant") else ("steps",)
    for name, (old, new) in recipes.differences(recipes.load(TrainRecipe, path), recipe).items():
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
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainingError(
                f"{recipe.out}: the disk is full. Free space and run the same command again: it goes on from the last "
                f"complete checkpoint; keep_checkpoints={recipe.keep_checkpoints} can be lowered"
            ) from error
        if error.filename is None:
            raise
        raise TrainingError(f"{error.filename}: {error.strerror}") from error


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
