"""Weights in main memory: products are those of an ordinary layer, and the device has nothing but the rest."""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from fairhuman.bases.base import base_of
from fairhuman.errors import FairHumanError
from fairhuman.generate.lora import load_lora
from fairhuman.generate.run import SampleJob
from fairhuman.generate.settings import SampleSettings
from fairhuman.models import streaming
from fairhuman.models.architecture import build_small
from fairhuman.models.frozen_linear import FrozenLinear
from fairhuman.models.lora import LoraModel
from fairhuman.models.merge import MergeJob
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import BaseSettings, LoraSettings

META = torch.device("meta")


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_product_and_gradients_are_those_of_an_ordinary_layer(dtype: torch.dtype | None) -> None:
    plain = nn.Linear(96, 160, dtype=dtype).requires_grad_(False)
    away = FrozenLinear(plain, "none", offloaded=True)
    x = torch.randn(2, 5, 96, requires_grad=True)
    results = []
    with torch.autocast("cpu", dtype, enabled=dtype is not None):
        for layer in (plain, away):
            y = layer(x)
            losses = torch.stack([y.float().square().sum(), y.float().sum(), y[0].float().cos().sum()])
            together = torch.autograd.grad(losses, x, torch.eye(3), is_grads_batched=True, retain_graph=True)[0]
            results += [y, together, *(torch.autograd.grad(loss, x, retain_graph=True)[0] for loss in losses)]
    assert y.dtype == (dtype or torch.float32)
    for ours, expected in zip(results[5:], results[:5], strict=True):
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("kind", ["none", "int8", "nf4"])
def test_a_layer_moves_without_what_is_offloaded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's meta device, which autocast doesn't know, stands for a GPU."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda _: False)
    layer = FrozenLinear(nn.Linear(64, 32, dtype=torch.bfloat16).requires_grad_(False), kind, offloaded=True)
    weight = layer.weight
    layer.to(META)
    assert layer.weight is weight
    assert (layer.weight.device.type, layer.scale.device.type, layer.bias.device.type) == ("cpu", "cpu", "meta")
    assert layer(torch.empty(3, 64, device=META)).device == META
    assert "offloaded=True" in str(layer)


def test_a_lora_runs_beside_it(tmp_path: Path) -> None:
    """Fused into a weight, it would be missing from the one that is brought."""
    lora = LoraModel(build_small(), LoraSettings(rank=2), 0)
    with torch.no_grad():
        for parameter in lora.trainable_parameters():
            parameter.fill_(0.02)
    lora.save(tmp_path)
    predictions = []
    for offload in (False, True):
        pipeline = load_pipeline("small", base=BaseSettings(offload=offload))
        load_lora(pipeline, tmp_path)
        base, noisy = base_of(pipeline), torch.ones(1, 4, 8, 8)
        with torch.no_grad():
            predictions.append(base.predict(noisy, torch.tensor([400]), base.texts(["a hat"])))
    assert torch.allclose(*predictions, atol=1e-5)
    assert pipeline.get_list_adapters()
    with pytest.raises(FairHumanError, match="can't be fused into a quantised network or an offloaded one"):
        load_lora(pipeline, tmp_path, fuse=True)
    job = SampleJob(
        tmp_path, ["a hat"], SampleSettings(), "small", tmp_path, precision="fp32", base=BaseSettings(offload=True)
    )
    assert not job.fused
    assert replace(job, base=BaseSettings()).fused


def test_a_merge_has_no_use_for_it(tmp_path: Path) -> None:
    job = MergeJob("small", tmp_path, tmp_path / "merged", base=BaseSettings(offload=True))
    with pytest.raises(FairHumanError, match=r"base\.offload: a LoRA is merged in main memory"):
        job.check()


class Event:
    """What a stream has to wait for: how far another one was."""

    def __init__(self) -> None:
        self.time = 0

    def record(self, stream: "Stream") -> None:
        self.time = stream.time


class Stream:
    """A stream that counts what it was given to do, and waits for events."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.time = device, 0

    def wait_event(self, event: Event) -> None:
        self.time = max(self.time, event.time)


@pytest.fixture
def courier(monkeypatch: pytest.MonkeyPatch) -> streaming._Courier:
    """A courier on a CPU whose streams are pretended; copies are made at once."""
    now = Stream(torch.device("cpu"))

    @contextmanager
    def inside(_: Stream) -> Iterator[None]:
        yield

    pretended = SimpleNamespace(
        **{"Event": Event, "Stream": Stream, "stream": inside, "synchronize": lambda _: None},
        current_stream=lambda _: now,
    )
    monkeypatch.setattr(torch, "cuda", pretended)
    return streaming._Courier(torch.device("cpu"))


def test_the_next_weights_are_brought_before_they_are_needed(
    courier: streaming._Courier, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two blocks of three layers by checkpointing: all forwards, then each block forwards and backwards."""
    groups: list[tuple[Tensor, Tensor]] = [
        (torch.full((4, 5 + n), float(n), dtype=torch.bfloat16), torch.full((n,), n, dtype=torch.int8))
        for n in range(6)
    ]
    step = [0, 1, 2, 3, 4, 5, 3, 4, 5, 5, 4, 3, 0, 1, 2, 2, 1, 0]
    copied: list[list[int]] = []
    fill = streaming._Courier._fill

    def counted(self: streaming._Courier, buffer: streaming._Buffer, weights: streaming.Group) -> None:
        number = next(n for n, group in enumerate(groups) if group is weights)
        copied[-1].append(number)
        fill(self, buffer, weights)

    monkeypatch.setattr(streaming._Courier, "_fill", counted)
    waited = []
    for _ in range(3):
        waits = 0
        for number in step:
            copied.append([])
            for found, expected in zip(courier.bring(groups[number]), groups[number], strict=True):
                assert found.dtype == expected.dtype
                assert torch.equal(found, expected)
            waits += number in copied[-1]
        waited.append(waits)
    # The first step knows nothing. Later, after each block's last layer the next block may follow, or the same layer.
    assert waited[0] > 6
    assert waited[1:] == [2, 2]
    assert courier._used.data.nbytes + courier._other.data.nbytes <= 4 * streaming.ALIGNED


@pytest.mark.usefixtures("courier")  # for its pretended streams
def test_weights_of_an_earlier_model_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(streaming, "_COURIERS", {cpu: streaming._Courier(cpu)})
    groups = [(torch.ones(3),), (torch.ones(4),)]
    for group in groups:
        streaming._COURIERS[cpu].bring(group)
    ends = [weakref.ref(weight) for (weight,) in groups]
    del group, groups
    assert any(end() is not None for end in ends)
    streaming.forget()
    assert [end() for end in ends] == [None, None]


class Runtime:
    """CUDA's runtime, which pins only so many copies, and keeps the error of one that it can't."""

    def __init__(self, most: int) -> None:
        self.most, self.tried, self.kept_error = most, 0, False
        self.pinned: set[int] = set()

    def cudaHostRegister(self, pointer: int, _bytes: int, _flags: int) -> int:  # noqa: N802 - CUDA's name
        self.tried += 1
        if len(self.pinned) == self.most:
            self.kept_error = True
            return 2
        self.pinned.add(pointer)
        return 0

    def cudaHostUnregister(self, pointer: int) -> int:  # noqa: N802 - CUDA's name
        self.pinned.remove(pointer)
        return 0

    def launch(self, *_: Any, **__: Any) -> Tensor:
        """A kernel."""
        error, self.kept_error = self.kept_error, False
        if error:
            raise RuntimeError("CUDA error: out of memory")
        return torch.zeros(1)


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch) -> Runtime:
    made = Runtime(most=2)

    def check_error(code: int) -> None:
        if code:
            raise torch.cuda.CudaError(code)

    class CudaError(RuntimeError):
        """As torch.cuda has it, without its own look-up of the code."""

    pretended = SimpleNamespace(
        cudart=lambda: made, is_available=lambda: True, CudaError=CudaError, check_error=check_error
    )
    monkeypatch.setattr(torch, "cuda", pretended)
    monkeypatch.setattr(streaming, "_REFUSED", [])
    monkeypatch.setattr(torch, "empty", made.launch)
    return made


def test_a_copy_that_cannot_be_pinned_spoils_no_later_kernel(runtime: Runtime) -> None:
    weights = [torch.full((8,), float(n)) for n in range(5)]
    with pytest.warns(UserWarning, match=r"base\.offload: main memory can't be pinned") as warned:
        copies = [streaming.pinned(weight) for weight in weights]
    assert (len(warned), runtime.tried, len(runtime.pinned)) == (1, 3, 2)
    assert not runtime.kept_error
    assert all(torch.equal(copy, weight) for copy, weight in zip(copies, weights, strict=True))


def test_a_copy_is_unpinned_before_its_memory_is_freed(runtime: Runtime) -> None:
    copy = streaming.pinned(torch.ones(8))
    assert runtime.pinned == {copy.data_ptr()}
    del copy
    assert not runtime.pinned


@pytest.mark.parametrize("dtype", [torch.int8, torch.bfloat16])
def test_a_copy_is_shared_with_forked_processes(runtime: Runtime, dtype: torch.dtype) -> None:
    """Those that load pictures: each would have a pinned copy of its own."""
    weight = torch.arange(6).reshape(2, 3).to(dtype)
    copy = streaming.pinned(weight)
    assert runtime.pinned == {copy.data_ptr()}
    assert (copy.dtype, copy.tolist()) == (dtype, weight.tolist())
    child = os.fork()
    if not child:
        copy[0, 0] = 7
        os._exit(0)
    os.waitpid(child, 0)
    assert copy[0, 0] == 7
    assert weight[0, 0] == 0
