"""Files of a manual review beside a data set, as `fairhuman data review` writes them."""

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.rows import STAGE, read_limited
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.utils.parse import parse_json
from fairhuman.utils.sqlite_file import DEFINITIONS, check_definitions, check_file, set_limits

DECISIONS, REVIEWED = "review.sqlite", "reviewed.jsonl"
REPORT, LAST_EVENT = "review.json", "last_event"  # what was applied, and up to which decision
REVIEWED_AT = "reviewed_at"  # in a reviewed row: when the deciding decision was made, UTC in ISO 8601
# in a reviewed row: the table that has what JSON can't hold, relative to the folder, and the row's number there from 1
METADATA_FILE, METADATA_ROW = "metadata_file", "metadata_row"
_STEPS = 10_000  # of SQLite's machine; the last decision takes a dozen
LOG = f"{DECISIONS}-wal"  # decisions that SQLite has not yet moved into the database
_UNKNOWN = (DataError, OSError, ValueError, KeyError, TypeError, sqlite3.Error)  # the files aren't as they should be


def review_state(folder: Path) -> str:
    """A sentence on whether the decisions beside a folder's pictures are applied, so that every command reads them."""
    report = LoadReport()
    note_review(folder, report)
    if report.notes:
        return "Some decisions are not applied yet." if is_reviewed(folder) else "No decision is applied yet."
    return "All decisions are applied: the data set is read as reviewed."


def is_reviewed(folder: Path) -> bool:
    """Whether a review was applied to a folder."""
    return os.path.lexists(folder / REVIEWED)


def note_review(folder: Path, report: LoadReport) -> None:
    """Warn of decisions that have not been applied, so that they aren't in the rows that are read."""
    if _has_decisions_left(folder):
        reason = "review is newer than what was applied" if is_reviewed(folder) else "review is not applied"
        advice = f"fairhuman data review {shlex.quote(str(folder))} --apply"
        report.add(DECISIONS, STAGE, Finding("warned", reason, advice))


def left_out(folder: Path) -> set[str] | None:
    """Keys of the pictures that the review as applied dropped or left disputed; None: its report doesn't tell."""
    try:
        report = _applied(folder)
        return {*(each["key"] for each in report["dropped"]), *report["disputed"]}
    except _UNKNOWN:
        return None


def _has_decisions_left(folder: Path) -> bool:
    """Whether there are decisions that aren't applied: the last one of all isn't the last one of those.

    Files' times tell less: they change where a server ends or a folder is copied, and a decision that is made while
    others are applied is older than what is written of these.
    """
    applied = is_reviewed(folder)
    try:
        return _last_event(folder) not in (None, _applied(folder)[LAST_EVENT] if applied else None)
    except _UNKNOWN:
        decided = max(_time(folder / name) for name in (DECISIONS, LOG))
        return decided > (_time(folder / REVIEWED) if applied else 0.0)


def _applied(folder: Path) -> Any:
    """The report of what was applied."""
    path = folder / REPORT
    if path.is_symlink():
        raise DataError(f"{path}: must be a file, but is a link")
    return parse_json(read_limited(path))


def _last_event(folder: Path) -> object:
    """Number of the last decision; None: there is none."""
    path = folder / DECISIONS
    check_file(path)
    if not path.is_file():
        raise DataError(f"{path}: is no file")
    log = folder / LOG  # which SQLite would make, and leave there, to read a database that changes
    mode = "ro" if log.exists() and log.stat().st_size else "ro&immutable=1"
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True)) as connection:
        connection.set_progress_handler(lambda: 1, _STEPS)
        set_limits(connection)
        check_definitions(DECISIONS, connection.execute(DEFINITIONS))  # a stranger's view may have no end
        last: object = connection.execute("SELECT max(id) FROM event").fetchone()[0]
    return last


def _time(path: Path) -> float:
    """When a file was last written; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
