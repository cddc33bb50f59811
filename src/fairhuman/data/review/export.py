"""Export a review: the kept rows with their final prompts, and a report."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review.events import DROP, EVENTS, FILE, KEEP, Decision, open_review, standing_decisions
from fairhuman.data.review.pictures import ReviewPicture, load_pictures
from fairhuman.data.review.settings import ReviewSettings
from fairhuman.data.review.summary import ReviewSummary, summarize, verdicts
from fairhuman.data.sources.review import LAST_EVENT, METADATA_FILE, METADATA_ROW, REPORT, REVIEWED, REVIEWED_AT
from fairhuman.errors import DataError
from fairhuman.utils.files import write_json, write_text, writing
from fairhuman.web.database import transaction


def apply_review(folder: Path, settings: ReviewSettings | None = None) -> ReviewSummary:
    """Write `reviewed.jsonl` and `review.json` beside the pictures, replacing earlier ones.

    From then on the folder is read as reviewed, by training and all other commands.

    A row of `reviewed.jsonl` is the metadata row with the final `caption` (and `prompt`, if it had one), and
    `reviewer` and `reviewed_at` of the deciding decision (see `Verdict`). Pictures without a decision, or kept as
    often as dropped, are left out; `review.json` lists the latter and all dropped ones. Columns that JSON can't hold,
    such as masks in a `metadata.parquet`, are read from there: `metadata_file` and the row's number, `metadata_row`.

    Raises:
        DataError: the folder can't be read, or has not been reviewed.
        FairHumanError: the files can't be written.
    """
    settings = settings or ReviewSettings()
    pictures = load_pictures(folder, settings.source, LoadReport())
    if not (folder / FILE).is_file():
        raise DataError(f"{folder / FILE}: no such file: nothing has been reviewed yet")
    engine = open_review(folder)
    try:
        with transaction(engine) as connection:
            decisions = standing_decisions(connection)
            last = connection.execute(select(func.max(EVENTS.c.id))).scalar()
    finally:
        engine.dispose()
    if not decisions:
        raise DataError(f"{folder / FILE}: holds no decision: nothing has been reviewed yet")
    prompts = {key: picture.prompt for key, picture in pictures.items()}
    summary = summarize(decisions, prompts, settings.reviews_per_picture)
    found = verdicts(decisions, prompts)
    kept = [_row(pictures[key], each.decision) for key, each in found.items() if each.verdict == KEEP]
    dropped = [_dropped(each.decision) for each in found.values() if each.verdict == DROP]
    disputed = [key for key, each in found.items() if each.verdict is None]
    with writing(folder):
        write_text(folder / REVIEWED, "".join(f"{json.dumps(row)}\n" for row in kept))
        report = {"counts": asdict(summary), "dropped": dropped, "disputed": disputed, LAST_EVENT: last}
        write_json(folder / REPORT, report)
    return summary


def _row(picture: ReviewPicture, decision: Decision) -> dict[str, Any]:
    texts = dict.fromkeys(["caption", *(["prompt"] if "prompt" in picture.row else [])], decision.prompt)
    row = {name: value for name, value in picture.row.items() if _is_json(value)}
    if len(row) < len(picture.row):  # only a table has such values
        row[METADATA_FILE], _, number = picture.record.location.rpartition(":")
        row[METADATA_ROW] = int(number)
    return {**row, **texts, "key": decision.key, "reviewer": decision.reviewer, REVIEWED_AT: _time(decision)}


def _is_json(value: Any) -> bool:
    """Whether JSON can hold a value; it can't hold bytes, their places in a table, and times."""
    try:
        json.dumps(value)
    except TypeError:
        return False
    return True


def _dropped(decision: Decision) -> dict[str, Any]:
    return {"key": decision.key, "reason": decision.reason, "reviewer": decision.reviewer, REVIEWED_AT: _time(decision)}


def _time(decision: Decision) -> str:
    try:
        return datetime.fromtimestamp(decision.at, UTC).isoformat(timespec="milliseconds")
    except (OSError, OverflowError, TypeError, ValueError) as error:
        raise DataError(f"{FILE}: decision {decision.id} has an impossible timestamp: {decision.at!r}") from error
