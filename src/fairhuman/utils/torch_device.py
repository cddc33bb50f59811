"""A device by its name, and batches that fit into its memory."""

import gc
import os
import platform
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import torch

from fairhuman.errors import ModelError

Item = TypeVar("Item")
Result = TypeVar("Result")

GROW_AFTER = 32  # batches
_OUT_OF_MEMORY = (  # as CUDA, cuBLAS and cuDNN say it, beside torch's allocator; of cuDNN the last two are mostly that
    "CUDA error: out of memory",
    "CUDA driver error: out of memory",
    "_STATUS_ALLOC_FAILED",
    "unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
)


def without_gpu() -> bool:
    """Whether to train, draw and measure on the CPU: where accelerate is told to, or there is no CUDA device.

    Apple's GPU, which accelerate would take by itself, has no float64, in which losses and Gram matrices are summed.
    """
    from accelerate.utils import parse_flag_from_env

    return parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.cuda.is_available()  # what `launch --cpu` sets


def default_device() -> torch.device:
    """The device to work on where no setting names one: the GPU, or the CPU, see `without_gpu`."""
    return torch.device("cpu" if without_gpu() else "cuda")


def pins_batches() -> bool:
    """Whether batches are put into page-locked memory, which a GPU reads faster: on CUDA, but not under WSL 2.

    There about 0.5 to 1 GiB can be locked, less than the batches of a run may need, and more ends the run.
    """
    return not without_gpu() and "microsoft" not in platform.release().lower()


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them; none where work is done on the CPU."""
    if without_gpu():
        return []
    count = torch.cuda.device_count()
    given = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count))))
    return [one.strip() for one in given.split(",")][:count]


def device_named(setting: str, name: str | None) -> torch.device:
    """The device that a setting names; None: a GPU if there is one.

    Raises:
        ModelError: this machine has no such device; names the setting.
    """
    if name is None:
        return default_device()
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"{setting}: expected a device of this machine, found {name!r}") from error
    return device


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a device has too little memory: torch's own error, or one of CUDA's libraries, which are plain ones."""
    return isinstance(error, torch.OutOfMemoryError) or any(said in str(error) for said in _OUT_OF_MEMORY)


@contextmanager
def explain_out_of_memory(advice: str) -> Iterator[None]:
    """Turn a device's lack of memory into a message of one line that ends with `advice`; also a decorator.

    Raises:
        ModelError: the device has too little memory.
    """
    try:
        yield
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if isinstance(error, torch.OutOfMemoryError):
            first = ". ".join(" ".join(str(error).split()).split(". ")[:3])  # what was asked for, and is on the device
        else:
            first = f"out of memory: {str(error).splitlines()[0]}"
        raise ModelError(f"{first.rstrip('.')}. What helps: {advice}") from error


def free_gpu_memory() -> None:
    """Give back the memory of a GPU that this process holds without using it, for other processes."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


class Halving:
    """Batches of a model, which are halved as long as they don't fit into memory; later ones begin at what fitted.

    After `GROW_AFTER` batches that fitted, twice as many items are tried again: a single large picture may have been
    the reason.
    """

    def __init__(self) -> None:
        self._most, self._fitted = sys.maxsize, 0

    def results(
        self, work: Callable[[Sequence[Item]], list[Result]], items: Sequence[Item], too_large: Callable[[Item], str]
    ) -> list[Result]:
        """Return the results of a batch, in order.

        Raises:
            ModelError: an item doesn't fit by itself; `too_large` says what of it.
        """
        results: list[Result] = []
        while len(results) < len(items):
            part = items[len(results) : len(results) + self._most]
            try:
                results += work(part)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                if len(part) == 1:
                    raise ModelError(too_large(part[0])) from error
                self._most, self._fitted = len(part) // 2, 0
            else:
                self._fitted += 1
                if self._fitted % GROW_AFTER == 0:
                    self._most = min(2 * self._most, sys.maxsize)
                continue
            torch.cuda.empty_cache()  # here, where the error no longer holds what it had
        return results
