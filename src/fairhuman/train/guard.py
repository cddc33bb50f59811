"""What surrounds a run: one run a folder and one recipe a run, orderly stops, failures explained."""

import errno
import fcntl
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import torch

from fairhuman import recipe as recipes
from fairhuman.errors import RecipeError, TrainingError
from fairhuman.train.settings import FREE_ON_RESUME, TrainRecipe


def agree_with_earlier_part(recipe: TrainRecipe, main: bool) -> None:
    """Write the resolved recipe, or check that the run in the folder was started with the same one."""
    path = recipe.out / "recipe.yaml"
    if path.is_file():
        before = recipes.load(TrainRecipe, path)
        for name, (old, new) in recipes.differences(before, recipe).items():
            if not any(name == free or (free.endswith(".") and name.startswith(free)) for free in FREE_ON_RESUME):
                raise RecipeError(
                    f"{recipe.out} holds a run with another {name}: {old!r} there, {new!r} now. "
                    "Choose another out, or the same settings to go on"
                )
    if main:
        recipe.out.mkdir(parents=True, exist_ok=True)
        recipes.save(recipe, path)


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
        raise TrainingError(
            f"{error}. Lower learning_rate ({recipe.learning_rate}) or use precision=bf16 (now {recipe.precision}); "
            "the last checkpoint is unharmed"
        ) from error
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"out of memory at batch_size={recipe.batch_size}, resolution={recipe.resolution}, "
            f"precision={recipe.precision}. In this order: gradient_checkpointing=true, precision=bf16, batch_size=1 "
            f"with accumulate={recipe.batch_size * recipe.accumulate}, optimizer.name=adamw8bit, a smaller lora.rank"
        ) from error
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TrainingError(
            f"{recipe.out}: the disk is full. Free space and run the same command again: it goes on from the last "
            f"complete checkpoint; keep_checkpoints={recipe.keep_checkpoints} can be lowered"
        ) from error
