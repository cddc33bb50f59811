"""Cost of a fair step relative to a plain one: SDXL-shaped U-Net of 49M parameters, LoRA r16 on attention, K = 3.

    .venv/bin/python benchmarks/fairness.py [--quick]

Time is that of forward, backward and weights, as a ratio of CPU time to the plain sum's. Memory is the allocator's peak
beyond the plain step, in multiples of P (all trained parameters), measured on a perceptron whose activations are
negligible beside its parameters.
"""

import gc
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchjd.aggregation import FairGrad
from torchjd.autojac import backward, jac_to_grad

from common import arguments, compare, one_thread, save
from fairhuman.fairness import FairBackward, LinearScalarization, MinimumPotentialDelay
from peak_memory import peak_allocated_bytes
from reference import reference_backward
from sdxl_shape import build_unet, three_losses

Losses = Callable[[], Sequence[Tensor]]


def ways(losses: Losses, parameters: Sequence[nn.Parameter]) -> dict[str, Callable[[], Any]]:
    """Return all methods from a batch to `.grad` by name."""
    ls = FairBackward(parameters, LinearScalarization())
    sequential = FairBackward(parameters, MinimumPotentialDelay())
    batched = FairBackward(parameters, MinimumPotentialDelay(), batched=True)
    aggregator = FairGrad(alpha=2.0)

    def torchjd() -> None:
        backward(losses(), inputs=parameters)
        jac_to_grad(parameters, aggregator)

    return {
        "plain sum": lambda: sum(losses()).backward(),  # type: ignore[union-attr]
        "FairBackward, LS": lambda: ls(losses()),
        "FairBackward, MPD, sequential": lambda: sequential(losses()),
        "FairBackward, MPD, batched": lambda: batched(losses()),
        "reference: K backwards, flatten, least_squares": lambda: reference_backward(losses(), parameters),
        "torchjd: backward, jac_to_grad, FairGrad": torchjd,
    }


def clear(parameters: Sequence[nn.Parameter]) -> None:
    for parameter in parameters:
        parameter.grad = None


def cost(quick: bool, repeats: int) -> dict[str, Any]:
    """Return ratios of CPU time, without and with gradient checkpointing."""
    unet = build_unet(quick)
    parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
    forward = three_losses(unet, quick)
    every = ways(lambda: forward()[0], parameters)
    results: dict[str, Any] = {
        "parameters": sum(p.numel() for p in unet.parameters()),
        "trained": sum(p.numel() for p in parameters),
    }
    for label in ("no checkpointing", "gradient checkpointing"):
        if label == "gradient checkpointing":
            unet.enable_gradient_checkpointing()
        gc.disable()
        found = compare(every, "plain sum", repeats, before=lambda: (clear(parameters), gc.collect()))
        gc.enable()
        results[label] = found
        print(label)
        for name, row in found.items():
            ratio = row["ratio"]
            print(f"  {name:48} {ratio['min']:.2f} / {ratio['median']:.2f} / {ratio['max']:.2f}", flush=True)
    return results


def memory(quick: bool) -> dict[str, float]:
    """Return the peak beyond the plain step, in multiples of P."""
    width, depth = (64, 4) if quick else (512, 16)
    net = nn.Sequential(*(layer for _ in range(depth) for layer in (nn.Linear(width, width), nn.Tanh())))
    parameters = list(net.parameters())
    inputs = torch.randn(2, width)

    def losses() -> list[Tensor]:
        return [part.square().mean() for part in net(inputs).split(width // 4, dim=1)[:3]]

    size = sum(p.numel() * p.element_size() for p in parameters)
    peaks = {}
    for name, way in ways(losses, parameters).items():
        way()  # what is allocated once (the first call's caches) isn't counted
        clear(parameters)
        peaks[name] = peak_allocated_bytes(way) / size
        clear(parameters)
    extra = {name: peak - peaks["plain sum"] for name, peak in peaks.items()}
    print("memory beyond the plain step, multiples of P")
    for name, value in extra.items():
        print(f"  {name:48} {value:.2f}")
    return extra


def main() -> None:
    options = arguments(__doc__)
    one_thread()
    repeats = 2 if options.quick else 15
    results = {"memory beyond the plain step / P": memory(options.quick), "cost": cost(options.quick, repeats)}
    save(
        "fairness", {"objectives": 3, "batch": 4, "rank": 16, "repeats": repeats, "dtype": "float32"}, results, options
    )


if __name__ == "__main__":
    main()
