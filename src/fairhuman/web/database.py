"""The database of pages: SQLite that keeps what it has acknowledged, or any other by its URL.

All that is SQLite's own is here; tables and queries elsewhere are SQLAlchemy Core, so that they run on PostgreSQL too.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, func, make_url, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from fairhuman.errors import FairHumanError

_LOCK = 7_305_421  # any number, the same in all processes
BUSY_SECONDS = 5.0  # how long a transaction waits for that of another process before it fails


def open_database(where: Path | str, tables: MetaData) -> Engine:
    """Open a database and make its tables where they are missing.

    A commit to SQLite is on the disk when it returns (write-ahead log, synchronous=FULL).

    Args:
        where: SQLite's file, or the URL of a database as SQLAlchemy writes it.
        tables: what must be there.

    Raises:
        FairHumanError: it can't be opened, written, or isn't a database.

    """
    try:
        url = URL.create("sqlite", database=str(where)) if isinstance(where, Path) else make_url(where)
        engine = create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        with engine.begin() as connection:
            one_at_a_time(connection)  # processes that start together would make the same table
            tables.create_all(connection)
    except (SQLAlchemyError, ImportError) as error:
        shown = where if isinstance(where, Path) else where.partition("://")[0] + "://…"  # a URL may hold a password
        raise FairHumanError(f"{shown}: the database can't be used: {getattr(error, 'orig', None) or error}") from error
    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """All or nothing.

    SQLite lets one in at a time, so that what is read in here stays true until the commit; another database does so
    as far as its isolation level says.
    """
    with engine.begin() as connection:
        yield connection


def one_at_a_time(connection: Connection) -> None:
    """Wait until no other transaction is past this line, whatever it reads and writes.

    SQLite's transactions are like that anyway; PostgreSQL has a lock for it. On other databases nothing is waited for.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))


def _set_up_sqlite(connection: DBAPIConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # Python's own BEGIN comes too late
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
