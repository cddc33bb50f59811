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
    from fairhuman.commands_study import run_serve

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
    from fairhuman.commands_study import run_links

    run_links(study, out, url, database, dry_run, Console(stderr=True))
