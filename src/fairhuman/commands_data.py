"""What the commands of `fairhuman data` do; `cli_data` only reads the command line."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fairhuman import recipe as recipes
from fairhuman.data.build.run import Workers, build_dataset
from fairhuman.data.build.settings import BuildRecipe
from fairhuman.data.report import LoadReport
from fairhuman.data.sources import SOURCES, source_kind
from fairhuman.errors import RecipeError

RUNNERS = ("native", "ray")


def run_build(
    source: Path,
    out: Path,
    path: Path | None,
    overrides: Sequence[str],
    processes: int | None,
    runner: str,
    address: str | None,
    retry_failed: bool,
    dry_run: bool,
    console: Console,
) -> None:
    """Build a data set and say what came of it."""
    recipe = _settings(BuildRecipe, path, overrides, "data build")
    if runner not in RUNNERS:
        raise RecipeError(f"--runner must be one of {', '.join(RUNNERS)}, found {runner!r}")
    if address is not None and runner != "ray":
        raise RecipeError("--address is of a Ray cluster: give --runner ray with it")
    if dry_run:
        _show_source(source, recipe, console)
        return
    ray = (address or "local") if runner == "ray" else None
    workers = Workers((os.cpu_count() or 1) if processes is None else processes, ray)
    with stages(console) as progress:
        built = build_dataset(source, out, recipe, workers, retry_failed, progress)
    listing, report = built.listing, built.report
    _say(console, f"{listing.rows} rows: {listing.new} new, {listing.changed} changed, {listing.gone} gone")
    for stage, reasons in report["rejected"].items():
        for reason, number in reasons.items():
            _say(console, f"  left out by {stage}: {reason} ({number})")
    _say(console, f"{report['kept']} kept; done: {out}; train on it with data={out}, look at it with data show {out}")


def _settings(kind: type[Any], path: Path | None, overrides: Sequence[str], origin: str) -> Any:
    if path is not None:
        return recipes.load(kind, path, overrides)
    return recipes.build(kind, {}, overrides, origin=origin)


def _show_source(source: Path, recipe: BuildRecipe, console: Console) -> None:
    """Print the resolved recipe and what the source holds."""
    console.print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
    kind = recipe.source.format or source_kind(source)
    report = LoadReport()
    rows = sum(1 for _ in SOURCES[kind].rows(source, report))
    _say(console, f"{source}: {rows} rows, format {kind}; {len(report.skipped())} lines can't be read")


def _say(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False, soft_wrap=True)


@contextmanager
def stages(console: Console) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show how far each stage is: a bar, or where output isn't a terminal, a line every tenth part."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    tasks: dict[str, TaskID] = {}
    told: dict[str, int] = {}
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:

        def progress(stage: str, done: int, total: int | None) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total)
            bar.update(tasks[stage], completed=done, total=total)
            tenth = 10 * done // total if total else 0
            if not console.is_terminal and told.get(stage) != tenth:
                told[stage] = tenth
                _say(console, f"{stage}: {done}" + (f"/{total}" if total is not None else ""))

        yield progress
