"""What gradients kept in bfloat16 (`fairness.gradients`) change in exact steps, beside `fairness.pairwise`.

    .venv/bin/python benchmarks/kept_gradients.py [--quick] [--parts PART ...] [--work FOLDER]

- cosine: training by exact MPD on the small SDXL and synthetic people; at each step the other ways give their direction
  for the same batch, noise and weights, and its distance 1 - cosine to that of gradients kept in float32. By the
  precision of the forward pass.
- cost: CPU time of an exact step, forward pass included, as a ratio to the one that keeps float32, all ways in turn in
  one process; and the peak that PyTorch allocates beside the weights, measured and as `train/memory.py` computes it. By
  what is trained. With gradient checkpointing the way that keeps float32 takes one batched pass.
- memory: what a card must have for SDXL at its true size, from shapes; nothing is run.

K = 3 (whole picture, faces, hands), one thread. Parts cosine and cost render people first. These and each finished run
are kept in the work folder: run the same command again to resume.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch

from amortised import adam, flat, once, recipe_of, training
from common import arguments, compare, one_thread, save
from fairhuman import config
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.fairness import FairBackward, MinimumPotentialDelay
from fairhuman.synth import run as synth
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.fairness import build_fair_backward
from fairhuman.train.memory import memory_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import fair_step
from peak_memory import peak_allocated_bytes

PARTS = ("cosine", "cost", "memory")
WAYS: dict[str, dict[str, Any]] = {
    "float32": {},
    "bfloat16": {"gradients": "bf16"},
    "float32, pairs": {"pairwise": True},
    "bfloat16, pairs": {"gradients": "bf16", "pairwise": True},
}
STEPS, SEEDS, ROUNDS = 32, (0, 1), 7
COSTS: dict[str, dict[str, Any]] = {
    "LoRA 64": {"lora": {"rank": 64}},
    "LoRA 64, checkpointing": {"lora": {"rank": 64}, "gradient_checkpointing": True},
    "full": {"kind": "full"},
}
SIZES: dict[str, dict[str, Any]] = {
    "LoRA 64": {"lora": {"rank": 64}},
    "LoRA 256": {"lora": {"rank": 256}},
    "ControlNet": {"kind": "controlnet"},
}


def chosen(recipe: TrainRecipe, way: Mapping[str, Any]) -> TrainRecipe:
    """Return the recipe with exact steps of a way."""
    return recipe.model_copy(update={"fairness": recipe.fairness.model_copy(update={"mode": "exact", **way})})


def cosine(people: Path, quick: bool) -> dict[str, Any]:
    """Return 1 - cosine, mean and most, by precision, seed and way."""
    found: dict[str, Any] = {}
    for precision in ("fp32", "bf16"):
        for seed in SEEDS[:1] if quick else SEEDS:
            measure = partial(distances, people, seed, 3 if quick else STEPS, precision)
            one = once(people.parent / f"{people.name}, {precision}, seed {seed}.json", measure)
            found.setdefault(precision, {})[f"seed {seed}"] = one
            for way, row in one.items():
                print(f"{precision}, seed {seed}: {way:16} {row['mean']:.2e} / {row['most']:.2e}", flush=True)
    return found


def distances(people: Path, seed: int, steps: int, precision: str) -> dict[str, dict[str, float]]:
    """Train by exact MPD with gradients in float32; compare the other ways at each step."""
    recipe = recipe_of(people, seed, precision=precision)
    model, objectives, batches = training(people, seed, precision=precision)
    optimizer, parameters = adam(model), model.trainable_parameters()
    fairs = {
        name: build_fair_backward(chosen(recipe, way), model, MinimumPotentialDelay(), None)
        for name, way in reversed(WAYS.items())  # float32 last, by which training goes on
    }
    found: dict[str, list[float]] = {name: [] for name in WAYS if name != "float32"}
    for _ in range(steps):
        batch, directions = next(batches), {}
        for name, fair in fairs.items():
            optimizer.zero_grad()
            fair_step(objectives, fair, [batch])
            directions[name] = flat([parameter.grad for parameter in parameters])
        wide = directions["float32"]
        for name, values in found.items():
            other = directions[name]
            # |a/‖a‖ - b/‖b‖|² / 2 is 1 - cosine without cancellation
            values.append(float((wide / wide.norm() - other / other.norm()).square().sum() / 2.0))
        optimizer.step()
    return {name: {"steps": steps, "mean": sum(values) / steps, "most": max(values)} for name, values in found.items()}


def cost(people: Path, quick: bool) -> dict[str, Any]:
    """Return ratios of CPU time, and peaks, by what is trained and way."""
    found: dict[str, Any] = {}
    for name, values in list(COSTS.items())[: 1 if quick else None]:
        recipe = recipe_of(people, 0, **values)
        model, objectives, batches = training(people, 0, **values)
        batch, parameters = next(batches), model.trainable_parameters()
        recipes = {way: chosen(recipe, changes) for way, changes in WAYS.items()}

        def clear(parameters: list[torch.nn.Parameter] = parameters) -> None:
            for parameter in parameters:
                parameter.grad = None

        def step(fair: FairBackward, objectives: Any = objectives, batch: Any = batch) -> None:
            fair_step(objectives, fair, [batch])

        ways: dict[str, Callable[[], object]] = {
            way: partial(step, build_fair_backward(one, model, MinimumPotentialDelay(), None))
            for way, one in recipes.items()
        }
        rows = compare(ways, "float32", 1 if quick else ROUNDS, clear)
        size = 4 * sum(parameter.numel() for parameter in parameters)
        found[name] = {"trained": size, "ways": {}}
        for way, take in ways.items():
            clear()
            peak, computed = peak_allocated_bytes(take), memory_of(recipes[way]).step
            found[name]["ways"][way] = {"ratio": rows[way]["ratio"], "peak": peak, "computed": computed}
            ratio = " / ".join(f"{rows[way]['ratio'][key]:.3f}" for key in ("min", "median", "max"))
            print(f"{name}: {way:16} {ratio}, peak {peak / size:.2f} P, computed {computed / size:.2f} P", flush=True)
    return found


def memory(quick: bool) -> dict[str, Any]:
    """Return the bytes of an exact step and of the whole run by size, batch size and way."""
    base = {"model": "small" if quick else "sdxl", "data": "none", "out": "none", "steps": 1}
    base |= {"resolution": 128 if quick else 1024, "precision": "bf16", "gradient_checkpointing": True}
    found: dict[str, Any] = {}
    for name, values in list(SIZES.items())[: 1 if quick else None]:
        for batch in (1, 4):
            recipe = config.build(TrainRecipe, {**base, **values, "batch_size": batch})
            for way, changes in WAYS.items():
                one = memory_of(chosen(recipe, changes))
                row = {"exact step": one.step, "a device must have": one.needed}
                found.setdefault(f"{name}, batch {batch}", {})[way] = row
                print(f"{name}, batch {batch}: {way:16}", *(f"{n / 2**30:.1f}" for n in row.values()), flush=True)
    return found


def main() -> None:
    options = arguments(__doc__, PARTS, work="where people are rendered (runs/kept_gradients)")
    one_thread()
    quick = options.quick
    people = (options.work or Path("runs/kept_gradients")) / ("quick" if quick else "full")
    if set(options.parts) != {"memory"}:
        synth.render_people(people, SynthSettings(count=16 if quick else 160, size=128, seed=41), ConsoleDisplay())
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "cosine": partial(cosine, people, quick),
        "cost": partial(cost, people, quick),
        "memory": partial(memory, quick),
    }
    settings = {"steps": STEPS, "rounds": ROUNDS, "resolution": 128, "batch": 4, "people": 160}
    for part in options.parts:
        save("kept_gradients", settings, {part: ways[part]()}, options)


if __name__ == "__main__":
    main()
