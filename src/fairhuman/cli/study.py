"""`fairhuman study`: ask people which pictures they prefer."""

import shlex
import sys
from pathlib import Path
from typing import Annotated

from rich.console import Console
from typer import Argument, Option, Typer

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import DryRun, Host, Overrides, Port, ProxyHeaders, named_folders, settings_of, written_file
from fairhuman.errors import DataError, RecipeError
from fairhuman.report.text import percent, plural

study_app = Typer(no_args_is_help=True, help="Ask people which pictures they prefer.", rich_markup_mode=None)

Study = Annotated[Path, Argument(help="Folder of a study.")]
Database = Annotated[
    str | None, Option(envvar="FAIRHUMAN_DATABASE", help="URL of a database; else STUDY/study.sqlite.")
]


@study_app.command()
def create(
    study: Annotated[Path, Argument(help="New folder for the study.")],
    overrides: Overrides = None,
    method: Annotated[list[str] | None, Option("--method", help="NAME=FOLDER of pictures; repeatable.")] = None,
    prompts: Annotated[
        Path | None, Option(help="Text file or data set of the prompts; else the pictures' own.")
    ] = None,
    pairs: Annotated[int | None, Option(min=1, help="Number of prompts to draw; 100 by default.")] = None,
    participants: Annotated[int | None, Option(min=1, help="Number of participants; 50 by default.")] = None,
    shown: Annotated[int | None, Option(help="Pictures side by side, 2 to 9; 2 by default.")] = None,
    per_participant: Annotated[int | None, Option(min=1, help="Prompts for each; all by default.")] = None,
    checks: Annotated[int | None, Option(min=0, help="Attention checks for each; 3 by default.")] = None,
    seed: Annotated[int | None, Option(min=0, help="Another seed draws another study.")] = None,
    leave_out: Annotated[Path | None, Option(help="Text file of prompts or picture file names to leave out.")] = None,
    zoom_on: Annotated[str | None, Option(help="Method whose faces and hands place the zooms; else the first.")] = None,
    equalize: Annotated[
        bool, Option("--equalize", help="Recode all pictures alike, so that none shows its file's format.")
    ] = False,
    recipe: Annotated[Path | None, Option(help="YAML file of settings: questions, rules, ...")] = None,
    dry_run: DryRun = False,
) -> None:
    """Make a blind study from several methods' pictures of the same prompts.

    Example: fairhuman study create faces --method base=samples/base --method MPD=samples/mpd --prompts prompts.txt
    """
    from fairhuman.study.create import check_candidates, check_folder, create_study
    from fairhuman.study.study import StudySettings

    given = {"items": pairs, "participants": participants, "shown": shown, "per_participant": per_participant}
    given |= {"checks": checks, "seed": seed, "equalize": equalize or None}
    settings = settings_of(StudySettings, "study create", overrides, recipe, given)
    methods, display = named_folders(method), ConsoleDisplay()
    if dry_run:
        check_folder(study)
        candidates = check_candidates(methods, prompts, settings, leave_out, zoom_on)
        display.settings(settings)
        for text in [*candidates.notes, *candidates.left_out]:
            display.say(text)
        display.say(f"{study}: would draw {settings.items} of {candidates.counted()}, nothing is written")
        return
    notes: list[str] = []
    with display:
        design = create_study(
            study,
            methods,
            prompts,
            settings,
            notes.append,
            leave_out=leave_out,
            zoom_on=zoom_on,
            progress=display.progress,
        )
    for text in notes:
        display.say(text)
    trials = len(design.participants[0])
    people = plural(settings.participants, "participant")
    display.say(f"{study}: {people}, {plural(trials, 'trial')} each; done")
    display.say(f"serve it with fairhuman study serve {study}; send the links of fairhuman study links {study}")


@study_app.command()
def report(
    study: Annotated[Path | None, Argument(help="Folder of a study; not needed with --answers.")] = None,
    database: Database = None,
    out: Annotated[Path | None, Option(help="Folder for the page; STUDY/report by default.")] = None,
    answers: Annotated[Path | None, Option(help="CSV or JSON of answers to read instead of a database.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Write scores with intervals, rankings, agreement and checks as a page, PNG, CSV and JSON.

    Example: fairhuman study report faces
    """
    from fairhuman.study.answers import load_votes
    from fairhuman.study.exclusion import excluded_line, judge_participants
    from fairhuman.study.report import StudyFacts, write_report
    from fairhuman.study.study import StudySettings, load_study
    from fairhuman.utils.files import writing

    stored = load_study(study) if study is not None else None
    if study is not None:
        if out is None and (study / "report").is_symlink():
            raise DataError(f"{study / 'report'}: must be a folder, but is a link; delete it, or give --out")
        out = out or study / "report"
    elif answers is not None:
        out = out or answers.with_suffix(".report")
    else:
        raise RecipeError("nothing to report on: give a study's folder, or --answers FILE")
    votes = load_votes(stored, database, answers)
    display = ConsoleDisplay()
    for line in votes.bad_lines():
        display.say(f"left out: {line}")
    if dry_run:
        display.say(f"{votes.counted()}; would write into {out}")
        return
    settings = stored.settings if stored is not None else StudySettings()
    with writing(out, "; give another folder with --out"):
        page = write_report(votes, settings, StudyFacts.of(stored), out)
    if excluded := excluded_line(judge_participants(votes, settings.exclude)):
        display.say(excluded)
    display.say(f"{votes.counted()}; report: {page}")


@study_app.command()
def export(
    study: Study,
    out: Annotated[Path, Argument(callback=written_file, help="File that ends in .csv or .json.")],
    database: Database = None,
    dry_run: DryRun = False,
) -> None:
    """Write all answers as a table that `study report --answers` and other programs can read.

    Example: fairhuman study export faces answers.csv
    """
    from fairhuman.study.answers import load_votes, write_votes
    from fairhuman.study.study import load_study
    from fairhuman.utils.files import writing

    votes = load_votes(load_study(study), database)
    display = ConsoleDisplay()
    for line in votes.bad_lines():
        display.say(f"left out: {line}")
    if dry_run:
        display.say(f"{votes.counted()}; would write {out}")
        return
    with writing(out):
        write_votes(votes.votes, out)
    display.say(f"{votes.counted()}: {out}")


@study_app.command()
def power(
    difference: Annotated[float, Option(help="Difference of two methods' scores: 0.1 is 0.55 to 0.45.")],
    overrides: Overrides = None,
    pairs: Annotated[int | None, Option(min=2, help="Number of prompts; 100 by default.")] = None,
    per_participant: Annotated[int | None, Option(min=1, help="Prompts for each; all by default.")] = None,
    wanted: Annotated[float | None, Option("--power", help="Probability of detecting it; 0.8 by default.")] = None,
    simulations: Annotated[int | None, Option(help="Number of simulations; 1000 by default.")] = None,
    seed: Annotated[int | None, Option(min=0, help="Seed of the simulations.")] = None,
) -> None:
    """Find by simulation how many participants it takes to detect a difference.

    Example: fairhuman study power --difference 0.1 --pairs 100 ties=0.2 people_spread=0.5 items_spread=1
    """
    from fairhuman.study.power import PowerSettings, find_participants, power_summary

    given = {"difference": difference, "items": pairs, "per_participant": per_participant}
    given |= {"power": wanted, "simulations": simulations, "seed": seed}
    settings = settings_of(PowerSettings, "study power", overrides, given=given)
    display = ConsoleDisplay()
    participants, tried = find_participants(
        settings,
        lambda one: display.say(
            f"{one.participants} participants: {percent(one.chance, 1)} ± {percent(2 * one.error, 1)}"
        ),
    )
    display.say(power_summary(settings, participants, tried))


@study_app.command()
def serve(
    study: Study,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    database: Database = None,
    url: Annotated[str | None, Option(help="Public address, such as https://study.example.org.")] = None,
    open_link: Annotated[bool, Option("--open-link", help="Also admit visitors without a link.")] = False,
    admin_token: Annotated[
        str | None, Option(envvar="FAIRHUMAN_ADMIN_TOKEN", help="Opens the progress page; else a new one.")
    ] = None,
    proxy_headers: ProxyHeaders = None,
    texts: Annotated[Path | None, Option(help="JSON file of the texts that participants read.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Serve a study to its participants until Ctrl-C; every answer is saved at once.

    Example: fairhuman study serve faces --open-link
    """
    from fairhuman.study.app import Access, create_study_app
    from fairhuman.study.shown import load_shown
    from fairhuman.study.store import open_store
    from fairhuman.study.study import CREATION, DATABASE
    from fairhuman.study.texts import load_texts
    from fairhuman.web.serve import serve
    from fairhuman.web.site import parse_site

    root, hosts = ("", ()) if url is None else (parse_site(url)[0], (parse_site(url)[1],))
    access = Access.grant(admin_token, open_link, hosts, root or None)
    loaded, display = load_shown(study), ConsoleDisplay()
    words = load_texts(texts, loaded.settings.ranked)
    if dry_run:
        display.say(f"{study}: {plural(len(loaded.participants), 'participant')}; would be served at {host}:{port}")
        return

    def say(text: str) -> None:
        display.say(text)
        if text.startswith("http"):
            token = access.admin_token if admin_token is None else "ADMIN-TOKEN"
            here = root or text.partition("/ ")[0]
            display.say(f"progress: {here}/admin/{token}")
            where = f"--url {here}" + (" --database DATABASE" if database else "")
            display.say(f"participants' links: fairhuman study links {shlex.quote(str(study))} {where}")
            if loaded.digests is None and (study / CREATION).is_file():
                display.say("an earlier version made the study, without digests of its pictures: they are unchecked")

    store = open_store(loaded, database or study / DATABASE)
    try:
        serve(create_study_app(loaded, store, access, words), host, port, say, proxy_headers, locked=not open_link)
    finally:
        store.close()


@study_app.command()
def links(
    study: Study,
    out: Annotated[
        Path | None, Option(callback=written_file, help="CSV file; by default the links are printed.")
    ] = None,
    url: Annotated[
        str | None, Option(help="Address before the links; this machine's by default, which no other machine can open.")
    ] = None,
    port: Annotated[int, Option(min=1, max=65535, help="Port of study serve, for links without --url.")] = 8080,
    database: Database = None,
    dry_run: DryRun = False,
) -> None:
    """Write each participant's own link as CSV; the links are the same each time.

    Example: fairhuman study links faces --url https://study.example.org --out links.csv
    """
    import csv
    import io

    from fairhuman.study.links import invite
    from fairhuman.study.shown import load_shown
    from fairhuman.utils.files import write_text, writing
    from fairhuman.web.site import parse_site

    base, _ = parse_site(url or f"http://127.0.0.1:{port}")
    loaded = load_shown(study)
    everybody = len(loaded.participants)
    display = ConsoleDisplay(Console(stderr=True))  # the links alone go to standard output
    if dry_run:
        display.say(f"{study}: would write {plural(everybody, 'link')} at {base}")
        return
    invited = invite(loaded, database, base)
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("participant", "link"))
    table.writerows(invited.items())
    if out is None:
        sys.stdout.write(text.getvalue())
    else:
        with writing(out):
            write_text(out, text.getvalue(), private=True)
        display.say(f"links: {out}")
    if url is None:
        display.say(
            f"the links begin with {base} and work on this machine, while study serve listens on port {port}; other "
            "machines need --url ADDRESS"
        )
    if len(invited) < everybody:
        display.say(f"{everybody - len(invited)} left out: their places are taken through the open link or other links")
