"""Databases of the web apps: SQLite with durable commits, or any other database by URL.

Everything specific to SQLite is here. Tables and queries elsewhere use SQLAlchemy Core, so they also run on PostgreSQL.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, func, make_url, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from fairhuman.errors import FairHumanError

_LOCK = 7_305_421  # arbitrary, but the same in all processes
BUSY_SECONDS = 5.0  # time that a transaction waits for another process before it fails


def open_database(where: Path | str, tables: MetaData) -> Engine:
    """Open a database, an SQLite file or an SQLAlchemy URL, and create missing tables.

    SQLite commits are on disk when they return (write-ahead log, synchronous=FULL).

    Raises:
        FairHumanError: the file isn't a database, or can't be opened or written.
    """
    try:
        url = URL.create("sqlite", database=str(where)) if isinstance(where, Path) else make_url(where)
        engine = create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        with engine.begin() as connection:
            serialize_transactions(connection)  # processes that start at the same time would create the same table
            tables.create_all(connection)
    except (SQLAlchemyError, ImportError) as error:
        shown = where if isinstance(where, Path) else where.partition("://")[0] + "://…"  # a URL may contain a password
        raise FairHumanError(f"{shown}: the database can't be used: {getattr(error, 'orig', None) or error}") from error
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction.

    SQLite runs one at a time, so that values read in it stay valid until the commit. On other databases that depends on
    the isolation level.
    """
    with engine.begin() as connection:
        yield connection


def serialize_transactions(connection: Connection) -> None:
    """Serialise transactions from this line on, whatever they read and write.

    SQLite's transactions are serialised anyway; PostgreSQL uses an advisory lock. On other databases it has no effect.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # Python's implicit BEGIN comes too late
    cursor = connection.cursor()
    for pragma in (
        f"busy_timeout={int(BUSY_SECONDS * 1000)}",
        "journal_mode=WAL",
        "synchronous=FULL",
        "foreign_keys=ON",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN IMMEDIATE")
