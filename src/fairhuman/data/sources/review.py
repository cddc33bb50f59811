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
METADATA_ROW = "metadata_row"  # in a reviewed row: number from 1 of the row that has what JSON can't hold
_STEPS = 10_000  # of SQLite's machine; the last decision takes a dozen
LOG = f"{DECISIONS}-wal"  # decisions that SQLite has not yet moved into the database


def is_reviewed(folder: Path) -> bool:
    """Whether a review was applied to a folder."""
    return os.path.lexists(folder / REVIEWED)


def note_review(folder: Path, report: LoadReport) -> None:
    """Warn of decisions that have not been applied, so that they aren't in the rows that are read."""
    decided = [_time(folder / name) for name in (DECISIONS, LOG)]
    applied = _time(folder / REVIEWED)
    if max(decided) > applied and not (applied and _same_events(folder)):
        reason = "review is newer than what was applied" if applied else "review is not applied"
        advice = f"fairhuman data review {shlex.quote(str(folder))} --apply"
        report.add(DECISIONS, STAGE, Finding("warned", reason, advice))


def _same_events(folder: Path) -> bool:
    """Whether what was applied holds every decision; a file's time also changes where a server ends."""
    if not all(path.is_file() and not path.is_symlink() for path in (folder / REPORT, folder / DECISIONS)):
        return False
    try:
        check_file(folder / DECISIONS)
        report = parse_json(read_limited(folder / REPORT))
        address = f"{(folder / DECISIONS).absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            connection.set_progress_handler(lambda: 1, _STEPS)
            set_limits(connection)
            check_definitions(DECISIONS, connection.execute(DEFINITIONS))  # a stranger's view may have no end
            last = connection.execute("SELECT max(id) FROM event").fetchone()[0]
        return last is not None and bool(last == report[LAST_EVENT])
    except (DataError, OSError, ValueError, KeyError, TypeError, sqlite3.Error):  # not known: the times decide
        return False


def _time(path: Path) -> float:
    """When a file was last written; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
