"""What the commands of `fairhuman data` do; `cli_data` only reads the command line."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from fairhuman import config
from fairhuman.cli.console import say, say_counts
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.run import Workers, build_dataset
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.data.sources import SOURCES, SourceSettings, read_source, source_kind
from fairhuman.detect.settings import DetectSettings
from fairhuman.errors import RecipeError
from fairhuman.utils.files import write_json, writing

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
    recipe = settings_of(BuildRecipe, path, overrides, "data build")
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
    # Plots take 60 MB, which the detectors beside this process need.
    from fairhuman.data.look.figures import write_statistics
    from fairhuman.data.look.statistics import dataset_statistics

    write_statistics(dataset_statistics(out), out / "report.html")
    listing, report = built.listing, built.report
    say(console, f"{listing.rows} rows: {listing.new} new, {listing.changed} changed, {listing.gone} gone")
    for stage, reasons in report["rejected"].items():
        for reason, number in reasons.items():
            say(console, f"  left out by {stage}: {reason} ({number})")
    for action, reasons in report["notes"].items():
        for reason, number in reasons.items():
            say(console, f"  {action}: {reason} ({number})")
    say(console, f"{report['kept']} kept; done: {out}; report: {out / 'report.html'}")
    say(console, f"train on it with data={out}, look at it with fairhuman data show {out}")


def settings_of(kind: type[Any], path: Path | None, overrides: Sequence[str], origin: str) -> Any:
    """Settings of a recipe's file, or the defaults, with overrides."""
    if path is not None:
        return config.load(kind, path, overrides)
    return config.build(kind, {}, overrides, origin=origin)


def _show_source(source: Path, recipe: BuildRecipe, console: Console) -> None:
    """Print the resolved recipe and what the source holds."""
    console.print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
    kind = source_kind(source, recipe.source.format)
    report = LoadReport()
    rows = sum(1 for _ in SOURCES[kind].rows(source, report))
    say(console, f"{source}: {rows} rows, format {kind}; {len(report.skipped())} lines can't be read")


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
                say(console, f"{stage}: {done}" + (f"/{total}" if total is not None else ""))

        yield progress


def run_validation(
    source: Path,
    out: Path,
    path: Path | None,
    values: dict[str, Any],
    overrides: Sequence[str],
    dry_run: bool,
    console: Console,
) -> None:
    """Make a validation set and say what came of it."""
    from fairhuman.data.validation.build import build_validation
    from fairhuman.data.validation.settings import ValidationSetSettings

    given = [f"{name}={value}" for name, value in values.items()]
    settings = settings_of(ValidationSetSettings, path, [*given, *overrides], "data validation")
    if dry_run:
        console.print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
        return
    with stages(console) as progress:
        summary = build_validation(source, out, settings, progress, lambda text: say(console, text))
    for reason, number in summary.reasons.items():
        say(console, f"  left out: {reason} ({number})")
    say(console, f"{summary.pictures} of {summary.usable} usable pictures; look at {summary.report}")
    say(console, f"done: {out}; review it with fairhuman data review {out}")


def run_review(
    folder: Path, values: dict[str, Any], host: str, port: int, apply: bool, dry_run: bool, console: Console
) -> None:
    """Serve the review page, or write down what the reviewers decided."""
    from fairhuman.data.review import ReviewSettings, apply_review, serve_review

    settings = config.build(ReviewSettings, values, origin="data review")
    if dry_run:
        _would(
            folder, "reviewed.jsonl" if apply else f"the review's decisions, served at {host}:{port},", folder, console
        )
        return
    if not apply:
        serve_review(folder, settings, host, port, lambda text: say(console, text))
        return
    summary = apply_review(folder, settings)
    for name, value in asdict(summary).items():
        say(console, f"{name.replace('_', ' ')}: {value}")
    say(console, f"done: {folder / 'reviewed.jsonl'}")


def run_detector_benchmark(
    folder: Path,
    path: Path | None,
    overrides: Sequence[str],
    parts: Sequence[str],
    workers: int | None,
    file: Path | None,
    console: Console,
) -> None:
    """Say how well detectors find the true boxes of a data set."""
    from fairhuman.data.look.detectors import benchmark_data_set

    settings = settings_of(DetectSettings, path, overrides, "data benchmark-detectors")
    for part in parts:
        if part not in settings.kinds:
            raise RecipeError(f"--part must be one of {', '.join(settings.kinds)}, found {part!r}")
    report = LoadReport()
    with stages(console) as progress:
        found = benchmark_data_set(
            folder,
            settings,
            report,
            parts=parts,
            workers=workers or os.cpu_count() or 1,
            progress=lambda done, total: progress("detect", done, total),
        )
    for score in found.scores:
        shares = {"precision": score.precision, "recall": score.recall}
        said = [f"{name} {s.value:.3f} [{s.low:.3f}, {s.high:.3f}] of {s.n}" for name, s in shares.items()]
        where = f"{score.part} by {score.detector}, IoU >= {score.overlap:g}, {score.pictures} pictures"
        say(console, f"{where}: {', '.join(said)}")
    for number, reason in found.failures.items():
        say(console, f"picture {number}: left out, {reason}")
    say_counts(console, report.counts())
    if file is not None:
        with writing(file):
            write_json(file, {"scores": [score.plain() for score in found.scores], "failures": dict(found.failures)})


def run_check(path: Path, file: Path | None, console: Console) -> bool:
    """Say what is wrong with a data set; whether nothing had to be left out."""
    from fairhuman.data.look.check import check_dataset

    with stages(console) as progress:
        summary = check_dataset(path, progress=progress)
    for line in summary.lines():
        say(console, line)
    if file is not None:
        summary.save(file)
    return summary.good


def run_show(
    path: Path, page: Path, count: int, seed: int, first: bool, rejected: bool, dry_run: bool, console: Console
) -> None:
    """Write the contact sheet."""
    if dry_run:
        _would(path, "a page of pictures", page, console)
        return
    from fairhuman.data.look.show import show_dataset

    with stages(console) as progress:
        shown = show_dataset(path, page, count, seed, first, rejected, progress=progress)
    say(console, f"{shown} pictures: {page}")


def run_statistics(
    path: Path, page: Path, file: Path | None, tokenizer: str | None, dry_run: bool, console: Console
) -> None:
    """Write the page of numbers."""
    if dry_run:
        _would(path, "a page of numbers", page, console)
        return
    from fairhuman.data.look.figures import write_statistics
    from fairhuman.data.look.statistics import dataset_statistics

    with stages(console) as progress:
        found = dataset_statistics(path, tokenizer=tokenizer, progress=progress)
    write_statistics(found, page)
    if file is not None:
        found.save(file)
    say(console, f"statistics: {page}")


def run_export(
    path: Path,
    out: Path,
    format: str,
    shard_rows: int,
    region: str | None,
    overrides: Sequence[str],
    dry_run: bool,
    console: Console,
) -> None:
    """Write a data set in another format, or close-ups of a region of it."""
    from fairhuman.data.export import FORMATS, CloseupSettings, export_dataset

    if overrides and region is None:
        raise RecipeError(f"settings belong to --closeups REGION; found {overrides[0]!r}")
    near = None if region is None else config.build(CloseupSettings, {"region": region}, overrides, "--closeups")
    if dry_run and format in FORMATS:
        _would(
            path, f"{'the same' if region is None else f'close-ups of its {region} boxes'} as {format}", out, console
        )
        return
    with stages(console) as progress:
        summary = export_dataset(path, out, format, shard_rows, progress=progress, near=near)
    say_counts(console, summary.report.counts())
    say(console, f"{summary.records} {'records' if near is None else 'close-ups'}; done: {summary.out}")


def run_cache(path: Path, overrides: Sequence[str], dry_run: bool, console: Console) -> None:
    """Fill the caches of a recipe's run, or copy a data set's tables for random reading."""
    from fairhuman.data.pictures.arrow_copies import arrow_folder, copy_tables

    if path.suffix in (".yaml", ".yml"):
        _fill_caches(path, overrides, dry_run, console)
        return
    if overrides:
        raise RecipeError(f"{path}: settings belong to a recipe, which ends in .yaml; found {overrides[0]!r}")
    if dry_run:
        _would(path, "copies of its tables", arrow_folder(), console)
        return
    report = LoadReport()
    records = read_source(path, (), SourceSettings(), report)
    copies = copy_tables(records, arrow_folder(), ("pose", "depth"))
    say_counts(console, report.counts())
    where = "small enough to be kept in main memory" if copies.in_memory else f"copied to {arrow_folder()}"
    say(console, f"{copies.tables} tables, {where}; {copies.removed} stale copies removed")


def _fill_caches(path: Path, overrides: Sequence[str], dry_run: bool, console: Console) -> None:
    from fairhuman.train.cache import fill
    from fairhuman.train.cache import plan as caches
    from fairhuman.train.data import load_data
    from fairhuman.train.recipe import TrainRecipe

    recipe = config.load(TrainRecipe, path, overrides)
    report = LoadReport()
    if dry_run:
        say(console, caches.budget(recipe, load_data(recipe, report)).line())
        say_counts(console, report.counts())
        return
    with stages(console) as progress:
        found = fill.fill(recipe, report, lambda text: say(console, text), progress)
    say_counts(console, report.counts())
    for note in found.notes:
        say(console, str(note))
    for name, new in found.new.items():
        unused = f"; {found.unused[name]} others, not of this recipe and its data now" if found.unused[name] else ""
        say(console, f"{name}: {new} new, {found.kept[name]} were there{unused}")
    if found.changed:
        say(console, f"{found.changed} new views are of pictures that have changed; their old latents aren't used")


def _would(path: Path, what: str, where: Path, console: Console) -> None:
    say(console, f"{path}, read as {source_kind(path)}: would write {what} to {where}")
