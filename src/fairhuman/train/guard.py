"""Guards around a run: a folder lock, and explanations of common failures."""

import errno
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from fairhuman import config
from fairhuman.errors import RecipeError, TrainingError
from fairhuman.fairness.distributed import world_size
from fairhuman.fairness.estimators.estimator import EstimatorError
from fairhuman.train.memory import MemoryChange, cheapest_changes, memory_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import check_resumable_early, checkpoint_folders
from fairhuman.utils.files import alone
from fairhuman.utils.memory import main_memory_bytes
from fairhuman.utils.torch_device import is_out_of_memory, without_gpu


@contextmanager
def locked(folder: Path, main: bool) -> Iterator[None]:
    """Lock the folder against a second run; the system releases the lock when the process ends.

    Meanwhile the lock holds the name of this machine, for others that share the disk and may not see that it is held.
    """
    if not main:
        yield
        return
    lock = folder / ".lock"
    with alone(lock, f"{folder}: another run is writing here", TrainingError):
        lock.write_text(socket.gethostname(), encoding="utf-8")
        try:
            yield
        finally:
            lock.write_text("")


@contextmanager
def explain_failures(recipe: TrainRecipe) -> Iterator[None]:
    """Turn common training failures into messages that say what to change."""
    try:
        yield
    except FloatingPointError as error:
        other = ", precision=bf16" if recipe.precision == "fp16" else ""
        raise TrainingError(
            f"{error}. Start again with another out and a lower learning_rate (now {recipe.learning_rate}){other}"
        ) from error
    except EstimatorError as error:
        raise TrainingError(str(error)) from error
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise TrainingError(_out_of_memory(recipe, device_bytes(), error)) from error
        if world_size() == 1 or not _is_of_another_process(error):
            raise
        raise TrainingError(
            "another process of the run ended, or didn't respond within processes.timeout = "
            f"{recipe.processes.timeout} s ({' '.join(str(error).split())[:200]}); see that process's message. Run the "
            "same command again to resume from the last complete checkpoint"
        ) from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise TrainingError(
                f"{recipe.out}: the disk is full. Free space and run the same command again to resume from the last "
                f"complete checkpoint; keep_checkpoints={recipe.keep_checkpoints} can be lowered"
            ) from error
        if error.filename is None:
            raise
        raise TrainingError(f"{error.filename}: {error.strerror}") from error


def _is_of_another_process(error: RuntimeError) -> bool:
    """Whether a collective failed: NCCL raises its own classes, gloo a RuntimeError with its name."""
    return isinstance(error, dist.DistError) or "gloo" in str(error).lower()


def device_bytes() -> int:
    """Return the memory of the current GPU or, without one, of the machine."""
    if not without_gpu():
        return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)
    return main_memory_bytes()


def _out_of_memory(recipe: TrainRecipe, limit: int, error: RuntimeError) -> str:
    """Return a message with the run's memory needs and the cheapest changes that make it fit.

    It repeats an error of CUDA's libraries, as that of cuDNN can mean something else.
    """
    said = "" if isinstance(error, torch.OutOfMemoryError) else f" ({str(error).splitlines()[0]})"
    needed, fitting = memory_of(recipe).needed, cheapest_changes(recipe, limit)
    changes = "; or ".join(map(str, fitting)) or "none: it needs a larger device, or a lower resolution"
    return (
        f"out of memory{said}: the run needs about {needed / 2**30:.1f} GiB, the device has {limit / 2**30:.1f}, "
        f"shared with other processes. Cheapest changes that fit: {changes}{_where_to_add(recipe, fitting)}"
    )


def _where_to_add(recipe: TrainRecipe, fitting: Sequence[MemoryChange]) -> str:
    """Say which of the changes may not be added to the same command, which resumes where there are checkpoints."""
    if not fitting or not checkpoint_folders(recipe.out / "checkpoints"):
        return ""
    fixed = [" ".join(one.overrides) for one in fitting if not _resumes(recipe, one)]
    if fixed:
        return f". In {recipe.out}, which has checkpoints, {' and '.join(fixed)} can't change: add out=NEW"
    return f". Add it to the same command, which resumes {recipe.out}"


def _resumes(recipe: TrainRecipe, change: MemoryChange) -> bool:
    try:
        return check_resumable_early(config.build(TrainRecipe, recipe.model_dump(mode="json"), change.overrides)) > 0
    except RecipeError:
        return False
