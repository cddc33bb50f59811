"""Reading votes from a study's database."""

import math
from collections.abc import Sequence
from pathlib import Path

from sqlalchemy import MetaData, column, select, table
from sqlalchemy.exc import SQLAlchemyError

from fairhuman.errors import DataError
from fairhuman.study.answers import Vote, Votes
from fairhuman.study.study import Answer, Design
from fairhuman.web.database import open_database


def read_database(where: Path | str, design: Design, questions: Sequence[str]) -> Votes:
    """Read the answers in a study's database; answers that don't fit the design are invalid rows.

    Raises:
        DataError: the database doesn't exist yet, or has no table of answers.
        FairHumanError: the database can't be opened.
    """
    if isinstance(where, Path) and not where.is_file():
        raise DataError(f"{where}: there is no such database; has the study been served?")
    answers = table("answers", *map(column, ("participant", "trial", "question", "choice", "seconds", "given")))
    engine = open_database(where, MetaData())
    try:
        with engine.connect() as connection:
            rows = connection.execute(select(answers)).all()
    except SQLAlchemyError as error:
        shown = where if isinstance(where, Path) else "the database"
        raise DataError(f"{shown}: holds no answers of a study: {getattr(error, 'orig', None) or error}") from error
    finally:
        engine.dispose()
    found: dict[tuple[str, int, str], Vote] = {}
    bad = []
    for row in sorted(rows, key=lambda row: (row.participant, row.trial, row.question)):
        answer = Answer(row.participant, row.trial, row.question, row.choice, row.seconds, row.given)
        reason = _wrong(answer, design, questions)
        if reason is not None:
            bad.append(f"participant {answer.participant}, trial {answer.trial}, {answer.question}: {reason}")
            continue
        vote = vote_of(answer, design)
        found[vote.participant, vote.trial, vote.question] = vote
    return Votes(list(found.values()), bad, len(design.participants[0]) * len(questions))


def vote_of(answer: Answer, design: Design) -> Vote:
    """Combine an answer with its trial and item."""
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
    if not (math.isfinite(answer.seconds) and answer.seconds >= 0):
        return f"seconds must be at least 0, found {answer.seconds}"
    return None
