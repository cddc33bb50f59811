"""What surrounds a run: one run a folder, failures explained."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
import torch.distributed as dist

from fairhuman.errors import TrainingError
from fairhuman.fairness.distributed import world_size
from fairhuman.fairness.estimators.estimator import EstimatorError
from fairhuman.train.memory import cheapest_changes, memory_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import alone


@contextmanager
def locked(folder: Path, main: bool) -> Iterator[None]:
    """Keep a second run out of the folder; the lock goes with the process, however it ends."""
    if not main:
        yield
        return
    with alone(folder / ".lock", f"{folder}: another run is writing here", TrainingError):
        yield


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
    except EstimatorError as error:
        raise TrainingError(str(error)) from error
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
