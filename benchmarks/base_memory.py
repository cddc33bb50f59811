"""Memory of a LoRA on each published base, computed from shapes and never run: the tables of `docs/bases.md`, and, with
what fits each card, of `docs/memory.md`, for sampling too.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

from common import arguments, save
from fairhuman import config
from fairhuman.bases.published import PUBLISHED
from fairhuman.bench.drawing_memory import drawing_needs
from fairhuman.bench.memory_table import fits
from fairhuman.bench.settings import MemoryTableSettings
from fairhuman.models.locations import SDXL, name_of
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
DRAWING = ((), ("base.quantize=int8",), ("base.quantize=int8", "base.offload=true"))  # from the least cost in time
CARDS = (8, 12, 16, 24, 48, 80)
SHORT = {
    **{"cache.text=true": "text", "fairness.gradients=bf16": "half", "fairness.pairwise=true": "pairs"},
    "optimizer.name=adamw8bit": "8-bit",
    **{"base.quantize=int8": "int8", "base.quantize=nf4": "nf4", "cache.latents=true": "latents"},
    **{"base.offload=true": "offload", "view.crop=center": "centre"},
    **{f"lora.rank={rank}": f"rank {rank}" for rank in (8, 32, 64, 128)},
}


def main() -> None:
    """Compute the rows of the chosen tables."""
    tables = {"bases": base_table, "cards": card_table, "drawing": drawing_table}
    options = arguments(__doc__, tuple(tables))
    models = list(PUBLISHED)[: 1 if options.quick else None]
    for part in options.parts:
        save("base_memory", RUN, {part: tables[part](models)}, options)


def base_table(models: Sequence[str]) -> dict[str, Any]:
    """Print and return what a run on each base needs."""
    return {model: base(model) for model in models}


def card_table(models: Sequence[str]) -> dict[str, Any]:
    """Print and return the settings by which runs fit each card."""
    settings = MemoryTableSettings(model=models[0] if len(models) == 1 else "all", batch_sizes=(1,))
    found = {}
    header("run", "recipe")
    rows = fits(settings, [card * GIB for card in CARDS])
    for (model, kind, recipe), group in groupby(rows, key=lambda row: (row.model, row.kind, row.recipe)):
        name = title(model) + ("" if kind == "LoRA 16" else f", {kind.replace('LoRA', 'rank')}")
        found[name] = row([name, f"`{recipe}`" if recipe else ""], [one.change for one in group])
    return found


def drawing_table(models: Sequence[str]) -> dict[str, Any]:
    """Print and return the options by which `fairhuman sample` fits each card with a LoRA, four pictures at once."""
    found = {}
    header("sampling")
    for model in (SDXL, *models):
        name, rank = (title(model), 16) if name_of(model).flow else (f"{title(model)}, rank 64", 64)
        ways = [drawing_needs(model, "bf16", overrides, rank=rank) for overrides in DRAWING]
        fitting = [next((way for way in ways if way.needed <= card * GIB), None) for card in CARDS]
        found[name] = row([name], fitting)
    return found


def base(model: str) -> dict[str, Any]:
    """Print and return what a run on a base needs: without caches, and with cached texts."""
    memory = memory_of(config.build(TrainRecipe, {**RUN, "model": model}))
    needed = {"device": replace(memory, resting=None).needed, "texts cached": memory.needed}
    parts = [memory.frozen + memory.trained, memory.resting, memory.step, memory.audit, *needed.values()]
    print(f"| {title(model)} | {' | '.join(f'{part / GIB:.1f}' for part in parts if part is not None)} |", flush=True)
    return {**asdict(memory), **needed}


def header(*columns: str) -> None:
    """Print the head of a table with a column for each card."""
    names = [*columns, *(f"{card} GB" for card in CARDS)]
    print(f"\n| {' | '.join(names)} |\n|{'---|' * len(names)}")


def row(names: Sequence[str], changes: Sequence[MemoryChange | None]) -> list[dict[str, Any] | None]:
    """Print a row with a cell for each card, and return it as JSON."""
    print(f"| {' | '.join([*names, *map(cell, changes)])} |", flush=True)
    return [one and {"overrides": one.overrides, "needed": one.needed} for one in changes]


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
