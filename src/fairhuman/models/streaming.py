"""Weights that stay in main memory: each is brought to the GPU for one product, the next one during the product before.

A GPU has two buffers, each as large as the largest group of weights so far. While a product uses one, a second stream
fills the other with the group that followed the last time; a wrong guess costs the wait for one copy. Which group
follows depends on the last two, since with gradient checkpointing a block's layers run forwards and then backwards.

After Rajbhandari et al., "ZeRO-Infinity: Breaking the GPU Memory Wall for Extreme Scale Deep Learning", SC 2021.
"""

import mmap
import warnings
import weakref
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from fairhuman.utils.torch_device import without_gpu

Group = tuple[Tensor, ...]
ALIGNED = 256  # bytes; what CUDA's own allocations are aligned to


def brought(weights: Group, device: torch.device) -> Group:
    """Return weights on `device`; on a GPU they are whole until the second next call for it, on the same stream."""
    if device.type != "cuda":
        return tuple(weight.to(device) for weight in weights)
    if device not in _COURIERS:
        _COURIERS[device] = _Courier(device)
    return _COURIERS[device].bring(weights)


def pinned(weight: Tensor) -> Tensor:
    """Return a copy that a GPU reads without the CPU's help, if there is a GPU; else the weight itself.

    After a copy that can't be pinned, no further one is tried until `forget`. `pin_memory` isn't used, as it rounds
    each size up to a power of two.
    """
    if without_gpu() or weight.device.type != "cpu" or not weight.nbytes:
        return weight
    copy = _shared_copy(weight)  # what is read from a file may be a map of it, which can't be pinned
    if _REFUSED:
        return copy
    runtime: Any = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    try:
        torch.cuda.check_error(runtime.cudaHostRegister(copy.data_ptr(), copy.nbytes, 0))
    except torch.cuda.CudaError as error:
        _REFUSED.append(str(error))
        warnings.warn(f"base.offload: main memory can't be pinned ({error}); each step takes longer", stacklevel=2)
        with suppress(RuntimeError):  # CUDA keeps the error, and the next kernel would raise it
            torch.empty(1, device="cuda").fill_(0)
    else:
        weakref.finalize(copy, runtime.cudaHostUnregister, copy.data_ptr()).atexit = False
    return copy


def _shared_copy(weight: Tensor) -> Tensor:
    """Return a copy that forked processes share: Linux copies other memory at each fork if a GPU has it pinned."""
    return torch.frombuffer(mmap.mmap(-1, weight.nbytes), dtype=weight.dtype).view(weight.shape).copy_(weight)


def forget() -> None:
    """Forget all weights that were brought, and free the buffers, so that the memory of a deleted model is free."""
    for device in _COURIERS:
        torch.cuda.synchronize(device)  # a copy may still be under way
    _COURIERS.clear()
    _REFUSED.clear()


@dataclass(slots=True)
class _Buffer:
    """Memory on the GPU.

    Attributes:
        group: what it holds or is being filled with.
        filled: when the copy is complete.
        left: when the product that used it is complete.
    """

    data: Tensor
    group: Group = ()
    filled: torch.cuda.Event = field(default_factory=lambda: torch.cuda.Event())  # type: ignore[no-untyped-call]
    left: torch.cuda.Event = field(default_factory=lambda: torch.cuda.Event())  # type: ignore[no-untyped-call]


class _Courier:
    """The buffers and the order of one GPU. What it has brought lives until `forget`."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._used, self._other = (_Buffer(torch.empty(0, dtype=torch.uint8, device=device)) for _ in range(2))
        self._followed: dict[tuple[int, int], Group] = {}
        self._last: tuple[Group, Group] = (), ()

    def bring(self, weights: Group) -> Group:
        now = torch.cuda.current_stream(self._stream.device)
        self._used.left.record(now)
        if self._used.group is not weights:
            self._used, self._other = self._other, self._used
            if self._used.group is not weights:
                self._fill(self._used, weights)
        now.wait_event(self._used.filled)
        self._foresee(weights)
        return _views(self._used.data, weights)

    def _foresee(self, weights: Group) -> None:
        """Note what followed, and begin to copy what should follow now."""
        before, last = self._last
        self._followed[id(before), id(last)] = weights
        self._last = last, weights
        following = self._followed.get((id(last), id(weights)), weights)
        if following is not weights and self._other.group is not following:
            self._fill(self._other, following)

    def _fill(self, buffer: _Buffer, weights: Group) -> None:
        """Copy weights into a buffer on the second stream, once the product that used it is complete."""
        if buffer.data.nbytes < (size := sum(map(_room, weights))):
            torch.cuda.synchronize(self._stream.device)
            buffer.data = torch.empty(size, dtype=torch.uint8, device=self._stream.device)
        buffer.group = weights
        with torch.cuda.stream(self._stream), torch.no_grad():
            self._stream.wait_event(buffer.left)
            for view, weight in zip(_views(buffer.data, weights), weights, strict=True):
                view.copy_(weight, non_blocking=True)
            buffer.filled.record(self._stream)


_COURIERS: dict[torch.device, _Courier] = {}
_REFUSED: list[str] = []  # why main memory couldn't be pinned


def _room(weight: Tensor) -> int:
    return -(-weight.nbytes // ALIGNED) * ALIGNED


def _views(data: Tensor, weights: Sequence[Tensor]) -> Group:
    """Return parts of a buffer with the types and shapes of weights."""
    starts = [0]
    for weight in weights:
        starts.append(starts[-1] + _room(weight))
    parts = zip(starts, weights, strict=False)
    return tuple(data[start : start + one.nbytes].view(one.dtype).view(one.shape) for start, one in parts)
