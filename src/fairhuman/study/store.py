"""Participants and answers of a study in a database, which several processes may share.

Tokens are stored only as SHA-256 hashes. `answers` holds the last accepted answer for each participant, trial and
question; `events` holds all accepted answers. Acknowledged answers are on disk. Participants and trials are numbered
from 0, as in the design.

`visitors` tells who came through the open link. A visitor's place is free again as long as it has no answer: when the
researcher says so, or when nobody has answered for a while and another visitor finds no other place.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Engine,
    Float,
    ForeignKey,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    delete,
    func,
    insert,
    select,
    text,
    update,
)

from fairhuman.errors import DataError
from fairhuman.study.group_commit import GroupCommit
from fairhuman.study.ranks import dense, ranks_text, sole_best
from fairhuman.study.shown import ShownStudy
from fairhuman.study.study import Answer
from fairhuman.web.app import RefusedError
from fairhuman.web.database import open_database, serialize_transactions, snapshot, transaction

TABLES = MetaData()
VERSION = Table(
    "version",
    TABLES,
    Column("version", Integer, nullable=False),
    Column("design", String, nullable=False),  # digest that keeps answers of different studies apart
)
SESSIONS = Table(
    "sessions",
    TABLES,
    Column("participant", Integer, primary_key=True, autoincrement=False),
    Column("token", String(64), nullable=False, unique=True),  # SHA-256 in hex
    Column("consented", String),  # ISO 8601, UTC
)
VISITORS = Table(
    "visitors",
    TABLES,
    Column("participant", ForeignKey(SESSIONS.c.participant), primary_key=True, autoincrement=False),
    Column("joined", String, nullable=False),  # ISO 8601, UTC
)
ANSWERS = Table(
    "answers",
    TABLES,
    Column("participant", ForeignKey(SESSIONS.c.participant), primary_key=True, autoincrement=False),
    Column("trial", Integer, primary_key=True, autoincrement=False),
    Column("question", String, primary_key=True),
    Column("choice", Integer),
    Column("seconds", Float, nullable=False),
    Column("given", String, nullable=False),  # ISO 8601, UTC
    Column("ranks", String),  # of all pictures, where they are ranked; see `fairhuman.study.ranks`
)
EVENTS = Table(
    "events",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("participant", ForeignKey(SESSIONS.c.participant), nullable=False),
    Column("key", String(64), nullable=False),  # chosen by the client, to recognise an answer that is resent
    Column("trial", Integer, nullable=False),
    Column("question", String, nullable=False),
    Column("choice", Integer),
    Column("seconds", Float, nullable=False),
    Column("given", String, nullable=False),
    Column("ranks", String),
    UniqueConstraint("participant", "key"),
)
Migration = Callable[[Connection], None]


def _add_ranks(connection: Connection) -> None:
    """From version 1, whose answers have no ranks."""
    for table in (ANSWERS, EVENTS):
        connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN ranks VARCHAR"))


MIGRATIONS: tuple[Migration, ...] = (_add_ranks,)  # the first migrates from version 1 to 2, and so on
MAX_CHANGES = 20  # times that a participant may change the answer to one question about one trial


@dataclass(frozen=True)
class Progress:
    """Progress of a participant; `last` is the time of the last answer, `joined` that of a visitor's arrival through
    the open link.
    """

    participant: int
    consented: str | None
    answered: int
    total: int
    last: str | None
    joined: str | None = None

    @property
    def waiting(self) -> bool:
        """Whether a visitor has the place and no answer, so that it can be given to another one."""
        return self.joined is not None and self.answered == 0

    @property
    def done(self) -> bool:
        """Whether everything is answered."""
        return self.answered == self.total


def open_store(study: ShownStudy, where: Path | str, migrations: Sequence[Migration] = MIGRATIONS) -> "StudyStore":
    """Open the study's database, and create or migrate its tables.

    Raises:
        FairHumanError: the database can't be used.
        DataError: it belongs to another study, or to a newer version of this program.
    """
    engine = open_database(where, TABLES)
    try:
        with transaction(engine) as connection:
            _bring_up_to_date(connection, _digest(study), migrations)
    except BaseException:
        engine.dispose()
        raise
    return StudyStore(engine, study)


class StudyStore:
    """Sessions and answers of one study."""

    def __init__(self, engine: Engine, study: ShownStudy) -> None:
        self.engine = engine
        self._trials = study.participants
        self._ranked = study.settings.ranked
        self._questions = tuple(question.name for question in study.settings.questions)
        self._expiry = timedelta(minutes=study.settings.place_minutes)
        self._known: dict[str, int] = {}  # cache of token digests whose participant can't change any more
        self._commits = GroupCommit(engine)

    def close(self) -> None:
        """Close the database."""
        self.engine.dispose()

    def participant_of(self, token: str) -> int | None:
        """Participant of a token; None if the token is unknown."""
        digest = token_digest(token)
        if digest not in self._known:
            query = select(SESSIONS, _waiting().label("waiting")).where(SESSIONS.c.token == digest)
            with snapshot(self.engine) as connection:  # wrong links must not keep answers waiting
                found = connection.execute(query).first()
            if found is None or not secrets.compare_digest(found.token, digest):
                return None
            if found.waiting:
                return int(found.participant)
            self._known[digest] = found.participant
        return self._known[digest]

    def invite(self, tokens: Mapping[int, str]) -> dict[int, str]:
        """Register tokens of participants; returns those of participants who don't already have another token."""
        with self._commits.transaction() as connection:
            serialize_transactions(connection)
            held = {row.participant: row.token for row in connection.execute(select(SESSIONS))}
            digests = {participant: token_digest(token) for participant, token in tokens.items()}
            new = [{"participant": number, "token": digests[number]} for number in tokens if number not in held]
            if new:
                connection.execute(insert(SESSIONS), new)
        return {
            number: token for number, token in tokens.items() if held.get(number, digests[number]) == digests[number]
        }

    def join(self, token: str, permit: Callable[[], None] = lambda: None) -> None:
        """Register a visitor's self-made token for the next free participant and record their consent; idempotent.

        If no number is free, the visitor takes the place that another one has had the longest without an answer, and
        for at least `place_minutes`. `permit` is called before a place is taken, and may refuse.

        Raises:
            RefusedError: no participant number is free (409); or raised by `permit`.
        """
        digest = token_digest(token)
        with self._commits.transaction() as connection:
            serialize_transactions(connection)
            if connection.execute(select(SESSIONS).where(SESSIONS.c.token == digest)).first() is not None:
                return
            taken = set(connection.execute(select(SESSIONS.c.participant)).scalars())
            free = next((number for number in range(len(self._trials)) if number not in taken), None)
            if free is None:
                free = self._expired(connection)
            if free is None:
                raise RefusedError(409, "This study has all its participants. Thank you for your interest.")
            permit()
            now = _now()
            connection.execute(insert(SESSIONS).values(participant=free, token=digest, consented=now))
            connection.execute(insert(VISITORS).values(participant=free, joined=now))

    def free(self, participant: int) -> None:
        """Take the place of a visitor of the open link who hasn't answered anything; their link ends.

        Raises:
            RefusedError: the place isn't a visitor's, or has answers (409).
        """
        with self._commits.transaction() as connection:
            serialize_transactions(connection)
            query = select(SESSIONS.c.participant).where(SESSIONS.c.participant == participant, _waiting())
            if connection.execute(query.with_for_update()).first() is None:
                raise RefusedError(409, "Only a place of the open link without an answer can be freed.")
            _remove_visitor(connection, participant)

    def _expired(self, connection: Connection) -> int | None:
        """Take the place that has waited for an answer the longest, if that is long enough; returns its number."""
        before = (datetime.now(UTC) - self._expiry).isoformat(timespec="milliseconds")
        query = (
            select(VISITORS.c.participant)
            .join(SESSIONS, SESSIONS.c.participant == VISITORS.c.participant)
            .where(_waiting(), VISITORS.c.joined <= before)
            .order_by(VISITORS.c.joined)
            .with_for_update()
        )
        found = connection.execute(query).scalar()
        if found is not None:
            _remove_visitor(connection, found)
        return found

    def consent(self, participant: int) -> None:
        """Record that a participant agreed to take part; only the first time counts."""
        this = (SESSIONS.c.participant == participant) & SESSIONS.c.consented.is_(None)
        with self._commits.transaction() as connection:
            connection.execute(update(SESSIONS).where(this).values(consented=_now()))

    def has_consented(self, participant: int) -> bool:
        """Whether the participant agreed to take part."""
        with snapshot(self.engine) as connection:
            query = select(SESSIONS.c.consented).where(SESSIONS.c.participant == participant)
            return connection.execute(query).scalar() is not None

    def answers(self, participant: int) -> list[Answer]:
        """A participant's answers in the order of trials."""
        query = select(ANSWERS).where(ANSWERS.c.participant == participant).order_by(ANSWERS.c.trial)
        with snapshot(self.engine) as connection:
            return [Answer(*row) for row in connection.execute(query)]

    def answer(
        self,
        participant: int,
        key: str,
        trial: int,
        question: str,
        choice: int | None,
        seconds: float,
        token: str | None = None,
        ranks: Sequence[int] | None = None,
    ) -> int:
        """Save an answer and return the participant's number of answers; resending with the same key changes nothing.

        Args:
            participant: number, as of `participant_of`.
            key: chosen by the client, to recognise an answer that is resent.
            trial: number of the trial.
            question: name of the question.
            choice: position from left to right; None: a tie.
            seconds: time of the answer, as the client measured it.
            token: the participant's link; if it has lost the place since, nothing is saved. None: not checked.
            ranks: rank of each picture from left to right, where pictures are ranked; `choice` follows from them.

        Raises:
            RefusedError: no consent yet (403), the place now belongs to somebody else (404), unknown trial, question,
                choice or ranks (422), the key was used for another answer or the answer was changed too often (409).
        """
        self._check(participant, trial, question, choice, ranks)
        content: dict[str, Any] = {
            "trial": trial,
            "question": question,
            "choice": choice,
            "seconds": seconds,
            "ranks": None,
        }
        if ranks is not None:
            content |= {"choice": sole_best(ranks), "ranks": ranks_text(dense(ranks))}

        def keep(connection: Connection) -> int:
            # Locks the session's row, so that answers of the same participant from other processes wait.
            one = select(SESSIONS).where(SESSIONS.c.participant == participant).with_for_update()
            session = connection.execute(one).first()
            if session is None or (token is not None and session.token != token_digest(token)):
                raise RefusedError(404, "This link has ended, because it had no answer for long.")
            if session.consented is None:
                raise RefusedError(403, "Please agree to take part first.")
            same = (EVENTS.c.participant == participant) & (EVENTS.c.key == key)
            columns = [EVENTS.c[name] for name in content]
            known = connection.execute(select(*columns).where(same)).first()
            if known is None:
                _check_changes(connection, participant, trial, question)
                row = {"participant": participant, "given": _now(), **content}
                connection.execute(insert(EVENTS).values(key=key, **row))
                place = (ANSWERS.c.trial == trial) & (ANSWERS.c.question == question)
                connection.execute(delete(ANSWERS).where(place, ANSWERS.c.participant == participant))
                connection.execute(insert(ANSWERS).values(row))
            elif tuple(known) != tuple(content.values()):
                raise RefusedError(409, "Another answer was sent with the same key. This one was not saved.")
            count = select(func.count()).select_from(ANSWERS).where(ANSWERS.c.participant == participant)
            return int(connection.execute(count).scalar_one())

        return self._commits.run(keep)

    def progress(self) -> list[Progress]:
        """Progress of all participants who have a token, by number."""
        counts = select(ANSWERS.c.participant, func.count(), func.max(ANSWERS.c.given)).group_by(ANSWERS.c.participant)
        people = (
            select(SESSIONS.c.participant, SESSIONS.c.consented, VISITORS.c.joined)
            .outerjoin(VISITORS, VISITORS.c.participant == SESSIONS.c.participant)
            .order_by(SESSIONS.c.participant)
        )
        with snapshot(self.engine) as connection:
            given = {number: (count, last) for number, count, last in connection.execute(counts)}
            found = connection.execute(people).all()
        return [
            Progress(
                participant=number,
                consented=consented,
                answered=given.get(number, (0, None))[0],
                total=len(self._trials[number]) * len(self._questions),
                last=given.get(number, (0, None))[1],
                joined=joined,
            )
            for number, consented, joined in found
        ]

    def _check(
        self, participant: int, trial: int, question: str, choice: int | None, ranks: Sequence[int] | None
    ) -> None:
        trials = self._trials[participant]
        if not 0 <= trial < len(trials):
            raise RefusedError(422, f"trial must be in 0..{len(trials) - 1}, not {trial}.")
        if question not in self._questions:
            raise RefusedError(422, f"question must be one of {', '.join(self._questions)}.")
        shown = len(trials[trial].pictures)
        if choice is not None and not 0 <= choice < shown:
            raise RefusedError(422, f"choice must be null or in 0..{shown - 1}, not {choice}.")
        if self._ranked != (ranks is not None):
            wanted = f"{shown} ranks, one for each picture" if self._ranked else "a choice, no ranks"
            raise RefusedError(422, f"This study asks for {wanted}.")
        if ranks is not None and (len(ranks) != shown or not all(1 <= rank <= shown for rank in ranks)):
            raise RefusedError(422, f"ranks must be {shown} numbers in 1..{shown}, not {list(ranks)}.")


def _waiting() -> ColumnElement[bool]:
    """Whether a session is a visitor's who has never answered."""
    visitor = select(VISITORS.c.participant).where(VISITORS.c.participant == SESSIONS.c.participant)
    answered = select(EVENTS.c.id).where(EVENTS.c.participant == SESSIONS.c.participant)
    return visitor.correlate(SESSIONS).exists() & ~answered.correlate(SESSIONS).exists()


def _remove_visitor(connection: Connection, participant: int) -> None:
    for of in (VISITORS, SESSIONS):
        connection.execute(delete(of).where(of.c.participant == participant))


def _check_changes(connection: Connection, participant: int, trial: int, question: str) -> None:
    one = (EVENTS.c.participant == participant) & (EVENTS.c.trial == trial) & (EVENTS.c.question == question)
    count = connection.execute(select(func.count()).select_from(EVENTS).where(one)).scalar_one()
    if count > MAX_CHANGES:
        raise RefusedError(409, f"This answer was changed {MAX_CHANGES} times, so the last one stays.")


def token_digest(token: str) -> str:
    """SHA-256 of a token in hex, as stored in the database."""
    return hashlib.sha256(token.encode()).hexdigest()


def _digest(study: ShownStudy) -> str:
    """Digest of design and question names, which define the meaning of answers; texts may still be corrected."""
    meaning = [asdict(study.design), [question.name for question in study.settings.questions]]
    return hashlib.sha256(json.dumps(meaning, sort_keys=True).encode()).hexdigest()


def _bring_up_to_date(connection: Connection, design: str, migrations: Sequence[Migration]) -> None:
    serialize_transactions(connection)
    newest = len(migrations) + 1
    found = connection.execute(select(VERSION)).first()
    if found is None:
        connection.execute(insert(VERSION).values(version=newest, design=design))
        return
    if found.design != design:
        raise DataError("the database holds answers to another study or to other questions; use one database per study")
    if found.version > newest:
        raise DataError(f"the database has version {found.version}, this program knows {newest}; use a newer fairhuman")
    for migrate in migrations[found.version - 1 :]:
        migrate(connection)
    connection.execute(update(VERSION).values(version=newest))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
