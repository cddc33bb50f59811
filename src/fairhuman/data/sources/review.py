"""Files of a manual review beside a data set, as `fairhuman data review` writes them."""

import os
import shlex
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.rows import STAGE
from fairhuman.record import Finding

DECISIONS, REVIEWED = "review.sqlite", "reviewed.jsonl"
LOG = f"{DECISIONS}-wal"  # decisions that SQLite has not yet moved into the database


def is_reviewed(folder: Path) -> bool:
    """Whether a review was applied to a folder."""
    return os.path.lexists(folder / REVIEWED)


def note_review(folder: Path, report: LoadReport) -> None:
    """Warn of decisions that have not been applied, so that they aren't in the rows that are read."""
    decided = [_time(folder / name) for name in (DECISIONS, LOG)]
    applied = _time(folder / REVIEWED)
    if max(decided) > applied:
        reason = "review is newer than what was applied" if applied else "review is not applied"
        advice = f"fairhuman data review {shlex.quote(str(folder))} --apply"
        report.add(DECISIONS, STAGE, Finding("warned", reason, advice))


def _time(path: Path) -> float:
    """When a file was last written; 0 if there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
