"""Reading votes from a study's database."""

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import column, inspect, select, table
from sqlalchemy.exc import SQLAlchemyError

from fairhuman.errors import DataError
from fairhuman.study.answers import RANKS, Vote, Votes
from fairhuman.study.ranks import parse_ranks
from fairhuman.study.store import TABLES
from fairhuman.study.study import Answer, Design
from fairhuman.web.database import reading

Place = tuple[int, int, str]  # participant, trial, question


def read_database(where: Path | str, design: Design, questions: Sequence[str], *, timed: bool = False) -> Votes:
    """Read the answers in a study's database; answers that don't fit the design are invalid rows.

    Args:
        where: SQLite file or URL, also on a disk that can't be written.
        design: design of the study.
        questions: names of the study's questions.
        timed: whether to find out how long answers can have taken, see `possible_seconds`.

    Raises:
        DataError: the database doesn't exist yet, or has no table of answers.
        FairHumanError: the database can't be opened.
    """
    if isinstance(where, Path) and not where.is_file():
        raise DataError(f"{where}: there is no such database; has the study been served?")
    columns = ["participant", "trial", "question", "choice", "seconds", "given"]
    sessions = table("sessions", column("participant"), column("consented"))
    events = table("events", *map(column, ("id", "participant", "trial", "question", "seconds", "given")))
    possible: Mapping[Place, float] = {}
    with reading(where, TABLES) as engine:
        try:
            with engine.connect() as connection:
                there = inspect(connection)
                # a database from before there were ranks may be read as it is
                if there.has_table("answers") and any(each["name"] == RANKS for each in there.get_columns("answers")):
                    columns.append(RANKS)
                rows = connection.execute(select(table("answers", *map(column, columns)))).all()
                if timed and {"sessions", "events"} <= set(inspect(connection).get_table_names()):
                    consents = {row.participant: row.consented for row in connection.execute(select(sessions))}
                    possible = possible_seconds(consents, connection.execute(select(events).order_by(events.c.id)))
        except SQLAlchemyError as error:
            shown = where if isinstance(where, Path) else "the database"
            raise DataError(f"{shown}: holds no answers of a study: {getattr(error, 'orig', None) or error}") from error
    found: dict[tuple[str, int, str], Vote] = {}
    bad = []
    for row in sorted(rows, key=lambda row: (row.participant, row.trial, row.question)):
        answer = Answer(*row)
        reason = _wrong(answer, design, questions)
        if reason is not None:
            bad.append(f"participant {answer.participant}, trial {answer.trial}, {answer.question}: {reason}")
            continue
        place = (answer.participant, answer.trial, answer.question)
        vote = vote_of(answer, design, possible.get(place, math.nan))
        found[vote.participant, vote.trial, vote.question] = vote
    return Votes(list(found.values()), bad, len(design.participants[0]) * len(questions))


def possible_seconds(consents: Mapping[int, str | None], events: Iterable[Any]) -> dict[Place, float]:
    """How many seconds each answer can have taken at most, by the server's clock.

    That is the time since the participant agreed to take part, less the time that their earlier answers took; an answer
    counts with what its browser says, or with what was possible if that is less. Answers that waited in a browser
    without a network have had their time, whenever they arrive. A clock that is set back counts as standing still.

    Args:
        consents: when each participant agreed, ISO 8601.
        events: all answers in the order of receipt, with participant, trial, question, seconds and given.

    Returns:
        Seconds by participant, trial and question, of the last answer to each; none for unknown times.
    """
    last: dict[int, datetime] = {}
    left: dict[int, float] = {}
    possible: dict[Place, float] = {}
    for event in events:
        now, before = _time(event.given), last.get(event.participant) or _time(consents.get(event.participant))
        if now is None or before is None:
            continue
        last[event.participant] = now
        allowed = left.get(event.participant, 0.0) + max(0.0, (now - before).total_seconds())
        left[event.participant] = allowed - min(event.seconds, allowed)
        possible[event.participant, event.trial, event.question] = allowed
    return possible


def _time(text: str | None) -> datetime | None:
    """Time of a text; without a zone, in UTC."""
    try:
        time = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def vote_of(answer: Answer, design: Design, possible: float = math.nan) -> Vote:
    """Combine an answer with its trial and item, and with the seconds that it can have taken."""
    trial = design.participants[answer.participant][answer.trial]
    item = design.items[trial.item]
    return Vote(
        participant=str(answer.participant),
        trial=answer.trial,
        question=answer.question,
        prompt=item.prompt,
        shown=trial.shown,
        chosen=None if answer.choice is None else trial.shown[answer.choice],
        seconds=answer.seconds,
        given=answer.given,
        item=str(trial.item),
        better=item.better,
        possible=possible,
        ranks=None if answer.ranks is None else parse_ranks(answer.ranks, len(trial.shown)),
    )


def _wrong(answer: Answer, design: Design, questions: Sequence[str]) -> str | None:
    if not 0 <= answer.participant < len(design.participants):
        return f"the design has {len(design.participants)} participants, from 0"
    trials = design.participants[answer.participant]
    if not 0 <= answer.trial < len(trials):
        return f"the design has {len(trials)} trials for each, from 0"
    if answer.question not in questions:
        return f"the questions are {', '.join(questions)}"
    shown = trials[answer.trial].shown
    if answer.choice is not None and not 0 <= answer.choice < len(shown):
        return f"choice {answer.choice} of {len(shown)} pictures"
    if answer.ranks is not None:
        try:
            parse_ranks(answer.ranks, len(shown))
        except ValueError as error:
            return str(error)
    if not (math.isfinite(answer.seconds) and answer.seconds >= 0):
        return f"seconds must be at least 0, found {answer.seconds}"
    return None
