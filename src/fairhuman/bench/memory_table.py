"""A table of the memory needs of training runs, for SDXL or any pipeline of its architecture."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from fairhuman import config
from fairhuman.bench.settings import MemoryTableSettings
from fairhuman.models.locations import name_of
from fairhuman.train.memory import Memory, MemoryChange, combined_changes, memory_of
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
    quantize: str = "none"


@dataclass(frozen=True, slots=True)
class FitRow:
    """A run, the bytes of a card, and the changes by which the run fits it at the least cost in time; None: none do."""

    kind: str
    batch_size: int
    precision: str
    quantize: str
    card: int
    change: MemoryChange | None


def memory_table(settings: MemoryTableSettings) -> Iterator[MemoryRow]:
    """Compute the rows one by one; each takes seconds to a minute.

    Rows of amortised modes are combined from others: an ordinary step is that of LS, an audit an exact step.
    """
    for run in _runs(settings):
        found: dict[str, Memory] = {}
        for way, own in METHODS.items():
            found[way] = memory_of(_recipe(settings, run, own))
            yield _row(run, way, found[way])
        for way, audit in AMORTISED.items():
            memory = replace(found[audit], step=found["LS"].step, audit=found[audit].step)
            yield _row(run, way, memory)


def fits(settings: MemoryTableSettings, cards: Sequence[int]) -> Iterator[FitRow]:
    """Yield how each run by MPD in mode `output` fits into each card, of so many bytes.

    A run is without cached texts; the first rows of a run take seconds to minutes, the others little.
    """
    for run in _runs(settings):
        recipe = _recipe(settings, run, {"strategy": "mpd", "cache": {"text": False}})
        for card in cards:
            change = combined_changes(recipe, card)
            yield FitRow(run.kind, run.batch_size, run.precision, run.quantize, card, change)


def _row(run: "_Run", way: str, cached: Memory) -> MemoryRow:
    """Return a row from the memory with cached texts."""
    bare = replace(cached, resting=None, preview=None)
    return MemoryRow(run.kind, way, run.batch_size, run.precision, bare, cached, run.quantize)


def row_count(settings: MemoryTableSettings) -> int:
    """Return the number of rows of the table."""
    return len(list(_runs(settings))) * (len(METHODS) + len(AMORTISED))


class _Run(NamedTuple):
    """A combination of settings; `values` are those of its kind."""

    kind: str
    values: dict[str, Any]
    batch_size: int
    precision: str
    quantize: str


def _runs(settings: MemoryTableSettings) -> Iterator[_Run]:
    kinds: dict[str, dict[str, Any]] = {}
    ranks = {f"LoRA {rank}": {"lora": {"rank": rank}} for rank in settings.ranks}
    for chosen in settings.kinds or (("lora",) if name_of(settings.model).flow else OF_SDXL):
        kinds |= ranks if chosen == "lora" else {NAMES[chosen]: {"kind": chosen}}
    choices = product(settings.precisions, settings.batch_sizes, settings.quantize, kinds.items())
    for precision, batch_size, quantize, (kind, values) in choices:
        yield _Run(kind, values, batch_size, precision, quantize)


def _recipe(settings: MemoryTableSettings, run: _Run, more: dict[str, Any]) -> TrainRecipe:
    values: dict[str, Any] = {
        "model": settings.model,
        "data": "none",
        "out": "none",
        "steps": 1,
        "resolution": settings.resolution,
        "batch_size": run.batch_size,
        "precision": run.precision,
        "base": {"quantize": run.quantize},
        "gradient_checkpointing": settings.gradient_checkpointing,
        "cache": {"text": True},
    }
    return config.build(TrainRecipe, config.merge(config.merge(values, run.values), more))
