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
    from fairhuman.cli.commands_study import run_create

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
    from fairhuman.cli.commands_study import run_report

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
    from fairhuman.cli.commands_study import run_export

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
    from fairhuman.cli.commands_study import run_power

    given = {
        "difference": difference,
        "items": pairs,
        "per_participant": per_participant,
        "power": wanted,
        "simulations": simulations,
        "seed": seed,
    }
    run_power(given, overrides or [], Console())


@study_app.command()
def serve(
    study: Study,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 lets others in.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes a free one.")] = 8080,
    database: Database = None,
    url: Annotated[str | None, typer.Option(help="What participants type, such as https://study.example.org.")] = None,
    open_link: Annotated[
        bool, typer.Option("--open-link", help="Visitors without a link get the next number.")
    ] = False,
    admin_token: Annotated[
        str | None, typer.Option(envvar="FAIRHUMAN_ADMIN_TOKEN", help="Opens the progress page; else a new one.")
    ] = None,
    proxy_headers: Annotated[
        str | None, typer.Option(help="Address of a proxy whose X-Forwarded-For and -Proto are believed.")
    ] = None,
    texts: Annotated[Path | None, typer.Option(help="JSON file of what participants read.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Serve a study to its participants until Ctrl-C; every answer is on disk at once.

    Example: fairhuman study serve faces --open-link
    """
    from fairhuman.cli.commands_study import run_serve

    place = (host, port, url, proxy_headers)
    run_serve(study, place, database, open_link, admin_token, texts, dry_run, Console())


@study_app.command()
def links(
    study: Study,
    out: Annotated[Path | None, typer.Option(help="CSV file; else it is printed.")] = None,
    url: Annotated[str, typer.Option(help="What participants type before the link.")] = "http://127.0.0.1:8080",
    database: Database = None,
    dry_run: DryRun = False,
) -> None:
    """Write each participant's own link as CSV; the same links each time.

    Example: fairhuman study links faces --url https://study.example.org --out links.csv
    """
    from fairhuman.cli.commands_study import run_links

    run_links(study, out, url, database, dry_run, Console(stderr=True))
