"""`fairhuman bench`: speed and memory of this machine."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
from typer import Argument, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import DryRun, Numbers, find_recipe, settings_of, written_file
from fairhuman.errors import RecipeError
from fairhuman.report.text import percent

if TYPE_CHECKING:
    from fairhuman.bench.memory_table import FitRow, MemoryRow
    from fairhuman.bench.settings import MemoryTableSettings
    from fairhuman.train.memory import Memory, MemoryChange
    from fairhuman.train.recipe import TrainRecipe

GIB = 2**30
ROUNDS = 15  # steps of each kind


def bench(
    overrides: Annotated[list[str] | None, Argument(help="Settings of the run, or of the table.")] = None,
    recipe: Annotated[
        Path | None, Option(callback=find_recipe, help="Training recipe; by default, the small SDXL on noise.")
    ] = None,
    memory: Annotated[bool, Option("--memory", help="Compute memory from shapes: the recipe's, or SDXL's.")] = False,
    fit: Annotated[
        list[str] | None,
        Option(
            help="With --memory: a card such as 8GB; say the settings that fit at the least cost in time; repeatable."
        ),
    ] = None,
    profile: Annotated[
        Path | None, Option(callback=written_file, help="Write a Chrome trace of five steps here instead.")
    ] = None,
    rounds: Annotated[int | None, Option(min=1, help=f"Steps of each kind; {ROUNDS} by default.")] = None,
    out: Numbers = None,
    dry_run: DryRun = False,
) -> None:
    """Measure training speed here as ratios to a bare loop, or compute from shapes the memory that runs need.

    Example: fairhuman bench --memory
    """
    from fairhuman.bench.noise import recipe_or_noise
    from fairhuman.bench.settings import MemoryTableSettings

    display = ConsoleDisplay()
    cards = _cards(fit or (), memory)
    _refuse_unused(memory, profile, rounds, out)
    if memory and recipe is None:
        table = settings_of(MemoryTableSettings, "bench --memory", overrides)
        if dry_run:
            display.settings(table)
        elif cards:
            rows = _fits(table, cards, display)
            _save(out, {"settings": table.model_dump(mode="json"), "rows": rows}, display)
        else:
            rows = _memory_table(table, display)
            _save(out, {"settings": table.model_dump(mode="json"), "rows": rows}, display)
        return
    with recipe_or_noise(recipe, overrides or (), not dry_run, display.say) as run:
        if dry_run:
            display.settings(run)
        elif memory:
            _save(out, {"recipe": run.model_dump(mode="json"), "bytes": _memory(run, cards, display)}, display)
        elif profile is not None:
            _profile(run, profile, display)
        else:
            speed = _speed(run, rounds or ROUNDS, display)
            _save(out, {"recipe": run.model_dump(mode="json"), "speed": speed}, display)


def _speed(recipe: "TrainRecipe", rounds: int, display: ConsoleDisplay) -> list[dict[str, Any]]:
    """Measure the trainer against a bare loop, and print the ratios."""
    import torch

    from fairhuman.bench.speed import BARE, available_modes, measure_speed

    found = measure_speed(recipe, rounds, available_modes(recipe))
    clock = "wall-clock" if torch.cuda.is_available() else "CPU"
    table = Table(
        "steps", "pictures a second", f"speed against the {BARE} ({clock} time)", "waiting for data", "warm-up, s"
    )
    for one in found:
        rates, ratios = _spread(one.images_per_s, "{:.3g}"), _spread(one.ratio, "{:.3f}")
        table.add_row(one.name, rates, ratios, percent(one.waiting[1], 1), f"{one.warm_up_s:.1f}")
    display.table(table)
    display.say(f"minimum / median / maximum of {rounds} rounds; amortised modes without their audits")
    return [asdict(one) for one in found]


def _profile(recipe: "TrainRecipe", out: Path, display: ConsoleDisplay) -> None:
    """Write a trace of some steps, and print where their time went."""
    from fairhuman.bench.speed import trace
    from fairhuman.utils.files import writing

    with writing(out):
        spent = trace(recipe, out)
    table = Table("of a step", "ms", "share")
    for name, seconds in spent.items():
        table.add_row(name, f"{1000 * seconds:.1f}", percent(seconds / sum(spent.values()), 1))
    display.table(table)
    display.say(f"trace: {out}; open it in perfetto.dev or chrome://tracing")


def _cards(fit: Sequence[str], memory: bool) -> dict[str, int]:
    """Bytes of each card of `--fit`.

    Raises:
        RecipeError: not with `--memory`, or not a size.
    """
    from fairhuman.train.preflight import parse_memory

    if fit and not memory:
        raise RecipeError("--fit says what fits a card's memory: add --memory")
    return {text: parse_memory(text, "--fit") for text in fit}


def _refuse_unused(memory: bool, profile: Path | None, rounds: int | None, out: Path | None) -> None:
    """Raise a RecipeError for an option that another one would silence."""
    given = {"--profile": profile, "--rounds": rounds, "--out": out}
    unused = ["--profile", "--rounds"] if memory else ["--rounds", "--out"] if profile is not None else []
    for name in unused:
        if given[name] is not None:
            why = (
                "--memory computes and runs no steps"
                if memory
                else "--profile writes a trace of five steps, no numbers"
            )
            raise RecipeError(f"{why}: remove {name}")


def _memory(recipe: "TrainRecipe", cards: Mapping[str, int], display: ConsoleDisplay) -> dict[str, int | None]:
    """Print what a recipe needs, and the changes by which it fits cards."""
    from fairhuman.train.memory import combined_changes, memory_of

    memory = memory_of(recipe)
    table = Table("held", "GiB")
    for name, value in asdict(memory).items():
        if value is not None:
            table.add_row(name, f"{value / GIB:.2f}")
    table.add_row("a device must have", f"{memory.needed / GIB:.2f}")
    display.table(table)
    for name, card in cards.items():
        display.say(f"{name}: {_advice(combined_changes(recipe, card))}")
    return _plain(memory)


def _advice(change: "MemoryChange | None") -> str:
    """Say by which changes a run fits."""
    if change is None:
        return "no change makes it fit"
    return str(change) if change.overrides else f"fits as it is{change}"


def _fits(settings: "MemoryTableSettings", cards: Mapping[str, int], display: ConsoleDisplay) -> list[dict[str, Any]]:
    """Print by which settings runs fit cards, a table for each run."""
    from fairhuman.bench.memory_table import fits

    names, rows = {card: name for name, card in cards.items()}, []
    with display:
        for row in fits(settings, list(cards.values())):
            rows.append(row)
            display.status(f"{len(rows)} rows computed")
    for run, group in groupby(rows, key=lambda row: replace(row, card=0, change=None)):
        title = f"{run.model}, {run.kind}, MPD, {_setting(run)}" + (f"; recipes/{run.recipe}" if run.recipe else "")
        table = Table("card", "cheapest settings that fit", title=title, title_justify="left")
        for row in group:
            table.add_row(names[row.card], _advice(row.change))
        display.table(table)
    display.say("GiB that a device must have, from shapes alone")
    return [
        {**asdict(row), "change": row.change and {"overrides": row.change.overrides, "needed": row.change.needed}}
        for row in rows
    ]


def _setting(row: "FitRow | MemoryRow") -> str:
    return f"batch {row.batch_size}, {row.precision}" + ("" if row.quantize == "none" else f", {row.quantize}")


def _memory_table(settings: "MemoryTableSettings", display: ConsoleDisplay) -> list[dict[str, Any]]:
    """Print what runs need, a table for each batch size and precision."""
    from fairhuman.bench.memory_table import memory_table, row_count

    rows, count = [], row_count(settings)
    with display:
        for row in memory_table(settings):
            rows.append(row)
            display.status(f"{len(rows)} of {count} runs computed")
    for title, group in groupby(rows, key=lambda row: f"{row.model}, {_setting(row)}"):
        columns = ("run", "weights", "Adam", "step", "audit", "device", "texts cached")
        table = Table(*columns, title=title, title_justify="left")
        for row in group:
            held = row.memory
            parts = (held.frozen + held.trained, held.optimizer, held.step, held.audit, held.needed, row.cached.needed)
            table.add_row(f"{row.kind}, {row.way}", *("" if part is None else f"{part / GIB:.1f}" for part in parts))
        display.table(table)
    display.say("GiB, from shapes alone; weights and audit: see the docs on memory")
    return [{**asdict(row), "memory": _plain(row.memory), "cached": _plain(row.cached)} for row in rows]


def _plain(memory: "Memory") -> dict[str, int | None]:
    return {**asdict(memory), "total": memory.total, "needed": memory.needed}


def _save(out: Path | None, values: dict[str, Any], display: ConsoleDisplay) -> None:
    from fairhuman.utils.files import write_json, writing
    from fairhuman.utils.provenance import origin

    if out is not None:
        with writing(out):
            write_json(out, {**origin(), **values})
        display.say(f"numbers: {out}")


def _spread(values: tuple[float, float, float], form: str) -> str:
    return " / ".join(form.format(value) for value in values)
