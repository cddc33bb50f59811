"""Parameters that FSDP2 has sharded over 2 and 3 processes, against whole ones on the joined batch."""

import os
import sys
from typing import Any

import pytest
import torch

from helpers.sharded_worker import CASES, Case, steps
from helpers.warm import PIPE, STDOUT, Popen

# Sums in another order; 4 steps of length 0.05 (SGD, length radius).
TOLERANCE = 1e-5

Found = list[dict[str, Any]]


@pytest.fixture(scope="module", params=[2, pytest.param(3, marks=pytest.mark.slow)])
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """Run two processes, or three; what each wrote."""
    folder, world = tmp_path_factory.mktemp("sharded"), request.param
    workers = [
        Popen(
            [sys.executable, "-m", "helpers.sharded_worker", str(folder), str(rank), str(world)],
            env={**os.environ, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
            stdout=PIPE,
            stderr=STDOUT,
        )
        for rank in range(world)
    ]
    try:
        outputs = [worker.communicate(timeout=240)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0] * world, "\n".join(outputs)[-4000:]
    return [torch.load(folder / f"{world}-{rank}.pt", weights_only=False) for rank in range(world)]


def check(found: Found, name: str, case: Case) -> None:
    """Bit-equal in all processes, and as one process on the joined batch has it, which moved."""
    alone = steps(case, 0, 1)
    for parts in zip(*(run[name] for run in found), alone, strict=True):
        *processes, whole = parts
        for parameters, weights, gram in processes:
            assert torch.equal(parameters, processes[0][0])
            assert torch.equal(weights, processes[0][1])
            torch.testing.assert_close(parameters, whole[0], rtol=0, atol=TOLERANCE)
            torch.testing.assert_close(weights, whole[1], rtol=1e-3, atol=0)
            assert (gram is None) == (whole[2] is None)
            if gram is not None:
                assert torch.equal(gram, processes[0][2])
                torch.testing.assert_close(gram, whole[2], rtol=1e-4, atol=1e-4 * float(whole[2].diagonal().max()))
    assert (alone[-1][0] - alone[0][0]).norm() > 0.05


@pytest.mark.parametrize("case", CASES, ids=str)
def test_sharded_training_equals_one_process_on_the_whole_batch(found: Found, case: Case) -> None:
    """Batches are uneven, 4 and 2 samples, where there are two; M comes from sums over shards."""
    check(found, str(case), case)


def test_a_mesh_of_copies_and_shards(found: Found) -> None:
    """M is summed over its shards, of which each process has all here, and not over copies."""
    check(found, "copies", CASES[0])


@pytest.mark.parametrize(
    ("what", "text"),
    [
        ("scaler", "scaler must be None where parameters are sharded"),
        ("batched", "batched must be False if parameters are sharded"),
        ("tail", "FSDP2 can't backpropagate through part of a network; modes exact, output and ema"),
        ("mixed", "parameters must all be sharded or none, found 13 of 14"),
        ("nan", "losses[1] isn't finite"),
        ("no loss", "call fair(losses, output=...)"),
        ("after", "(True, True, True)"),
    ],
)
def test_unsupported_options_raise_in_all_processes(found: Found, what: str, text: str) -> None:
    """Afterwards the processes still agree on a step."""
    for run in found:
        assert text in run["refused"][what]
