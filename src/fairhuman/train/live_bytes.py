"""Measure the memory of tensor operations without allocating it: only shapes are computed."""

import weakref
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the sizes of all storages that operations create, while they are referenced.

    live, peak: current and maximum bytes of storages created in this mode; `known` tensors are not counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._storages = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count the storages of its outputs."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._take_in(leaf.untyped_storage())
        self.peak = max(self.peak, self.live)
        return out

    def _take_in(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages.add(key)
            self.live += size
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._storages.remove(key)
        self.live -= size


@contextmanager
def fake_tensors(*modules: nn.Module) -> Iterator[None]:
    """Create tensors with shape and dtype but no memory; weights of `modules` on `meta` are replaced by such tensors.

    They report the CPU as their device, so that autocast and attention behave as on a real device.
    """
    with FakeTensorMode():
        for module in (part for whole in modules for part in whole.modules()):
            for name, old in module._parameters.items():
                if old is not None:
                    new = torch.empty(old.shape, dtype=old.dtype)
                    module._parameters[name] = nn.Parameter(new, requires_grad=old.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
        yield


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the total size of tensors in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
