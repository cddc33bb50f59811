"""The device that work is done on."""

import platform
import re
from types import SimpleNamespace

import pytest
import torch

from fairhuman.errors import ModelError
from fairhuman.train import loop
from fairhuman.utils.torch_device import (
    GROW_AFTER,
    Halving,
    explain_out_of_memory,
    free_gpu_memory,
    is_out_of_memory,
    pins_batches,
    visible_gpus,
    without_gpu,
)


@pytest.mark.parametrize(
    ("cuda", "mps", "flag", "expected"),
    [(True, False, "", False), (True, False, "true", True), (False, True, "", True), (False, False, "", True)],
)
def test_work_is_done_on_cuda_or_the_cpu(monkeypatch, cuda, mps, flag, expected):
    """Never on Apple's GPU, which accelerate would take by itself."""

    class AskedError(Exception):
        """Tells what the process was asked for."""

    def ask(cpu, **_):
        raise AskedError(cpu)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setenv("ACCELERATE_USE_CPU", flag or "false")
    monkeypatch.setattr(loop, "PartialState", ask)
    assert without_gpu() == expected
    with pytest.raises(AskedError, match=str(expected)):
        loop.train(SimpleNamespace(processes=SimpleNamespace(timeout=60)))


@pytest.mark.parametrize(
    ("cuda", "flag", "release", "expected"),
    [
        (True, "", "6.8.0-45-generic", True),
        (True, "", "5.15.167.4-microsoft-standard-WSL2", False),
        (True, "", "4.19.0-Microsoft", False),
        (True, "true", "6.8.0-45-generic", False),
        (False, "", "6.8.0-45-generic", False),
    ],
)
def test_batches_are_pinned_on_cuda_but_not_under_wsl(monkeypatch, cuda, flag, release, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setenv("ACCELERATE_USE_CPU", flag or "false")
    monkeypatch.setattr(platform, "release", lambda: release)
    assert pins_batches() == expected


LIBRARIES_SAY = (
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported at some other API call.",
)


@pytest.mark.parametrize("said", LIBRARIES_SAY)
def test_a_lack_of_memory_that_a_library_of_cuda_meets_is_one(said):
    error = RuntimeError(said)
    assert is_out_of_memory(error)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not is_out_of_memory(RuntimeError("CUDA error: an illegal memory access was encountered"))

    def work(items):
        if len(items) > 1:
            raise error
        return [item + 1 for item in items]

    assert Halving().results(work, [1, 2, 3], str) == [2, 3, 4]
    first = re.escape(said.splitlines()[0])
    with pytest.raises(ModelError, match=f"^out of memory: {first}. What helps: less$"), explain_out_of_memory("less"):
        raise error


def test_other_errors_of_a_device_pass_unchanged():
    error = RuntimeError("CUDA error: an illegal memory access was encountered")

    def work(_):
        raise error

    with pytest.raises(RuntimeError) as found:
        Halving().results(work, [1, 2], str)
    assert found.value is error
    with pytest.raises(RuntimeError) as found, explain_out_of_memory("less"):
        raise error
    assert found.value is error


@pytest.mark.parametrize(
    ("given", "count", "expected"),
    [(None, 2, ["0", "1"]), ("3, GPU-5ab", 2, ["3", "GPU-5ab"]), ("3,-1,5", 1, ["3"]), ("", 0, []), (None, 0, [])],
)
def test_gpus_are_named_as_the_environment_names_them(monkeypatch, given, count, expected):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if given is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", given)
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    assert visible_gpus() == expected
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    assert visible_gpus() == []


def test_batches_begin_at_the_size_that_fitted_and_grow_again():
    tried, halving = [], Halving()

    def work(items):
        tried.append(len(items))
        if len(items) > room:
            raise torch.OutOfMemoryError
        return [2 * item for item in items]

    room = 2
    for first in (0, 8):
        items = range(first, first + 8)
        assert halving.results(work, items, str) == [2 * item for item in items]
    assert tried == [8, 4] + [2] * 8
    tried, room = [], 8
    halving.results(work, range(2 * (GROW_AFTER - 8) + 8), str)
    assert tried == [2] * (GROW_AFTER - 8) + [4] * 2, "a large picture may have been the reason"
    room = 0
    with pytest.raises(ModelError, match=r"^7$"):
        halving.results(work, [7, 8], str)


def test_memory_that_is_held_unused_is_given_back_where_there_is_a_gpu(monkeypatch):
    done = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: done.append(None))
    for used in (False, True):
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda used=used: used)
        free_gpu_memory()
    assert len(done) == 1
