"""What the commands of `fairhuman study` do; `cli_study` only reads the command line."""

import csv
import io
import json
import re
import secrets
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import yaml
from rich.console import Console

from fairhuman import config
from fairhuman.cli.console import say
from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.study.study import CREATION, DATABASE, SETTINGS, Design, StudySettings, load_design
from fairhuman.utils.files import write_text, writing

if TYPE_CHECKING:  # statistics and detectors take seconds to import, which a server's start shouldn't
    from fairhuman.study.answers import Votes

ADMIN_TOKEN = re.compile(r"[A-Za-z0-9_-]{16,}")
Place = tuple[str, int, str | None, str | None]
Inputs = tuple[Path | None, Path | None, str | None]


def run_create(
    folder: Path,
    named: Sequence[str],
    inputs: Inputs,
    recipe: Path | None,
    given: Mapping[str, object],
    overrides: Sequence[str],
    dry_run: bool,
    console: Console,
) -> None:
    """Make a study; `inputs`: prompts, what to leave out, the method to zoom on."""
    from fairhuman.cli.commands_data import settings_of, stages
    from fairhuman.cli.commands_measure import named_folders
    from fairhuman.study.create import check_candidates, check_folder, create_study

    prompts, leave_out, zoom_on = inputs
    settings: StudySettings = settings_of(StudySettings, recipe, [*_given(given), *overrides], "study create")
    methods = named_folders(named)
    if dry_run:
        check_folder(folder)
        candidates = check_candidates(methods, prompts, settings, leave_out, zoom_on)
        console.print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
        for text in [*candidates.notes, *candidates.left_out]:
            say(console, text)
        say(console, f"{folder}: would draw {settings.items} of {len(candidates.rows)} prompts, nothing is written")
        return
    said: list[str] = []
    with stages(console) as progress:
        design = create_study(
            folder, methods, prompts, settings, said.append, leave_out=leave_out, zoom_on=zoom_on, progress=progress
        )
    for text in said:
        say(console, text)
    trials = len(design.participants[0])
    say(console, f"{folder}: {settings.participants} participants, {trials} trials each; done")
    say(console, f"put it in front of people with fairhuman study serve {folder}")


def run_report(
    folder: Path | None, database: str | None, answers: Path | None, out: Path | None, dry_run: bool, console: Console
) -> None:
    """Write a study's report, and say where it is."""
    from fairhuman.study.report import StudyFacts, write_report

    if folder is None and answers is None:
        raise RecipeError("nothing to report on: give a study's folder, or --answers FILE")
    settings, design = _load(folder) if folder is not None else (StudySettings(), None)
    votes = _votes(folder, database, answers, settings, design)
    out = out or (folder / "report" if folder is not None else Path(f"{answers}").with_suffix(".report"))
    for line in votes.bad_lines():
        say(console, f"left out: {line}")
    people = len({vote.participant for vote in votes.votes})
    if dry_run:
        say(console, f"{len(votes.votes)} answers of {people} participants; would write into {out}")
        return
    facts = StudyFacts()
    if folder is not None and design is not None:
        facts = StudyFacts(design.methods, len(design.participants), *_creation(folder, settings))
    with writing(out):
        page = write_report(votes, settings, facts, out)
    say(console, f"{len(votes.votes)} answers of {people} participants; report: {page}")


def run_export(folder: Path, out: Path, database: str | None, dry_run: bool, console: Console) -> None:
    """Write a study's answers as a table."""
    from fairhuman.study.answers import write_votes

    settings, design = _load(folder)
    votes = _votes(folder, database, None, settings, design)
    for line in votes.bad_lines():
        say(console, f"left out: {line}")
    if dry_run:
        say(console, f"{len(votes.votes)} answers; would write {out}")
        return
    with writing(out):
        write_votes(votes.votes, out)
    say(console, f"{len(votes.votes)} answers: {out}")


def run_power(given: Mapping[str, object], overrides: Sequence[str], console: Console) -> None:
    """Say how many participants a difference takes."""
    from fairhuman.study.power import PowerSettings, find_participants, power_summary

    settings = config.build(PowerSettings, {}, [*_given(given), *overrides], origin="study power")
    participants, tried = find_participants(
        settings, lambda one: say(console, f"{one.participants} participants: {one.chance:.1%} ± {2 * one.error:.1%}")
    )
    say(console, power_summary(settings, participants, tried))


def _given(values: Mapping[str, object]) -> list[str]:
    return [f"{name}={value}" for name, value in values.items() if value is not None]


def _load(folder: Path) -> tuple[StudySettings, Design]:
    design = load_design(folder)
    return config.load(StudySettings, folder / SETTINGS), design


def _votes(
    folder: Path | None, database: str | None, answers: Path | None, settings: StudySettings, design: Design | None
) -> "Votes":
    from fairhuman.study.answers import read_votes

    if answers is not None:
        return read_votes(answers)
    if folder is None or design is None:
        raise RecipeError("answers in a database are read with the study's folder: give it too")
    try:
        from fairhuman.study.recorded import read_database
    except ModuleNotFoundError as error:
        raise FairHumanError(f"databases need some more packages: pip install 'fairhuman[web]' ({error})") from error
    return read_database(database or folder / DATABASE, design, [question.name for question in settings.questions])


def _creation(folder: Path, settings: StudySettings) -> tuple[list[str], list[str]]:
    """Notes and what was left out, as `create_study` wrote them; nothing where a study was made otherwise."""
    path = folder / CREATION
    if not path.is_file():
        return [], []
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        notes, left_out = ([str(text) for text in values[name]] for name in ("notes", "left_out"))
        changed = config.differences(StudySettings.model_validate(values["settings"]), settings)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: isn't what fairhuman study create writes: {error!r}") from error
    later = "Changed in study.yaml after the study was made, so not fixed beforehand: {}: {} instead of {}."
    return [*notes, *(later.format(name, now, before) for name, (before, now) in changed.items())], left_out


def run_serve(
    folder: Path,
    place: Place,
    database: str | None,
    open_link: bool,
    admin_token: str | None,
    texts: Path | None,
    dry_run: bool,
    console: Console,
) -> None:
    """Serve a study; `place`: host, port, the address that participants use, the proxy's address."""
    from fairhuman.study.serving import Access, create_study_app, load_shown, load_texts, open_store, parse_site, serve

    host, port, url, proxy = place
    if admin_token is not None and not ADMIN_TOKEN.fullmatch(admin_token):
        raise FairHumanError("admin token must have 16 or more letters, digits, - and _; the given one has not")
    admin = admin_token or secrets.token_urlsafe(32)
    hosts = () if url is None else (parse_site(url)[1],)
    study = load_shown(folder)
    words = load_texts() if texts is None else load_texts(texts)
    if dry_run:
        say(console, f"{folder}: {len(study.participants)} participants; would be served at {host}:{port}")
        return
    store = open_store(study, database or folder / DATABASE)
    app = create_study_app(study, store, Access(admin, open_link, hosts), words)

    def tell(text: str) -> None:
        say(console, text)
        if text.startswith("http"):
            root = text.partition("/ ")[0] if url is None else parse_site(url)[0]
            say(console, f"progress: {root}/admin/{admin if admin_token is None else 'ADMIN-TOKEN'}")

    try:
        serve(app, host, port, tell, proxy, locked=not open_link)
    finally:
        store.close()


def run_links(folder: Path, out: Path | None, url: str, database: str | None, dry_run: bool, console: Console) -> None:
    """Write participants' links; those whose number a visitor by the open link has are left out and counted."""
    from fairhuman.study.serving import load_shown, open_store, parse_site, participant_tokens

    base, _ = parse_site(url)
    study = load_shown(folder)
    everybody = range(len(study.participants))
    if dry_run:
        say(console, f"{folder}: would write {len(everybody)} links at {base}")
        return
    with writing(folder):
        tokens = participant_tokens(folder, everybody)
    store = open_store(study, database or folder / DATABASE)
    try:
        invited = store.invite(tokens)
    finally:
        store.close()
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(("participant", "link"))
    table.writerows((number, f"{base}/p/{token}") for number, token in invited.items())
    if out is None:
        sys.stdout.write(text.getvalue())
    else:
        with writing(out):
            write_text(out, text.getvalue())
        say(console, f"links: {out}")
    if len(invited) < len(everybody):
        say(console, f"{len(everybody) - len(invited)} left out: others have come by the open link, or by other links")
