"""Memory of a LoRA on each published base, computed from shapes and never run: the tables of `docs/bases.md`, and, with
what fits each card, of `docs/memory.md`.
"""

from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

from common import arguments, save
from fairhuman import config
from fairhuman.bases.published import PUBLISHED
from fairhuman.bench.memory_table import fits
from fairhuman.bench.settings import MemoryTableSettings
from fairhuman.train.memory import MemoryChange, memory_of
from fairhuman.train.recipe import TrainRecipe

GIB = 2**30
RUN = {
    **{"data": "none", "out": "none", "steps": 1, "resolution": 1024, "batch_size": 1, "precision": "bf16"},
    **{"gradient_checkpointing": True, "lora": {"rank": 16}, "fairness": {"mode": "output"}, "cache": {"text": True}},
}
TITLES = {
    "sdxl": "SDXL",
    "stabilityai/stable-diffusion-3.5-medium": "Stable Diffusion 3.5 Medium",
    "stabilityai/stable-diffusion-3.5-large": "Stable Diffusion 3.5 Large",
    "black-forest-labs/FLUX.2-klein-base-4B": "FLUX.2 klein base 4B",
    "black-forest-labs/FLUX.2-klein-base-9B": "FLUX.2 klein base 9B",
    "black-forest-labs/FLUX.1-dev": "FLUX.1 dev",
    "Alpha-VLLM/Lumina-Image-2.0": "Lumina Image 2",
}
CARDS = (8, 12, 16, 24, 48, 80)
SHORT = {
    **{"cache.text=true": "text", "fairness.gradients=bf16": "half", "fairness.pairwise=true": "pairs"},
    "optimizer.name=adamw8bit": "8-bit",
    **{"base.quantize=int8": "int8", "base.quantize=nf4": "nf4", "cache.latents=true": "latents"},
    **{"base.offload=true": "offload", "view.crop=center": "centre"},
    **{f"lora.rank={rank}": f"rank {rank}" for rank in (8, 32, 64, 128)},
}


def main() -> None:
    """Compute the row of every base in `PUBLISHED`, then what fits each card."""
    options = arguments(__doc__)
    models = list(PUBLISHED)[: 1 if options.quick else None]
    results = {"bases": {model: base(model) for model in models}}
    settings = MemoryTableSettings(model=models[0] if options.quick else "all", batch_sizes=(1,))
    print(f"\n| run | recipe | {' | '.join(f'{card} GB' for card in CARDS)} |\n|{'---|' * (2 + len(CARDS))}")
    results["cards"] = {}
    rows = fits(settings, [card * GIB for card in CARDS])
    for (model, kind, recipe), group in groupby(rows, key=lambda row: (row.model, row.kind, row.recipe)):
        changes = [row.change for row in group]
        name = title(model) + ("" if kind == "LoRA 16" else f", {kind.replace('LoRA', 'rank')}")
        print(f"| {name} | {f'`{recipe}`' if recipe else ''} | {' | '.join(map(cell, changes))} |", flush=True)
        results["cards"][name] = [one and {"overrides": one.overrides, "needed": one.needed} for one in changes]
    save("base_memory", RUN, results, options)


def base(model: str) -> dict[str, Any]:
    """Print and return what a run on a base needs: without caches, and with cached texts."""
    memory = memory_of(config.build(TrainRecipe, {**RUN, "model": model}))
    needed = {"device": replace(memory, resting=None).needed, "texts cached": memory.needed}
    parts = [memory.frozen + memory.trained, memory.resting, memory.step, memory.audit, *needed.values()]
    print(f"| {title(model)} | {' | '.join(f'{part / GIB:.1f}' for part in parts if part is not None)} |", flush=True)
    return {**asdict(memory), **needed}


def title(model: str) -> str:
    """Return a model's name as the docs have it."""
    return TITLES.get(model, model.rpartition("/")[2])


def cell(change: MemoryChange | None) -> str:
    """Return the changes and the GiB that a card must have."""
    if change is None:
        return ""
    ways = [SHORT.get(one, one) for one in change.overrides if one != "view.crop=center"]
    return f"{', '.join(ways)}{': ' if ways else ''}{change.needed / GIB:.1f}"


if __name__ == "__main__":
    main()
