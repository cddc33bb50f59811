"""A table of the memory needs of training runs, for SDXL or any pipeline of its architecture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from fairhuman import config
from fairhuman.bench.settings import MemoryTableSettings
from fairhuman.models.locations import name_of
from fairhuman.train.memory import Memory, memory_of
from fairhuman.train.recipe import TrainRecipe

METHODS: dict[str, dict[str, Any]] = {
    "LS": {"strategy": "ls"},
    "MPD, exact": {"strategy": "mpd", "fairness": {"mode": "exact"}},
    "MPD, exact, pairs": {"strategy": "mpd", "fairness": {"mode": "exact", "pairwise": True}},
}
AMORTISED = {
    "MPD, amortised": "MPD, exact",
    "MPD, amortised, pairs": "MPD, exact, pairs",
}  # by the exact steps of their audits

OF_SDXL = ("lora", "controlnet", "t2i_adapter")
NAMES = {"controlnet": "ControlNet", "t2i_adapter": "T2I-adapter", "full": "full fine-tuning"}


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One run and its memory, and that with cached texts."""

    kind: str
    way: str
    batch_size: int
    precision: str
    memory: Memory
    cached: Memory


def memory_table(settings: MemoryTableSettings) -> Iterator[MemoryRow]:
    """Compute the rows one by one; each takes seconds to a minute.

    Rows of amortised modes are combined from others: an ordinary step is that of LS, an audit an exact step.
    """
    for kind, values, precision, batch_size in _runs(settings):
        found: dict[str, Memory] = {}
        for way, own in METHODS.items():
            found[way] = memory_of(_recipe(settings, precision, batch_size, [values, own]))
            yield _row(kind, way, batch_size, precision, found[way])
        for way, audit in AMORTISED.items():
            memory = replace(found[audit], step=found["LS"].step, audit=found[audit].step)
            yield _row(kind, way, batch_size, precision, memory)


def _row(kind: str, way: str, batch_size: int, precision: str, cached: Memory) -> MemoryRow:
    """Return a row from the memory with cached texts."""
    return MemoryRow(kind, way, batch_size, precision, replace(cached, resting=None, preview=None), cached)


def row_count(settings: MemoryTableSettings) -> int:
    """Return the number of rows of the table."""
    return len(list(_runs(settings))) * (len(METHODS) + len(AMORTISED))


def _runs(settings: MemoryTableSettings) -> Iterator[tuple[str, dict[str, Any], str, int]]:
    kinds: dict[str, dict[str, Any]] = {}
    ranks = {f"LoRA {rank}": {"lora": {"rank": rank}} for rank in settings.ranks}
    for chosen in settings.kinds or (("lora",) if name_of(settings.model).flow else OF_SDXL):
        kinds |= ranks if chosen == "lora" else {NAMES[chosen]: {"kind": chosen}}
    for precision, batch_size, (kind, values) in product(settings.precisions, settings.batch_sizes, kinds.items()):
        yield kind, values, precision, batch_size


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
        "cache": {"text": True},
    }
    for part in parts:
        values = config.merge(values, part)
    return config.build(TrainRecipe, values)
