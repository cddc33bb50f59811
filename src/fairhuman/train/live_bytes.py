"""Measure the memory of tensor operations without allocating it: only shapes are computed."""

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sums the sizes of all storages that operations create, while they are referenced.

    live, peak: current and maximum bytes of storages created in this mode; `known` tensors are not counted.
    """

    def __init__(self, known: Iterable[Tensor] = ()) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = 0
        self._storages = {_storage(tensor)._cdata for tensor in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and count the storages of its outputs."""
        out = func(*args, **(kwargs or {}))
        _map(Tensor, self._take_in, out)
        self.peak = max(self.peak, self.live)
        return out

    def _take_in(self, tensor: Tensor) -> None:
        storage = _storage(tensor)
        key, size = storage._cdata, storage.nbytes()
        if key not in self._storages:
            self._storages.add(key)
            self.live += size
            weakref.finalize(storage, self._gone, key, size)

    def _gone(self, key: int, size: int) -> None:
        self._storages.remove(key)
        self.live -= size


def _storage(tensor: Tensor) -> torch.UntypedStorage:
    return (tensor.meta if isinstance(tensor, FakeTensor) else tensor).untyped_storage()


class FakeTensor(Tensor):
    """A tensor with shape and dtype but no memory, that reports the CPU as its device.

    So autocast and attention choose their operations as on a real device. `meta` is the same tensor on PyTorch's meta
    device, on which the operations run. PyTorch's own `FakeTensor` checks more and takes three times as long.
    """

    meta: Tensor

    @staticmethod
    def __new__(cls, meta: Tensor) -> "FakeTensor":
        """Wrap a tensor of the meta device."""
        fake: FakeTensor = Tensor._make_wrapper_subclass(
            cls,
            meta.size(),
            strides=meta.stride(),
            storage_offset=meta.storage_offset(),
            dtype=meta.dtype,
            layout=meta.layout,
            device=torch.device("cpu"),
        )
        fake.meta = meta
        return fake

    __torch_function__ = torch._C._disabled_torch_function_impl  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        """Run an operation outside of `fake_tensors`."""
        return _run(func, args, kwargs or {})


class _FakeTensors(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs every operation on fake tensors; those that create tensors create fake ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Layout(NamedTuple):
    """What a tensor has besides its values."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


# By operation and arguments, with a layout for each tensor: the layouts of what it returns.
_KNOWN: dict[tuple[Any, ...], Any] = {}


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Run an operation on the meta tensors, or answer from `_KNOWN`."""
    fakes: dict[int, FakeTensor] = {}

    def inside(tensor: Tensor) -> Tensor:
        fake = tensor if isinstance(tensor, FakeTensor) else FakeTensor(tensor.to("meta"))
        fakes[id(fake.meta)] = fake
        return fake.meta

    def outside(tensor: Tensor) -> FakeTensor:
        changed = fakes.get(id(tensor))  # by an operation in place
        return FakeTensor(tensor) if changed is None else changed

    args, kwargs = _map(Tensor, inside, (args, kwargs))
    if "device" in kwargs or not fakes:
        kwargs["device"] = torch.device("meta")
    if not _creates(func):
        return _map(Tensor, outside, func(*args, **kwargs))
    key = (func, _key((*args, *kwargs.items())))
    if key not in _KNOWN:
        out, given = func(*args, **kwargs), {_storage(fake)._cdata for fake in fakes.values()}
        shared: list[bool] = []
        _map(Tensor, lambda tensor: shared.append(tensor.untyped_storage()._cdata in given), out)
        if any(shared):  # a view, though its schema doesn't say so: `_unsafe_view`
            return _map(Tensor, outside, out)
        _KNOWN[key] = _map(Tensor, _layout, out)
    return _map(_Layout, _fake, _KNOWN[key])


@cache
def _creates(func: Any) -> bool:
    """Whether by its schema an operation changes no argument, and what it returns shares no memory with any."""
    return not any(part.alias_info for part in (*func._schema.arguments, *func._schema.returns))


def _key(value: Any) -> Any:
    """What tells arguments apart; of a number also its type, as 1 and 1.0 give other dtypes."""
    if isinstance(value, tuple):
        return tuple(map(_key, value))
    return _layout(value) if isinstance(value, Tensor) else (type(value), value)


def _layout(tensor: Tensor) -> _Layout:
    return _Layout(tensor.size(), tensor.stride(), tensor.dtype)


def _fake(layout: _Layout) -> FakeTensor:
    return FakeTensor(torch.empty_strided(layout.size, layout.stride, dtype=layout.dtype, device="meta"))


def _map(kind: type, function: Callable[[Any], Any], value: Any) -> Any:
    """Replace all objects of `kind` in nested sequences, which become tuples, and mappings."""
    if isinstance(value, kind):
        return function(value)
    if isinstance(value, tuple | list):
        return tuple(_map(kind, function, part) for part in value)
    if isinstance(value, dict):
        return {name: _map(kind, function, part) for name, part in value.items()}
    return value


@contextmanager
def fake_tensors(*modules: nn.Module) -> Iterator[None]:
    """Create tensors with shape and dtype but no memory; weights of `modules` on `meta` are such tensors meanwhile."""
    before: list[tuple[dict[str, Any], dict[str, Any]]] = []
    for module in (part for whole in modules for part in whole.modules()):
        before += [(held, held.copy()) for held in (module._parameters, module._buffers)]
        for name, old in module._parameters.items():
            if old is not None:
                new = FakeTensor(torch.empty_like(old, device="meta"))
                module._parameters[name] = nn.Parameter(new, requires_grad=old.requires_grad)
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = FakeTensor(torch.empty_like(buffer, device="meta"))
    try:
        with _FakeTensors():  # type: ignore[no-untyped-call]
            yield
    finally:
        for held, tensors in before:
            held.update(tensors)


def bytes_of(tensors: Iterable[Tensor]) -> int:
    """Return the total size of tensors in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
