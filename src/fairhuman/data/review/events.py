"""Tables of a review: an append-only log of events, and leases that record who has which picture open.

A decision stands until an event undoes it. Standing decisions are a query over the events, not stored separately.
"""

from dataclasses import dataclass
from pathlib import Path

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
    Text,
    and_,
    select,
)

from fairhuman.data.review.settings import MAX_NAME
from fairhuman.data.sources.review import DECISIONS
from fairhuman.web.database import open_database

FILE = DECISIONS
TABLES = MetaData()
KEEP, DROP, UNDO = "keep", "drop", "undo"

EVENTS = Table(
    "event",
    TABLES,
    Column("id", Integer, primary_key=True),
    Column("at", Float, nullable=False),  # seconds since 1970
    Column("reviewer", String(MAX_NAME), nullable=False),
    Column("key", Text, nullable=False, index=True),
    Column("action", String(8), nullable=False),
    Column("prompt", Text),  # final prompt of a kept picture
    Column("reason", String(16)),  # reason for a dropped picture
    Column("undoes", ForeignKey("event.id"), unique=True),
)
LEASES = Table(
    "lease",
    TABLES,
    Column("key", Text, primary_key=True),
    Column("reviewer", String(MAX_NAME), primary_key=True),
    Column("until", Float, nullable=False),
)
SECRETS = Table("secret", TABLES, Column("token", String(64), primary_key=True))


def open_review(folder: Path) -> Engine:
    """Open the database of a folder's decisions, and make it if there is none.

    Raises:
        FairHumanError: it can't be used, or fails the checks of `open_database`.
    """
    return open_database(folder / FILE, TABLES)


@dataclass(frozen=True, slots=True)
class Decision:
    """One reviewer's standing decision on one picture."""

    id: int
    at: float
    reviewer: str
    key: str
    action: str
    prompt: str | None
    reason: str | None


def standing_decisions(connection: Connection, *conditions: ColumnElement[bool]) -> list[Decision]:
    """Standing decisions that meet the conditions, in the order they were made."""
    columns = [EVENTS.c[name] for name in Decision.__slots__]
    query = select(*columns).where(_stands(), *conditions).order_by(EVENTS.c.id)
    return [Decision(*row) for row in connection.execute(query)]


def standing_reviews(connection: Connection) -> list[tuple[str, str]]:
    """Key and reviewer of all standing decisions; only two columns, because every key press needs it."""
    rows = connection.execute(select(EVENTS.c.key, EVENTS.c.reviewer).where(_stands())).all()
    return [(key, reviewer) for key, reviewer in rows]


def _stands() -> ColumnElement[bool]:
    undoing = EVENTS.alias("undoing")
    undone = select(undoing.c.id).where(undoing.c.undoes == EVENTS.c.id).exists()
    return and_(EVENTS.c.action != UNDO, ~undone)
