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
    from fairhuman.commands_data import run_build

    run_build(source, out, recipe, overrides or [], workers, runner, address, retry_failed, dry_run, Console())
