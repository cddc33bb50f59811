"""`fairhuman data`: build data sets, look at them and export them."""

import signal
from pathlib import Path
from typing import Annotated

from typer import Argument, Exit, Option, Typer

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import (
    DryRun,
    Full,
    Host,
    NewFolder,
    Numbers,
    Overrides,
    PageOverrides,
    Port,
    ProxyHeaders,
    Recipe,
    Workers,
    check_existing,
    find_recipe,
    new_folder,
    settings_of,
    written_file,
)
from fairhuman.errors import RecipeError
from fairhuman.report.text import plural

data_app = Typer(no_args_is_help=True, help="Build data sets, look at them, export them.", rich_markup_mode=None)

Source = Annotated[Path, Argument(help="Folder or file: photos, imagefolder, WebDataset, Parquet, ...")]
DataSet = Annotated[Path, Argument(help="Folder of a data set.")]
Page = Annotated[Path, Option(callback=written_file, help="HTML page to write.")]


@data_app.command()
def build(
    source: Source,
    out: Annotated[Path, Argument(callback=new_folder, help="Folder of the data set.")],
    overrides: Overrides = None,
    recipe: Recipe = None,
    workers: Annotated[
        int | None, Option(min=0, help="Number of processes; one per core by default; 0: in this one.")
    ] = None,
    runner: Annotated[str, Option(help="native (this machine) or ray.")] = "native",
    address: Annotated[str | None, Option(help="Address of a Ray cluster; by default, one is started.")] = None,
    retry_failed: Annotated[bool, Option("--retry-failed", help="Retry rows on which a step failed.")] = False,
    dry_run: DryRun = False,
    full: Full = False,
) -> None:
    """Build a data set: check, detect, filter, caption, condition. Run the same command again to resume.

    Example: fairhuman data build photos people min_side=512
    """
    from fairhuman.data.pipeline.run import Workers, build_dataset, plan_build
    from fairhuman.data.pipeline.settings import BuildRecipe
    from fairhuman.utils.signals import announced, end_at_once

    settings = settings_of(BuildRecipe, "data build", overrides, recipe)
    crew = Workers.choose(workers, runner, address)
    display = ConsoleDisplay()
    if dry_run:
        display.settings(settings, full)
        for line in plan_build(source, out, settings):
            display.say(line)
        return
    try:
        with display, announced("Stopping; run the same command again to resume"):
            built = build_dataset(source, out, settings, crew, retry_failed, display.progress, display.say)
    except KeyboardInterrupt:
        if crew.processes:
            end_at_once(128 + signal.SIGINT)  # Daft's threads abort a process that ends after Ctrl-C as others do
        raise
    # Plots take 60 MB, which the detectors beside this process need.
    from fairhuman.data.look.figures import write_statistics
    from fairhuman.data.look.statistics import dataset_statistics

    found = dataset_statistics(out)
    write_statistics(found, out / "report.html")
    listing, report = built.listing, built.report
    if built.before not in (None, report["kept"]):
        display.say(f"{out}: {plural(built.before, 'picture')} were there before, {report['kept']:,} now")
    display.say(f"{listing.rows} rows: {listing.new} new, {listing.changed} changed, {listing.gone} gone")
    display.counts({f"left out by {stage}": reasons for stage, reasons in report["rejected"].items()}, "  ")
    display.counts(report["notes"], "  ")
    display.say(found.regions_line())
    for line in found.caption_lines():
        display.say(line)
    display.say(f"{report['kept']} kept; done: {out}; report: {out / 'report.html'}")
    display.say(f"train on it with data={out}, look at it with fairhuman data show {out}")


@data_app.command()
def validation(
    source: Source,
    out: NewFolder,
    overrides: Overrides = None,
    recipe: Recipe = None,
    count: Annotated[int | None, Option(min=1, help="Number of pictures; 5000 by default.")] = None,
    seed: Annotated[int | None, Option(min=0, help="Another seed draws another set.")] = None,
    sampling: Annotated[str | None, Option(help="random (the paper) or stratified.")] = None,
    draws: Annotated[int | None, Option(min=1, help="Number of draws whose spread is reported.")] = None,
    allow_fewer: Annotated[bool, Option("--allow-fewer", help="Take all pictures if there are fewer.")] = False,
    dry_run: DryRun = False,
    full: Full = False,
) -> None:
    """Make a validation set with short prompts, ready for review.

    Example: fairhuman data validation people val --count 5000 --seed 0
    """
    from fairhuman.data.validation.build import build_validation
    from fairhuman.data.validation.plan import plan_validation
    from fairhuman.data.validation.settings import ValidationSetSettings

    given = {"count": count, "seed": seed, "sampling": sampling, "draws": draws, "allow_fewer": allow_fewer or None}
    settings = settings_of(ValidationSetSettings, "data validation", overrides, recipe, given)
    display = ConsoleDisplay()
    if dry_run:
        display.settings(settings, full)
        for line in plan_validation(source, out, settings):
            display.say(line)
        return
    with display:
        summary = build_validation(source, out, settings, display.progress, display.say)
    display.counts({"left out": summary.reasons}, "  ")
    display.say(f"{summary.pictures} of {summary.usable} usable pictures; look at {summary.report}")
    display.say(f"done: {out}; review it with fairhuman data review {out}")


@data_app.command()
def review(
    folder: DataSet,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    reviews_per_picture: Annotated[int, Option(min=1, help="Number of reviewers per picture.")] = 1,
    lease_seconds: Annotated[float, Option(help="How long a picture is reserved for its reviewer.")] = 600.0,
    apply: Annotated[bool, Option("--apply", help="Write reviewed.jsonl and serve nothing.")] = False,
    url: Annotated[str | None, Option(help="Public address, such as https://review.example.org.")] = None,
    proxy_headers: ProxyHeaders = None,
    dry_run: DryRun = False,
) -> None:
    """Review pictures and prompts by hand on a local web page, where every decision is saved at once.

    Example: fairhuman data review val
    """
    from fairhuman.data.review import ReviewSettings, apply_review, serve_review

    given = {"reviews_per_picture": reviews_per_picture, "lease_seconds": lease_seconds, "url": url}
    settings = settings_of(ReviewSettings, "data review", None, given=given)
    display = ConsoleDisplay()
    if dry_run:
        what = "reviewed.jsonl" if apply else f"the review's decisions, served at {host}:{port},"
        _would_write(folder, what, folder, display)
        return
    if not apply:
        serve_review(folder, settings, host, port, display.say, proxy_headers)
        display.say(
            f"write what was decided with fairhuman data review {folder} --apply; the set is then read as reviewed"
        )
        return
    summary = apply_review(folder, settings)
    for line in summary.lines():
        display.say(line)
    kept = f"{folder / 'reviewed.jsonl'}; {folder} is now read as reviewed, with {plural(summary.kept, 'picture')}"
    if not summary.undecided:
        display.say(f"done: {kept}")
        return
    left = plural(summary.undecided, "undecided picture")
    display.say(f"written: {kept}, without {left}; decide with fairhuman data review {folder}, then apply it again")


@data_app.command("benchmark-detectors")
def benchmark_detectors(
    folder: DataSet,
    overrides: Overrides = None,
    recipe: Recipe = None,
    part: Annotated[list[str] | None, Option(help="face, hand or person; the first two by default.")] = None,
    workers: Workers = None,
    json: Numbers = None,
) -> None:
    """Run detectors on a data set with true boxes and report precision and recall for each part.

    Example: fairhuman data benchmark-detectors people hand=mediapipe
    """
    import os
    from functools import partial

    from fairhuman.data.look.detectors import benchmark_data_set
    from fairhuman.data.pictures.notes import LoadReport
    from fairhuman.detect.settings import DetectSettings

    settings = settings_of(DetectSettings, "data benchmark-detectors", overrides, recipe)
    report, parts, processes = LoadReport(), part or ("face", "hand"), workers or os.cpu_count() or 1
    if settings.regions:
        raise RecipeError("regions: only detectors of faces, hands and persons are measured here; leave it out")
    for name in parts:
        if name not in settings.kinds:
            raise RecipeError(f"--part must be one of {', '.join(settings.kinds)}, found {name!r}")
    with ConsoleDisplay() as display:
        progress = partial(display.progress, "detect")
        found = benchmark_data_set(folder, settings, report, parts=parts, workers=processes, progress=progress)
    for line in found.lines():
        display.say(line)
    display.counts(report.counts())
    if json is not None:
        found.save(json)


@data_app.command()
def formats() -> None:
    """List the formats of data sets that can be read, and the files that identify each.

    Example: fairhuman data formats
    """
    from fairhuman.data.sources import format_lines

    display = ConsoleDisplay()
    for line in format_lines():
        display.say(line)


@data_app.command()
def check(
    path: DataSet,
    overrides: Overrides = None,
    json: Annotated[Path | None, Option(callback=written_file, help="JSON file for all problems.")] = None,
) -> None:
    """Decode every picture and painted mask and report problems; exit code 1 if anything had to be left out.

    Example: fairhuman data check photos
    """
    from fairhuman.data.look.check import check_dataset
    from fairhuman.data.look.reading import LookSettings

    settings = settings_of(LookSettings, "data check", overrides)
    with ConsoleDisplay() as display:
        summary = check_dataset(path, settings.source, settings.regions, display.progress)
    for line in summary.lines():
        display.say(line)
    if json is not None:
        summary.save(json)
    raise Exit(0 if summary.good else 1)


@data_app.command()
def show(
    path: DataSet,
    overrides: PageOverrides = None,
    out: Page = Path("data.html"),
    count: Annotated[int, Option(min=1, help="Number of pictures, in pages of 60.")] = 240,
    seed: Annotated[int, Option(min=0, help="Seed of the draw.")] = 0,
    first: Annotated[bool, Option("--first", help="Show the first pictures instead of a draw.")] = False,
    rejected: Annotated[bool, Option(help="Also show what a build left out.")] = True,
    dry_run: DryRun = False,
) -> None:
    """Write a page of pictures with their boxes, masks, poses and captions.

    Example: fairhuman data show people --out people.html
    """
    from fairhuman.data.look.reading import LookSettings

    settings, display = settings_of(LookSettings, "data show", overrides), ConsoleDisplay()
    if dry_run:
        _would_write(path, "a page of pictures", out, display, settings.source.format)
        return
    from fairhuman.data.look.reading import ignored_by_build
    from fairhuman.data.look.show import show_dataset

    for text in ignored_by_build(path, settings.source):
        display.say(text)
    how = settings.source, settings.regions
    with display:
        shown = show_dataset(path, out, count, seed, first, rejected, *how, display.progress)
    display.say(f"{shown} pictures: {out}")


@data_app.command()
def edits(
    path: DataSet,
    undo: Annotated[
        int | None, Option(min=1, help="Take back the change of this number, or give up this line if it is damaged.")
    ] = None,
) -> None:
    """List the changes that people made to a data set by hand in the studio, or take one back.

    Example: fairhuman data edits photos --undo 12
    """
    check_existing(path)
    from fairhuman.data.sources.edits import edits_file, read_edits
    from fairhuman.data.sources.undo import undo_edit

    display = ConsoleDisplay()
    if undo is not None:
        display.say(undo_edit(path, undo))
        return
    found = read_edits(path)
    without = found.without_effect()
    for line in found.lines:
        reason = f"  ({without[line.n]})" if line.n in without else ""
        display.say(f"{line.n}  {line.values.get('at', '')}  {line.key}  {line.text()}{reason}")
    keys = [key for key in sorted(found.changed_keys()) if found.standing(key)]
    display.say(f"{edits_file(path)}: {plural(len(found.lines), 'change')}, of {plural(len(keys), 'picture')}")


@data_app.command()
def stats(
    path: DataSet,
    overrides: PageOverrides = None,
    out: Page = Path("stats.html"),
    json: Numbers = None,
    tokenizer: Annotated[str | None, Option(help="Model whose tokenizer measures captions.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Write a page of counts, areas, aspect ratios and scores; for a build, also how many rows each step kept.

    Example: fairhuman data stats people --out stats.html
    """
    from fairhuman.data.look.reading import LookSettings

    settings, display = settings_of(LookSettings, "data stats", overrides), ConsoleDisplay()
    if dry_run:
        _would_write(path, "a page of numbers", out, display, settings.source.format)
        return
    from fairhuman.data.look.figures import write_statistics
    from fairhuman.data.look.reading import ignored_by_build
    from fairhuman.data.look.statistics import dataset_statistics

    for text in ignored_by_build(path, settings.source):
        display.say(text)
    with display:
        found = dataset_statistics(path, settings.source, settings.regions, tokenizer, display.progress)
    write_statistics(found, out)
    if json is not None:
        found.save(json)
    display.say(f"statistics: {out}")


@data_app.command()
def export(
    path: DataSet,
    out: Annotated[Path, Argument(callback=new_folder, help="New or empty folder.")],
    overrides: Overrides = None,
    format: Annotated[str, Option(help="webdataset, imagefolder or parquet.")] = "webdataset",
    shard_rows: Annotated[int, Option(min=1, help="Records per tar or table.")] = 1000,
    closeups: Annotated[str | None, Option(help="Export close-ups of this region: face, hand, ...")] = None,
    dry_run: DryRun = False,
) -> None:
    """Convert a data set from any format to another.

    Example: fairhuman data export people shards --format webdataset

    Example: fairhuman data export people faces --format parquet --closeups face context=2 min_side=32 size=512
    """
    from fairhuman.data.export.closeups import CloseupSettings
    from fairhuman.data.export.run import FORMATS, export_dataset

    if overrides and closeups is None:
        raise RecipeError(f"settings belong to --closeups REGION; found {overrides[0]!r}")
    given = {"region": closeups}
    near = None if closeups is None else settings_of(CloseupSettings, "--closeups", overrides, given=given)
    display = ConsoleDisplay()
    if dry_run and format in FORMATS:
        what = "the same" if near is None else f"close-ups of its {near.region} boxes"
        _would_write(path, f"{what} as {format}", out, display)
        return
    with display:
        summary = export_dataset(path, out, format, shard_rows, progress=display.progress, near=near)
    display.counts(summary.report.counts())
    display.say(f"{summary.records} {'records' if near is None else 'close-ups'}; done: {summary.out}")


@data_app.command()
def cache(
    path: Annotated[
        Path, Argument(callback=find_recipe, help="Recipe of a training run (.yaml), or folder of a data set.")
    ],
    overrides: Overrides = None,
    dry_run: DryRun = False,
) -> None:
    """Fill the caches of a training run in advance: for a recipe, latents and text embeddings; for a data set,
    copies of its tables. A run fills both by itself.

    Example: fairhuman data cache recipes/lora-sdxl.yaml data=people cache.text=true
    """
    if path.suffix in (".yaml", ".yml"):
        _cache_recipe(path, overrides, dry_run)
        return
    if overrides:
        raise RecipeError(f"{path}: settings belong to a recipe, which ends in .yaml; found {overrides[0]!r}")
    from fairhuman.data.pictures.arrow_copies import arrow_folder, copy_tables
    from fairhuman.data.pictures.notes import LoadReport
    from fairhuman.data.sources import SourceSettings, read_source

    display, report = ConsoleDisplay(), LoadReport()
    if dry_run:
        _would_write(path, "copies of its tables", arrow_folder(), display)
        return
    records = read_source(path, (), SourceSettings(), report)
    copies = copy_tables(records, arrow_folder(), ("pose", "depth"), report=report)
    display.counts(report.counts())
    where = "small enough to be kept in main memory" if copies.in_memory else f"copied to {arrow_folder()}"
    display.say(f"{copies.tables} tables, {where}; {copies.removed} stale copies removed")


def _cache_recipe(path: Path, overrides: list[str] | None, dry_run: bool) -> None:
    from fairhuman.data.pictures.notes import LoadReport
    from fairhuman.train.resume import load_recipe

    display, report = ConsoleDisplay(), LoadReport()
    recipe = load_recipe(path, overrides or (), display.say)
    check_existing(*(source.path for source in recipe.sources))
    from fairhuman.train.cache.fill import fill
    from fairhuman.train.cache.plan import budget
    from fairhuman.train.data import load_data

    with display:
        if dry_run:
            lines = [budget(recipe, load_data(recipe, report)).line()]
        else:
            lines = fill(recipe, report, display.say, display.progress).lines()
    display.counts(report.counts())
    for line in lines:
        display.say(line)


def _would_write(path: Path, what: str, out: Path, display: ConsoleDisplay, format: str | None = None) -> None:
    from fairhuman.data.sources import source_kind

    display.say(f"{path}, read as {source_kind(path, format)}: would write {what} to {out}")
