"""Two gloo processes against one with the joined batch; the processes run `worker.py`, all cases in one start."""

import functools
import os
import sys
from typing import Any

import pytest
import torch

from helpers.fairness_worker import ESTIMATED, KINDS, MICRO_BATCHES, Case, estimate, train
from helpers.small_unet import KEPT
from helpers.warm import PIPE, STDOUT, Popen

# Sums in another order, three steps of Adam at 0.01: parameters agree to 1e-4, one hundredth of a step.
TOLERANCE = 1e-4


Found = list[dict[Case, dict[str, Any]]]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Start two processes, wait, return what each wrote."""
    folder = tmp_path_factory.mktemp("two")
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    processes = [
        Popen(
            [sys.executable, "-m", "helpers.fairness_worker", str(folder), str(rank), "2"],
            env=environment,
            stdout=PIPE,
            stderr=STDOUT,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=240)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs, strict=True):
        assert process.returncode == 0, output[-3000:]
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@functools.cache
def trained_alone(name: str, absent: bool) -> dict[str, Any]:
    """What one process has on the joined batch; a wrapper isn't part of it."""
    return train(name, 1, absent, "plain", rank=0, world=1)


def check(found: Found, name: str, micro_batches: int, absent: bool, wrap: str) -> None:
    here, there = (run[name, micro_batches, absent, wrap] for run in found)
    alone = trained_alone(name, absent)
    for step, parameters in enumerate(here["parameters"]):
        assert torch.equal(parameters, there["parameters"][step])  # replicas are bit-equal after every step
        assert torch.equal(here["weights"][step], there["weights"][step])
        for a, b in zip(here["s"][step], there["s"][step], strict=True):
            assert torch.equal(a, b)
        torch.testing.assert_close(parameters, alone["parameters"][step], rtol=0.0, atol=TOLERANCE)
        torch.testing.assert_close(here["weights"][step], alone["weights"][step], rtol=1e-3, atol=0.0)
        for a, b in zip(here["s"][step], alone["s"][step], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(here["losses"], alone["losses"], rtol=1e-4, atol=0.0)
    assert (alone["parameters"][-1] - alone["parameters"][0]).abs().max() > 100 * TOLERANCE  # something was trained
    assert torch.equal(here["unused"], alone["unused"])


@pytest.mark.parametrize("micro_batches", MICRO_BATCHES)
@pytest.mark.parametrize("name", KINDS)
def test_all_gradients_are_averaged(two: Found, name: str, micro_batches: int) -> None:
    """The reference all-reduces the first of K backward passes only, and its replicas drift apart."""
    check(two, name, micro_batches, False, "plain")


@pytest.mark.parametrize("micro_batches", MICRO_BATCHES)
@pytest.mark.parametrize("name", KINDS)
def test_an_objective_absent_in_one_process(two: Found, name: str, micro_batches: int) -> None:
    """It counts as zero there: no process waits for a gradient that never comes, and none drifts."""
    check(two, name, micro_batches, True, "plain")


@pytest.mark.parametrize("wrap", ["ddp", "accelerate"])
@pytest.mark.parametrize("name", KINDS)
def test_models_wrapped_for_several_processes(two: Found, name: str, wrap: str) -> None:
    check(two, name, 1, False, wrap)


@pytest.mark.parametrize("wrap", ["ddp", "accelerate"])
def test_wrapped_models_accumulate(two: Found, wrap: str) -> None:
    check(two, "mpd", 2, True, wrap)


@pytest.mark.parametrize(("mode", "absent"), ESTIMATED)
def test_estimators_are_equal_in_all_processes(two: list[dict[Any, Any]], mode: str, absent: bool) -> None:
    """Bit-equal in both, and as in one process with the joined batch; up to bfloat16's rounding if gradients are."""
    alone = estimate(mode, absent, rank=0, world=1)
    element, weight = (1e-3, 1e-2) if mode in KEPT else (1e-5, 1e-3)
    for here, there, joined in zip(*(run[mode, absent] for run in two), alone, strict=True):
        assert torch.equal(here[0], there[0])
        assert torch.equal(here[1], there[1])
        assert here[2] == there[2]
        torch.testing.assert_close(here[0], joined[0], rtol=0.0, atol=element)
        torch.testing.assert_close(here[1], joined[1], rtol=weight, atol=0.0)
        assert here[2] == pytest.approx(joined[2], abs=1e-4)


def test_a_loss_that_is_not_finite_in_one_process_is_an_error_in_all(two: list[dict[Any, Any]]) -> None:
    assert two[0]["nan"] == two[1]["nan"] == 3 * ["losses[1] isn't finite"]
