"""The device that work is done on."""

import platform
from types import SimpleNamespace

import pytest
import torch

from fairhuman.train import loop
from fairhuman.utils.torch_device import pins_batches, without_gpu


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
