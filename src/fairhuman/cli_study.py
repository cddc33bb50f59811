"""The command line of `fairhuman study`: one function a command, no logic."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

study_app = typer.Typer(no_args_is_help=True, help="Ask people which pictures they prefer.", rich_markup_mode=None)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Check and show what would be done; write nothing.")]
Study = Annotated[Path, typer.Argument(help="Folder of a study.")]
Database = Annotated[
    str | None,
    typer.Option(envvar="FAIRHUMAN_DATABASE", help="URL of a database; else study.sqlite in the study's folder."),
]
Answers = Annotated[Path | None, typer.Option(help="CSV or JSON of answers, instead of a database.")]
Overrides = Annotated[list[str] | None, typer.Argument(help="Settings as key=value or section.key=value.")]


@study_app.command()
def create(
    study: Annotated[Path, typer.Argument(help="New folder for the study.")],
    overrides: Overrides = None,
    method: Annotated[
        list[str] | None, typer.Option("--method", help="NAME=FOLDER of pictures; once for each.")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="Text file, a prompt a line; else as the pictures tell.")] = None,
    pairs: Annotated[int | None, typer.Option(min=1, help="Prompts that are drawn; 100 by default.")] = None,
    participants: Annotated[int | None, typer.Option(min=1, help="50 by default.")] = None,
    shown: Annotated[int | None, typer.Option(help="Pictures side by side, 2 to 4; 2 by default.")] = None,
    per_participant: Annotated[int | None, typer.Option(min=1, help="Prompts for each; all by default.")] = None,
    checks: Annotated[int | None, typer.Option(min=0, help="Attention checks for each; 3 by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Another one draws another study.")] = None,
    leave_out: Annotated[
        Path | None, typer.Option(help="Text file of irrelevant ones: a prompt or a picture's file name a line.")
    ] = None,
    zoom_on: Annotated[str | None, typer.Option(help="Method in which faces and hands are found; the first.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="YAML file of settings: questions, rules, ...")] = None,
    dry_run: DryRun = False,
) -> None:
    """Make a blind study out of several methods' pictures of the same prompts.

    Example: fairhuman study create faces --method base=samples/base --method MPD=samples/mpd --prompts prompts.txt
    """
    from fairhuman.commands_study import run_create

    given = {
        "items": pairs,
        "participants": participants,
        "shown": shown,
        "per_participant": per_participant,
        "checks": checks,
        "seed": seed,
    }
    run_create(study, method or [], (prompts, leave_out, zoom_on), recipe, given, overrides or [], dry_run, Console())


@study_app.command()
def report(
    study: Annotated[Path | None, typer.Argument(help="Folder of a study; not needed with --answers.")] = None,
    database: Database = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the page; else `report` in the study's folder.")] = None,
    answers: Answers = None,
    dry_run: DryRun = False,
) -> None:
    """Write scores with intervals, rankings, agreement and checks as a page, PNG, CSV and JSON.

    Example: fairhuman study report faces
    """
    from fairhuman.commands_study import run_report

    run_report(study, database, answers, out, dry_run, Console())


@study_app.command()
def export(
    study: Study,
    out: Annotated[Path, typer.Argument(help="File that ends in .csv or .json.")],
    database: Database = None,
    dry_run: DryRun = False,
) -> None:
    """Write all answers as a table that `study report --answers` and other programs read.

    Example: fairhuman study export faces answers.csv
    """
    from fairhuman.commands_study import run_export

    run_export(study, out, database, dry_run, Console())


@study_app.command()
def power(
    difference: Annotated[float, typer.Option(help="Of two methods' scores: 0.1 is 0.55 to 0.45.")],
    overrides: Overrides = None,
    pairs: Annotated[int | None, typer.Option(min=2, help="Prompts; 100 by default.")] = None,
    per_participant: Annotated[int | None, typer.Option(min=1, help="Prompts for each; all by default.")] = None,
    wanted: Annotated[float | None, typer.Option("--power", help="Chance to see it; 0.8 by default.")] = None,
    simulations: Annotated[int | None, typer.Option(help="1000 by default.")] = None,
    seed: Annotated[int | None, typer.Option(min=0)] = None,
) -> None:
    """Find how many participants it takes to see a difference, by simulation.

    Example: fairhuman study power --difference 0.1 --pairs 100 ties=0.2 people_spread=0.5 items_spread=1
    """
    from fairhuman.commands_study import run_power

    given = {
        "difference": difference,
        "items": pairs,
        "per_participant": per_participant,
        "power": wanted,
        "simulations": simulations,
        "seed": seed,
    }
    run_power(given, overrides or [], Console())
