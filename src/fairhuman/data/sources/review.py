"""Files of a manual review beside a data set, as `fairhuman data review` writes them."""

import os
import shlex
import sqlite3
from contextlib import closing
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.rows import STAGE, read_limited
from fairhuman.errors import DataError
from fairhuman.record import Finding
from fairhuman.utils.parse import parse_json
from fairhuman.utils.sqlite_file import DEFINITIONS, check_definitions, check_file, set_limits

DECISIONS, REVIEWED = "review.sqlite", "reviewed.jsonl"
REPORT, LAST_EVENT = "review.json", "last_event"  # what was applied, and up to which decision
REVIEWED_AT = "reviewed_at"  # in a reviewed row: when the deciding decision was made, UTC in ISO 8601
METADATA_ROW = "metadata_row"  # in a reviewed row: number from 1 of the row that has what JSON can't hold
_STEPS = 10_000  # of SQLite's machine; the last decision takes a dozen
LOG = f"{DECISIONS}-wal"  # decisions that SQLite has not yet moved into the database


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
    decided = [_time(folder / name) for name in (DECISIONS, LOG)]
    applied = _time(folder / REVIEWED)
    if max(decided) > applied and not (_same_events(folder) if applied else _nothing_decided(folder)):
        reason = "review is newer than what was applied" if applied else "review is not applied"
        advice = f"fairhuman data review {shlex.quote(str(folder))} --apply"
        report.add(DECISIONS, STAGE, Finding("warned", reason, advice))


def _same_events(folder: Path) -> bool:
    """Whether what was applied holds every decision; a file's time also changes where a server ends."""
    if not (folder / REPORT).is_file() or (folder / REPORT).is_symlink():
        return False
    try:
        last = _last_event(folder)
        return last is not None and bool(last == parse_json(read_limited(folder / REPORT))[LAST_EVENT])
    except (DataError, OSError, ValueError, KeyError, TypeError, sqlite3.Error):  # not known: the times decide
        return False


def _nothing_decided(folder: Path) -> bool:
    """Whether a review was opened, and nobody decided anything."""
    try:
        return _last_event(folder) is None
    except (DataError, OSError, sqlite3.Error):
        return False


def _last_event(folder: Path) -> object:
    """Number of the last decision; None: there is none."""
    path = folder / DECISIONS
    check_file(path)
    if not path.is_file():
        raise DataError(f"{path}: is no file")
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
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
