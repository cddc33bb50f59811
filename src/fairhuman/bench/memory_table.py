"""Tables of the memory needs of training runs, and of the settings by which they fit cards, for any base."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple

from fairhuman import config
from fairhuman.bases.published import PUBLISHED
from fairhuman.bench.settings import MemoryTableSettings
from fairhuman.models.locations import SDXL, name_of
from fairhuman.train.memory import Memory, MemoryChange, combined_changes, memory_of
from fairhuman.train.recipe import TrainRecipe

METHODS: dict[str, dict[str, Any]] = {
    "LS": {"strategy": "ls", "fairness": {"measure_every": 0}},
    "MPD, exact": {"strategy": "mpd", "fairness": {"mode": "exact"}},
    "MPD, exact, pairs": {"strategy": "mpd", "fairness": {"mode": "exact", "pairwise": True}},
}
AMORTISED = {
    "MPD, amortised": "MPD, exact",
    "MPD, amortised, pairs": "MPD, exact, pairs",
}  # by the exact steps of their audits

OF_SDXL = ("lora", "controlnet", "t2i_adapter")
RANKS = {False: (64, 128, 256), True: (16,)}  # of LoRA; by whether it is another base than SDXL
RECIPES = {"controlnet": "controlnet-sdxl.yaml", "t2i_adapter": "t2i-adapter-sdxl.yaml"}  # of kinds other than LoRA
NAMES = {"controlnet": "ControlNet", "t2i_adapter": "T2I-adapter", "full": "full fine-tuning"}


@dataclass(frozen=True, slots=True)
class MemoryRow:
    """One run and its memory, and that with cached texts."""

    model: str
    kind: str
    way: str
    batch_size: int
    precision: str
    memory: Memory
    cached: Memory
    quantize: str = "none"


@dataclass(frozen=True, slots=True)
class FitRow:
    """A run, the bytes of a card, and the changes by which the run fits it at the least cost in time; None: none do.

    recipe: one that ships for runs of this kind; None: there is none.
    """

    model: str
    recipe: str | None
    kind: str
    batch_size: int
    precision: str
    quantize: str
    card: int
    change: MemoryChange | None


def memory_table(settings: MemoryTableSettings) -> Iterator[MemoryRow]:
    """Compute the rows one by one; each takes seconds to a minute.

    Rows of amortised modes are combined from others: an ordinary step is that of LS, an audit an exact step. Of `all`
    models, kinds that are SDXL's alone have no rows on other bases.
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
            shared = run.kind, run.batch_size, run.precision, run.quantize
            yield FitRow(run.model, run.recipe, *shared, card, change)


def _row(run: "_Run", way: str, cached: Memory) -> MemoryRow:
    """Return a row from the memory with cached texts."""
    bare = replace(cached, resting=None)
    return MemoryRow(run.model, run.kind, way, run.batch_size, run.precision, bare, cached, run.quantize)


def row_count(settings: MemoryTableSettings) -> int:
    """Return the number of rows of the table."""
    return len(list(_runs(settings))) * (len(METHODS) + len(AMORTISED))


class _Run(NamedTuple):
    """A combination of settings; `values` are those of its kind."""

    model: str
    recipe: str | None
    kind: str
    values: dict[str, Any]
    batch_size: int
    precision: str
    quantize: str


def _runs(settings: MemoryTableSettings) -> Iterator[_Run]:
    for model in (SDXL, *PUBLISHED) if settings.model == "all" else (settings.model,):
        base, kinds = name_of(model), list[tuple[str, str | None, dict[str, Any]]]()
        for chosen in settings.kinds or (("lora",) if base.flow else OF_SDXL):
            if chosen == "lora":
                ranks = settings.ranks or RANKS[base.flow]
                kinds += [(f"LoRA {rank}", base.recipe, {"lora": {"rank": rank}}) for rank in ranks]
            elif settings.model != "all" or not base.flow or chosen == "full":
                kinds.append((NAMES[chosen], RECIPES.get(chosen), {"kind": chosen}))
        choices = product(settings.precisions, settings.batch_sizes, settings.quantize, kinds)
        for precision, batch_size, quantize, (kind, recipe, values) in choices:
            yield _Run(model, recipe, kind, values, batch_size, precision, quantize)


def _recipe(settings: MemoryTableSettings, run: _Run, more: dict[str, Any]) -> TrainRecipe:
    values: dict[str, Any] = {
        "model": run.model,
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
