"""The table of what training runs need, for SDXL or any pipeline of its shape."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from fairhuman import recipe as recipes
from fairhuman.recipe import Settings
from fairhuman.train.memory import SDXL, Memory, memory_of
from fairhuman.train.recipe import TrainRecipe

WAYS: dict[str, dict[str, Any]] = {
    "LS": {"strategy": "ls"},
    "MPD, exact": {"strategy": "mpd", "fairness": {"mode": "exact"}},
    "MPD, exact, pairs": {"strategy": "mpd", "fairness": {"mode": "exact", "pairwise": True}},
    "MPD, amortised": {"strategy": "mpd", "fairness": {"mode": "output"}},
    "MPD, amortised, pairs": {"strategy": "mpd", "fairness": {"mode": "output", "pairwise": True}},
}


NAMES = {"controlnet": "ControlNet", "t2i_adapter": "T2I-adapter", "full": "full fine-tuning"}


class MemoryTableSettings(Settings):
    """Which runs are in the table: all combinations."""

    model: str = Field(default=SDXL, description="'sdxl' (base 1.0, by its shape), 'small', a folder or a hub id")
    resolution: int = Field(default=1024, ge=16)
    ranks: tuple[int, ...] = Field(default=(64, 128, 256), description="of LoRA on attention")
    kinds: tuple[Literal["lora", "controlnet", "t2i_adapter", "full"], ...] = ("lora", "controlnet", "t2i_adapter")
    batch_sizes: tuple[int, ...] = (1, 4)
    precisions: tuple[str, ...] = ("bf16",)
    gradient_checkpointing: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One run and what it needs."""

    kind: str
    way: str
    batch_size: int
    precision: str
    memory: Memory


def memory_table(settings: MemoryTableSettings) -> Iterator[Row]:
    """Compute the rows one by one; each takes seconds to a minute."""
    kinds: dict[str, dict[str, Any]] = {}
    ranks = {f"LoRA {rank}": {"lora": {"rank": rank}} for rank in settings.ranks}
    for chosen in settings.kinds:
        kinds |= ranks if chosen == "lora" else {NAMES[chosen]: {"kind": chosen}}
    for precision in settings.precisions:
        for batch_size in settings.batch_sizes:
            for kind, values in kinds.items():
                for way, own in WAYS.items():
                    recipe = _recipe(settings, precision, batch_size, [values, own])
                    yield Row(kind, way, batch_size, precision, memory_of(recipe))


def _recipe(
    settings: MemoryTableSettings, precision: str, batch_size: int, parts: Sequence[dict[str, Any]]
) -> TrainRecipe:
    values: dict[str, Any] = {
        "model": settings.model,
        "data": "none",
        "out": "none",
        "steps": 1,
        "resolution": settings.resolution,
        "batch_size": batch_size,
        "precision": precision,
        "gradient_checkpointing": settings.gradient_checkpointing,
    }
    for part in parts:
        values = recipes.merge(values, part)
    return recipes.build(TrainRecipe, values)
