"""A few steps of a network whose parameters FSDP2 has sharded, in one of several processes, or alone and whole.

Usage: sharded_worker.py FOLDER RANK WORLD. Writes WORLD-RANK.pt: for each case what `steps` returns, and the errors.
"""

import math
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

from fairhuman.fairness import (
    EmaEstimator,
    Estimator,
    ExactEstimator,
    FairBackward,
    MinimumPotentialDelay,
    Output,
    OutputEstimator,
    PairwiseEstimator,
    TailEstimator,
)
from fairhuman.fairness.distributed import full_tensor
from helpers.tiny_net import STRATEGIES, TinyUNet, batch, trained

SAMPLES = 6  # of a step, over all processes
SHARES = {2: (4, 2), 3: (2, 2, 2)}  # of each process; uneven ones where there are two
STEPS = 4

ESTIMATORS: dict[str, Callable[[TinyUNet], Estimator | None]] = {
    "exact": lambda _: None,
    "pairwise": lambda net: PairwiseEstimator(trained(net)),
    "kept": lambda net: ExactEstimator(trained(net), dtype=torch.bfloat16),
    "output": lambda net: OutputEstimator(trained(net), every=3, warm_up=1),
    "ema": lambda net: EmaEstimator(trained(net), every=3),
}


class Case(NamedTuple):
    """A strategy, how its Gram matrix is had, micro-batches, whether the last process lacks an objective."""

    strategy: str = "mpd"
    estimator: str = "exact"
    micro_batches: int = 1
    absent: bool = False
    checkpointed: bool = False


CASES = [
    *(Case(estimator=name, absent=absent) for name in ESTIMATORS for absent in (False, True)),
    *(Case(estimator=name, micro_batches=2, absent=True) for name in ("exact", "ema")),
    *(Case(strategy=name, absent=absent) for name in ("ls", "uw", "si") for absent in (False, True)),
    Case(checkpointed=True),
]


def shard(net: TinyUNet, *mesh: int) -> None:
    """Shard two layers, and the rest, over a mesh of all processes."""
    names = ("replicate", "shard")[-len(mesh) :]
    devices = init_device_mesh("cpu", mesh, mesh_dim_names=names)
    for module in (net.down, net.out, net):
        fully_shard(module, mesh=devices)


def losses(
    net: TinyUNet, seed: int, part: slice, gone: slice | None, factor: float
) -> tuple[list[Tensor | None], Output]:
    """Sums over the samples of `part`, of which those of `gone` lack the second objective, divided by all samples."""
    inputs, targets = batch(SAMPLES, seed)
    prediction = net(inputs[part])
    squares = (prediction - targets[part]).square() * (factor / SAMPLES)
    has = torch.tensor([gone is None or number not in range(SAMPLES)[gone] for number in range(SAMPLES)[part]])
    second = squares[has][..., 2:4, 2:4].sum() if bool(has.any()) else None
    return [squares.sum(), second, squares[..., 6:, :1].sum()], Output(prediction)


def steps(case: Case, rank: int, world: int, mesh: tuple[int, ...] = ()) -> list[tuple[Tensor, Tensor, Tensor | None]]:
    """Train; after each step the whole parameters, the weights and the Gram matrix."""
    net = TinyUNet()
    if case.checkpointed:
        net.checkpointing = True
    if world > 1:
        shard(net, *(mesh or (world,)))
    strategy = STRATEGIES[case.strategy]()
    fair = FairBackward(net.parameters(), strategy, estimator=ESTIMATORS[case.estimator](net))
    groups = [{"params": trained(net)}, {"params": strategy.parameters(), "lr": 0.1}]
    optimizer = torch.optim.SGD(groups if strategy.parameters() else groups[:1], lr=0.05)
    shares = SHARES.get(world, (SAMPLES,))
    gone = slice(SAMPLES - shares[-1], SAMPLES) if world > 1 else slice(4, SAMPLES)
    first = sum(shares[:rank])
    history = []
    for seed in range(STEPS):
        step = None
        width = shares[rank] // case.micro_batches
        for micro in range(case.micro_batches):
            part = slice(first + micro * width, first + (micro + 1) * width)
            found, output = losses(net, seed, part, gone if case.absent else None, world)
            step = fair(found, output=output, sync=micro + 1 == case.micro_batches)
        assert step is not None
        optimizer.step()
        optimizer.zero_grad()
        parameters = torch.cat([full_tensor(p.detach()).flatten() for p in trained(net)])
        history.append((parameters, step.weights, step.gram))
    return history


def refused(rank: int, world: int) -> dict[str, str]:
    """What is said of things that sharded parameters can't do, and of a loss that isn't finite in one process."""
    net = TinyUNet()
    shard(net, world)
    scaler = torch.amp.GradScaler("cpu")
    tries: dict[str, Callable[[], object]] = {
        "scaler": lambda: FairBackward(net.parameters(), MinimumPotentialDelay(), scaler=scaler),
        "batched": lambda: FairBackward(net.parameters(), MinimumPotentialDelay(), batched=True),
        "tail": lambda: TailEstimator(net, trained(net)),
        "mixed": lambda: FairBackward([*net.parameters(), torch.nn.Parameter(torch.ones(1))], MinimumPotentialDelay()),
    }
    fair = FairBackward(net.parameters(), MinimumPotentialDelay())

    def nan_loss() -> None:
        found, _ = losses(net, 0, slice(rank, rank + 1), None, world)
        assert found[1] is not None
        fair([found[0], found[1] * (math.nan if rank == 1 else 1.0), found[2]])

    def no_loss() -> None:
        found, _ = losses(net, 0, slice(rank, rank + 1), None, world)
        fair([None, None, None] if rank == 1 else found)

    heard = {}
    for name, way in {**tries, "nan": nan_loss, "no loss": no_loss}.items():
        try:
            way()
        except (ValueError, FloatingPointError) as error:
            heard[name] = str(error)
    found, output = losses(net, 0, slice(rank, rank + 1), None, world)
    step = fair(found if rank == 0 else [None, None, None], output=output)
    assert step is not None, "with the output a process may lack all of them"
    heard["after"] = str(step.present)
    return heard


def main() -> None:
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / f"{world}"), world), rank=rank, world_size=world)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found: dict[str, Any] = {str(case): steps(case, rank, world) for case in CASES}
        found["copies"] = steps(CASES[0], rank, world, (world, 1))
        found["refused"] = refused(rank, world)
    torch.save(found, folder / f"{world}-{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
