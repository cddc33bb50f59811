"""A training run of a few steps in one of several processes, or alone on the joined batch; started by a test.

Usage: worker.py FOLDER RANK WORLD. Writes RANK.pt: for each case, parameters and weights after every step.
"""

import math
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fairhuman.fairness import FairBackward
from helpers.small_unet import ESTIMATORS, EXACT, KEPT, fair_backward, flat_grad, losses, noise_of, small_unet
from helpers.tiny_net import STRATEGIES, TinyUNet, batch, three_losses, trained

STEPS = 3
KINDS = ("mpd", "ls", "si", "uw", "dwa")
MICRO_BATCHES = (1, 2)
Case = tuple[str, int, bool, str]
ESTIMATED = [(mode, absent) for mode in (*ESTIMATORS, *EXACT, *KEPT) for absent in (False, True)]
CASES: list[Case] = [
    *((name, n, absent, "plain") for name in KINDS for n in MICRO_BATCHES for absent in (False, True)),
    *((name, 1, False, wrap) for name in KINDS for wrap in ("ddp", "accelerate")),
    *(("mpd", 2, True, wrap) for wrap in ("ddp", "accelerate")),
]


def region_losses(net: nn.Module, data: tuple[Tensor, Tensor], absent: bool, share: float) -> list[Tensor | None]:
    """The three losses of one part of the batch, divided so that their sum over parts is the step's."""
    losses: list[Tensor | None] = [loss * share for loss in three_losses(net, data)]
    if absent:
        losses[1] = None
    return losses


def train(name: str, micro_batches: int, absent: bool, wrap: str, *, rank: int, world: int) -> dict[str, Any]:
    """Train a few steps; the joined batch has 8 pictures, each process and micro-batch takes its slice."""
    net = TinyUNet()
    strategy = STRATEGIES[name]()
    # AdamW also shrinks a parameter whose gradient is zero, but not one without a gradient.
    optimizer = torch.optim.AdamW([*trained(net), *strategy.parameters()], lr=0.01)
    model: nn.Module = net
    if wrap == "ddp":
        model = DistributedDataParallel(net)
    elif wrap == "accelerate":
        model, optimizer = Accelerator(cpu=True).prepare(net, optimizer)
    assert isinstance(model, DistributedDataParallel) == (wrap != "plain")
    fair = FairBackward(model.parameters(), strategy)
    parts = world * micro_batches
    width = 8 // parts
    history: dict[str, Any] = {"parameters": [], "weights": [], "s": [], "unused": None}
    for seed in range(STEPS):
        inputs, targets = batch(8, seed)
        step = None
        for micro in range(micro_batches):
            part = rank * micro_batches + micro
            cut = slice(part * width, (part + 1) * width)
            # The second objective is absent from the second half of the batch: its mean is over the first half.
            gone = absent and part >= parts // 2 and parts > 1
            if parts == 1 and absent:
                halves = [three_losses(model, (inputs[h], targets[h])) for h in (slice(0, 4), slice(4, 8))]
                losses: list[Tensor | None] = [0.5 * (a + b) for a, b in zip(*halves, strict=True)]
                losses[1] = 0.5 * halves[0][1]
            else:
                losses = region_losses(model, (inputs[cut], targets[cut]), gone, 1.0 / micro_batches)
            step = fair(losses, sync=micro + 1 == micro_batches)
        assert step is not None
        optimizer.step()
        optimizer.zero_grad()
        history["parameters"].append(torch.cat([p.detach().reshape(-1) for p in trained(net)]))
        history["weights"].append(step.weights)
        history["s"].append([p.detach().clone() for p in strategy.parameters()])
        history["losses"] = step.losses
    history["unused"] = net.unused.detach().clone()
    return history


def estimate(mode: str, absent: bool, *, rank: int, world: int) -> list[tuple[Tensor, Tensor, float | None]]:
    """Steps of an amortised estimator: direction, weights and an audit's cosine, as `train` divides the batch."""
    unet = small_unet()
    fair = fair_backward(unet, mode)
    halves = (slice(0, 2), slice(2, 4))
    history = []
    for seed in range(5):
        unet.zero_grad()
        if world > 1:
            found, output = losses(unet, seed, absent and rank == 1, halves[rank])
        else:
            found, output = losses(unet, seed)
            if absent:
                squares = (output.prediction_b - noise_of(seed)).square()
                found[1] = 0.5 * squares[halves[0], ..., 2:6, 3:9].mean()
        step = fair(found, output=output)
        assert step is not None
        history.append((flat_grad(unet), step.weights, step.cosine))
    return history


def nan_in_one_process(rank: int) -> list[str]:
    """What each process hears when a loss of the second one is NaN, and that a good step can follow."""
    heard = []
    for name in ("mpd", "ls", "si"):
        net = TinyUNet()
        fair = FairBackward(net.parameters(), STRATEGIES[name]())
        losses = three_losses(net, batch())
        try:
            fair([losses[0], losses[1] * (math.nan if rank == 1 else 1.0), losses[2]])
        except FloatingPointError as error:
            heard.append(str(error))
        assert fair(three_losses(net, batch())) is not None
    return heard


def main() -> None:
    folder, rank, world = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}  # accelerate asks for them, and uses what is there
    dist.init_process_group("gloo", store=dist.FileStore(str(folder / "store"), world), rank=rank, world_size=world)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found: dict[Any, Any] = {case: train(*case, rank=rank, world=world) for case in CASES}
        found |= {case: estimate(*case, rank=rank, world=world) for case in ESTIMATED}
        found["nan"] = nan_in_one_process(rank)
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
