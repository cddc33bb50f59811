"""The command line of `fairhuman data`: one function a command, no logic."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

data_app = typer.Typer(no_args_is_help=True, help="Build, look at and export data sets.", rich_markup_mode=None)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show what would be done; write nothing.")]
Source = Annotated[Path, typer.Argument(help="Folder or file: photos, imagefolder, WebDataset, Parquet, ...")]
DataSet = Annotated[Path, typer.Argument(help="Folder of a data set.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings as key=value or section.key=value.")]
Recipe = Annotated[Path | None, typer.Option(help="YAML file of settings.")]


@data_app.command()
def build(
    source: Source,
    out: Annotated[Path, typer.Argument(help="Folder of the data set.")],
    overrides: Overrides = None,
    recipe: Recipe = None,
    workers: Annotated[int | None, typer.Option(min=0, help="Processes; one a core by default; 0: this one.")] = None,
    runner: Annotated[str, typer.Option(help="native (this machine) or ray.")] = "native",
    address: Annotated[str | None, typer.Option(help="Of the Ray cluster; without it one is started here.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try again where a tier failed.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Build a data set: check, detect, filter, caption, condition; the same command again goes on.

    Example: fairhuman data build photos people min_side=512
    """
    from fairhuman.cli.commands_data import run_build

    run_build(source, out, recipe, overrides or [], workers, runner, address, retry_failed, dry_run, Console())


@data_app.command()
def validation(
    source: Source,
    out: Annotated[Path, typer.Argument(help="New folder, or one that the same command has begun.")],
    overrides: Overrides = None,
    recipe: Recipe = None,
    count: Annotated[int | None, typer.Option(min=1, help="Pictures; 5000 by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another one draws another set.")] = None,
    sampling: Annotated[str | None, typer.Option(help="random (the paper) or stratified.")] = None,
    draws: Annotated[int | None, typer.Option(min=1, help="Draws whose spread is reported.")] = None,
    allow_fewer: Annotated[bool, typer.Option("--allow-fewer", help="Take all where there are fewer.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Make a validation set with short prompts, ready for review.

    Example: fairhuman data validation people val --count 5000 --seed 0
    """
    from fairhuman.cli.commands_data import run_validation

    values = {"count": count, "seed": seed, "sampling": sampling, "draws": draws, "allow_fewer": allow_fewer or None}
    given = {name: value for name, value in values.items() if value is not None}
    run_validation(source, out, recipe, given, overrides or [], dry_run, Console())


@data_app.command()
def review(
    folder: DataSet,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    reviews_per_picture: Annotated[int, typer.Option(min=1, help="Reviewers who look at each picture.")] = 1,
    lease_seconds: Annotated[float, typer.Option(help="How long a picture waits for its reviewer.")] = 600.0,
    apply: Annotated[bool, typer.Option("--apply", help="Write reviewed.jsonl, serve nothing.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Review pictures and prompts by hand on a local web page; every decision is on disk at once.

    Example: fairhuman data review val
    """
    from fairhuman.cli.commands_data import run_review

    settings = {"reviews_per_picture": reviews_per_picture, "lease_seconds": lease_seconds}
    run_review(folder, settings, host, port, apply, dry_run, Console())


@data_app.command("benchmark-detectors")
def benchmark_detectors(
    folder: DataSet,
    overrides: Overrides = None,
    recipe: Recipe = None,
    part: Annotated[list[str] | None, typer.Option(help="face, hand, person; the first two by default.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; one a core by default.")] = None,
    json: Annotated[Path | None, typer.Option(help="File for the numbers.")] = None,
) -> None:
    """Run detectors on a data set with true boxes: precision and recall of each part.

    Example: fairhuman data benchmark-detectors people hand=mediapipe
    """
    from fairhuman.cli.commands_data import run_detector_benchmark

    parts = tuple(part or ("face", "hand"))
    run_detector_benchmark(folder, recipe, overrides or [], parts, workers, json, Console())


@data_app.command()
def check(
    path: DataSet,
    json: Annotated[Path | None, typer.Option(help="File for all findings.")] = None,
) -> None:
    """Decode every picture and painted mask, and say what is wrong; exit code 1 if anything had to be left out.

    Example: fairhuman data check photos
    """
    from fairhuman.cli.commands_data import run_check

    raise typer.Exit(0 if run_check(path, json, Console()) else 1)


@data_app.command()
def show(
    path: DataSet,
    out: Annotated[Path, typer.Option(help="HTML page.")] = Path("data.html"),
    count: Annotated[int, typer.Option(min=1, help="Pictures.")] = 60,
    seed: Annotated[int, typer.Option(min=0, help="Of the draw.")] = 0,
    first: Annotated[bool, typer.Option("--first", help="The first ones instead of a draw.")] = False,
    rejected: Annotated[bool, typer.Option(help="Of a build, also what was left out.")] = True,
    dry_run: DryRun = False,
) -> None:
    """Write a page of pictures with their boxes, masks, poses and captions.

    Example: fairhuman data show people --out people.html
    """
    from fairhuman.cli.commands_data import run_show

    run_show(path, out, count, seed, first, rejected, dry_run, Console())


@data_app.command()
def stats(
    path: DataSet,
    out: Annotated[Path, typer.Option(help="HTML page.")] = Path("stats.html"),
    json: Annotated[Path | None, typer.Option(help="File for the numbers.")] = None,
    tokenizer: Annotated[str | None, typer.Option(help="Model in whose tokens captions are counted.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Write a page of counts, areas, aspects and scores, and of a build the way from source to kept.

    Example: fairhuman data stats people --out stats.html
    """
    from fairhuman.cli.commands_data import run_statistics

    run_statistics(path, out, json, tokenizer, dry_run, Console())


@data_app.command()
def export(
    path: DataSet,
    out: Annotated[Path, typer.Argument(help="New or empty folder.")],
    overrides: Overrides = None,
    format: Annotated[str, typer.Option(help="webdataset, imagefolder or parquet.")] = "webdataset",
    shard_rows: Annotated[int, typer.Option(min=1, help="Records of a tar or table.")] = 1000,
    closeups: Annotated[str | None, typer.Option(help="Close-ups of this region: face, hand, ...")] = None,
    dry_run: DryRun = False,
) -> None:
    """Write a data set of any format in another one.

    Example: fairhuman data export people shards --format webdataset

    Example: fairhuman data export people faces --format parquet --closeups face context=2 min_side=32 size=512
    """
    from fairhuman.cli.commands_data import run_export

    run_export(path, out, format, shard_rows, closeups, overrides or [], dry_run, Console())


@data_app.command()
def cache(
    path: Annotated[Path, typer.Argument(help="Recipe of a training run (.yaml), or folder of a data set.")],
    overrides: Overrides = None,
    dry_run: DryRun = False,
) -> None:
    """Compute ahead of a training run what it would keep: of a recipe, latents and text embeddings; of a data set,
    copies of its tables. A run does both by itself.

    Example: fairhuman data cache recipes/lora-sdxl.yaml data=people cache.text=true
    """
    from fairhuman.cli.commands_data import run_cache

    run_cache(path, overrides or [], dry_run, Console())
