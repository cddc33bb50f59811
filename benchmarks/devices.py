"""Several processes: bytes per step passed to collectives, and the scaling efficiency of two processes.

    .venv/bin/python benchmarks/devices.py [--quick] [--parts bytes scaling]

One thread per process, gloo on one machine; the SDXL-shaped U-Net of 49M parameters, K = 3. Bytes are those of the
tensors passed to collectives, independent of the network's algorithm (a ring sends about 2 (n - 1) / n of an
all-reduce, half of that for a gather or a scatter), of the number of processes and of the machine.
"""

import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from common import arguments, one_thread, save, spread
from fairhuman.fairness import (
    EmaEstimator,
    Estimator,
    FairBackward,
    LinearScalarization,
    MinimumPotentialDelay,
    OutputEstimator,
    PairwiseEstimator,
)
from fairhuman.train.sharding import shard_network
from sdxl_shape import build_unet, three_losses

PARTS = ("bytes", "scaling")
COLLECTIVES = ("all_reduce", "all_gather_single", "reduce_scatter_single")
Parameters = list[nn.Parameter]
ESTIMATORS: dict[str, Callable[[Parameters], Estimator | None]] = {
    "LS": lambda _: None,
    "MPD, exact": lambda _: None,
    "MPD, output": lambda parameters: OutputEstimator(parameters, 0, warm_up=1),
    "MPD, ema": lambda parameters: EmaEstimator(parameters, 10**9),
    "MPD, pairs": PairwiseEstimator,
}


def fair_backward(mode: str, unet: nn.Module, group: dist.ProcessGroup | None = None) -> FairBackward:
    """Return a `FairBackward`; only its first step is exact unless the mode needs more."""
    parameters = trained(unet)
    strategy = LinearScalarization() if mode == "LS" else MinimumPotentialDelay()
    return FairBackward(parameters, strategy, estimator=ESTIMATORS[mode](parameters), process_group=group)


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Count bytes by collective, the larger of input and output; and the elements of small all-reduces."""
    found: Counter[str] = Counter()
    kept = {name: getattr(dist, name) for name in COLLECTIVES}

    def counting(name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
            found[name] += max(tensor.nbytes for tensor in tensors)
            if name == "all_reduce" and tensors[0].numel() < 256:
                found["few numbers"] += tensors[0].numel()
            return kept[name](*args, **kwargs)

        return call

    for name in COLLECTIVES:
        setattr(dist, name, counting(name))
    try:
        yield found
    finally:
        for name, function in kept.items():
            setattr(dist, name, function)


def trained(unet: nn.Module) -> Parameters:
    return [parameter for parameter in unet.parameters() if parameter.requires_grad]


def unet_of(quick: bool, full: bool) -> UNet2DConditionModel:
    unet = build_unet(quick)
    if full:
        unet.delete_adapters("default")
        unet.requires_grad_(True)
    return unet


def plain_ddp(quick: bool, full: bool) -> dict[str, int]:
    """Return the bytes of `DistributedDataParallel`, from its buckets, for one backward pass of the summed losses."""
    unet = unet_of(quick, full)
    model = DistributedDataParallel(unet)
    sent = 0

    def hook(_: None, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
        nonlocal sent
        sent += bucket.buffer().nbytes
        return dist.all_reduce(bucket.buffer(), async_op=True).get_future().then(lambda future: future.value()[0])

    model.register_comm_hook(None, hook)
    losses = three_losses(model, quick, 1)()[0]
    sum(losses).backward()  # type: ignore[union-attr]
    return {"all_reduce": sent, "trained": 4 * sum(p.numel() for p in trained(unet))}


def bytes_of(quick: bool, full: bool, sharded: bool, mode: str) -> dict[str, int]:
    """Return the bytes of one ordinary step of `FairBackward`, forward pass included, after a first exact step."""
    unet = unet_of(quick, full)
    if sharded:
        shard_network(unet, torch.device("cpu"))
    losses, fair = three_losses(unet, quick, 1), fair_backward(mode, unet)
    for step in range(2):
        with counted() as found:
            given, output = losses()
            fair(given, output=output)
        if step == 0:
            unet.zero_grad()
    return dict(found)


def scaling(quick: bool, rank: int, rounds: int, steps: int) -> dict[str, Any]:
    """Return seconds per step at constant batch size per process: of the first process alone, then of both, in turn.

    Efficiency is alone / together, in wall-clock time and in CPU time; the latter is affected less by other work on the
    machine and excludes waiting.
    """
    groups = {"alone": dist.new_group([0]), "together": dist.group.WORLD}
    results: dict[str, Any] = {}
    for mode in ("LS", "MPD, exact", "MPD, output"):
        unet = unet_of(quick, full=False)
        losses, optimizer = three_losses(unet, quick, 2), torch.optim.AdamW(trained(unet), lr=1e-5)
        ways = {
            name: fair_backward(mode, unet, group) for name, group in groups.items() if rank == 0 or name != "alone"
        }
        wall: dict[str, list[float]] = {name: [] for name in groups}
        cpu: dict[str, list[float]] = {name: [] for name in groups}
        for number in range(rounds + 1):
            for name in groups:
                dist.barrier()
                if name not in ways:
                    continue
                begin, used = time.perf_counter(), time.process_time()
                for _ in range(steps):
                    given, output = losses()
                    ways[name](given, output=output)
                    optimizer.step()
                    optimizer.zero_grad()
                if number > 0:
                    wall[name].append((time.perf_counter() - begin) / steps)
                    cpu[name].append((time.process_time() - used) / steps)
        dist.barrier()
        if rank == 0:
            results[mode] = {
                **{f"seconds a step, {name}": spread(values) for name, values in wall.items()},
                "efficiency, clock": spread(a / b for a, b in zip(wall["alone"], wall["together"], strict=True)),
                "efficiency, CPU time": spread(a / b for a, b in zip(cpu["alone"], cpu["together"], strict=True)),
            }
    return results


def work(rank: int, world: int, port: int, quick: bool, parts: Sequence[str], queue: Any) -> None:
    """Measure in one process; the first one reports."""
    one_thread()
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    results: dict[str, Any] = {}
    if "bytes" in parts:
        found: dict[str, Any] = {}
        for full in (False, True):
            name = "full" if full else "LoRA r16"
            found[f"{name}: DDP, plain sum"] = plain_ddp(quick, full)
            for mode in ESTIMATORS:
                found[f"{name}: replicas, {mode}"] = bytes_of(quick, full, False, mode)
        for mode in ESTIMATORS:
            found[f"full: FSDP2, {mode}"] = bytes_of(quick, True, True, mode)
        results["bytes"] = found
    if "scaling" in parts:
        results["scaling"] = scaling(quick, rank, 1 if quick else 5, 1)
    if rank == 0:
        queue.put(results)
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    options = arguments(__doc__, PARTS)
    one_thread()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    queue = mp.get_context("spawn").SimpleQueue()
    mp.spawn(work, args=(2, port, options.quick, options.parts, queue), nprocs=2)
    results = queue.get()
    for name, row in results.get("bytes", {}).items():
        print(f"{name:30} " + ", ".join(f"{what} {count:,}" for what, count in row.items()))
    for mode, row in results.get("scaling", {}).items():
        print(f"{mode:12} " + ", ".join(f"{what} {values['median']:.3f}" for what, values in row.items()))
    save("devices", {"objectives": 3, "processes": 2, "dtype": "float32"}, results, options)


if __name__ == "__main__":
    main()
