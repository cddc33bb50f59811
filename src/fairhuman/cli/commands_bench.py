"""What `fairhuman bench` does."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from fairhuman import config
from fairhuman.bench.memory_table import MemoryRow, memory_table, row_count
from fairhuman.bench.noise import noise_recipe
from fairhuman.bench.settings import MemoryTableSettings
from fairhuman.bench.speed import BARE, available_modes, measure_speed, trace
from fairhuman.cli.console import say
from fairhuman.train.memory import Memory, memory_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import write_json, writing
from fairhuman.utils.provenance import origin

GIB = 2**30


def run_speed(
    path: Path | None, overrides: Sequence[str], rounds: int, out: Path | None, dry_run: bool, console: Console
) -> None:
    """Measure the trainer against a bare loop, and print the ratios."""
    with _recipe(path, overrides, fill_caches=not dry_run) as recipe:
        if dry_run:
            _would(recipe, console)
            return
        found = measure_speed(recipe, rounds, available_modes(recipe))
    clock = "wall-clock" if torch.cuda.is_available() else "CPU"
    table = Table(
        "steps", "pictures a second", f"speed against the {BARE} ({clock} time)", "waiting for data", "warm-up, s"
    )
    for speed in found:
        table.add_row(
            speed.name,
            _three(speed.images_per_s, "{:.3g}"),
            _three(speed.ratio, "{:.3f}"),
            f"{speed.waiting[1]:.1%}",
            f"{speed.warm_up_s:.1f}",
        )
    console.print(table)
    say(console, f"minimum / median / maximum of {rounds} rounds; amortised modes without their audits")
    _save(out, {"recipe": recipe.model_dump(mode="json"), "speed": [asdict(speed) for speed in found]}, console)


def run_profile(path: Path | None, overrides: Sequence[str], out: Path, dry_run: bool, console: Console) -> None:
    """Write a trace of some steps, and print where their time went."""
    with _recipe(path, overrides, fill_caches=not dry_run) as recipe:
        if dry_run:
            _would(recipe, console)
            return
        with writing(out):
            spent = trace(recipe, out)
    table = Table("of a step", "ms", "share")
    for name, seconds in spent.items():
        table.add_row(name, f"{1000 * seconds:.1f}", f"{seconds / sum(spent.values()):.1%}")
    console.print(table)
    say(console, f"trace: {out}; open it in perfetto.dev or chrome://tracing")


def run_memory(path: Path | None, overrides: Sequence[str], out: Path | None, dry_run: bool, console: Console) -> None:
    """Print what a recipe needs, or the table of SDXL."""
    if path is not None:
        recipe = config.load(TrainRecipe, path, overrides)
        if dry_run:
            _would(recipe, console)
            return
        memory = memory_of(recipe)
        table = Table("held", "GiB")
        for name, value in asdict(memory).items():
            if value is not None:
                table.add_row(name, f"{value / GIB:.2f}")
        table.add_row("a device must have", f"{memory.needed / GIB:.2f}")
        console.print(table)
        _save(out, {"recipe": recipe.model_dump(mode="json"), "bytes": _plain(memory)}, console)
        return
    settings = config.build(MemoryTableSettings, {}, overrides, origin="bench --memory")
    if dry_run:
        console.print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
        return
    rows, count = [], row_count(settings)
    with console.status("computing") as status:
        for row in memory_table(settings):
            rows.append(row)
            status.update(f"{len(rows)} of {count} runs computed")
    for (batch_size, precision), group in groupby(rows, key=lambda row: (row.batch_size, row.precision)):
        console.print(_memory_table(f"batch {batch_size}, {precision}", list(group)))
    say(console, "GiB, from shapes alone; weights and audit: see the docs on performance")
    lines = [{**asdict(row), "memory": _plain(row.memory)} for row in rows]
    _save(out, {"settings": settings.model_dump(mode="json"), "rows": lines}, console)


def _memory_table(title: str, rows: Sequence[MemoryRow]) -> Table:
    table = Table("run", "weights", "Adam", "step", "audit", "device", title=title, title_justify="left")
    for row in rows:
        memory = row.memory
        held = (memory.frozen + memory.trained, memory.optimizer, memory.step, memory.audit, memory.needed)
        shown = ("" if value is None else f"{value / GIB:.1f}" for value in held)
        table.add_row(f"{row.kind}, {row.way}", *shown)
    return table


def _plain(memory: Memory) -> dict[str, int | None]:
    return {**asdict(memory), "total": memory.total, "needed": memory.needed}


@contextmanager
def _recipe(path: Path | None, overrides: Sequence[str], fill_caches: bool) -> Iterator[TrainRecipe]:
    """The recipe to measure; without one, of pictures of noise."""
    if path is not None:
        yield config.load(TrainRecipe, path, overrides)
        return
    with tempfile.TemporaryDirectory() as folder:
        yield noise_recipe(Path(folder), overrides, fill_caches)


def _would(recipe: TrainRecipe, console: Console) -> None:
    console.print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)


def _save(out: Path | None, values: dict[str, Any], console: Console) -> None:
    if out is not None:
        with writing(out):
            write_json(out, {**origin(), **values})
        say(console, f"numbers: {out}")


def _three(values: tuple[float, float, float], form: str) -> str:
    return " / ".join(form.format(value) for value in values)
