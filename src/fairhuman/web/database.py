"""Databases of the web apps: SQLite with durable commits, or any other database by URL.

Everything specific to SQLite is here. Tables and queries elsewhere use SQLAlchemy Core, so they also run on PostgreSQL.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sqlalchemy import URL, Connection, Engine, MetaData, create_engine, event, func, make_url, select
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from fairhuman.errors import FairHumanError

_LOCK = 7_305_421  # arbitrary, but the same in all processes
_READS = "fairhuman_reads"  # execution option of a connection that only reads
BUSY_SECONDS = 5.0  # time that a transaction waits for another process before it fails


def open_database(where: Path | str, tables: MetaData, *, alone: bool = False) -> Engine:
    """Open a database, an SQLite file or an SQLAlchemy URL, and create missing tables.

    SQLite commits are on disk when they return (write-ahead log, synchronous=FULL). A new file, and the log beside it,
    can be read by its owner alone.

    Args:
        where: the file or URL.
        tables: tables that the database must have.
        alone: refuse an SQLite file with any other table, view, trigger or index, because such a file that comes from
            someone else could run queries of its own at each read and write.

    Raises:
        FairHumanError: the file isn't a database, can't be opened or written, or has more than `alone` allows.
    """
    try:
        url = URL.create("sqlite", database=str(where)) if isinstance(where, Path) else make_url(where)
        if isinstance(where, Path):
            _make_private(where)
        engine = create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        with engine.begin() as connection:
            if alone and engine.dialect.name == "sqlite":
                _check_schema(connection, where, tables)
            serialize_transactions(connection)  # processes that start at the same time would create the same table
            tables.create_all(connection)
    except (SQLAlchemyError, ImportError) as error:
        raise _unusable(where, error) from error
    return engine


@contextmanager
def reading(where: Path | str) -> Iterator[Engine]:
    """Open a database to read it, also where its disk or folder can't be written.

    SQLite needs to write beside a database with a write-ahead log, even to read it. Where it can't, and no server has
    the database open, a copy is read; the copy includes the log, which may hold the last commits.

    Raises:
        FairHumanError: as `open_database`.
    """
    path = _sqlite_file(where)
    if path is None or all(os.access(each, os.W_OK) for each in (path.parent, path)):
        engine = open_database(where, MetaData())
        try:
            yield engine
        finally:
            engine.dispose()
        return
    with tempfile.TemporaryDirectory() as folder:
        opened = _without_writing(path) or _copied(path, Path(folder))
        try:
            yield opened
        finally:
            opened.dispose()


def _check_schema(connection: Connection, where: Path | str, tables: MetaData) -> None:
    """Check that an SQLite database has nothing but these tables and their indexes, defined as here."""
    own = create_engine("sqlite://")
    with own.begin() as fresh:
        tables.create_all(fresh)
        allowed = _schema(fresh)
    own.dispose()
    if strange := sorted(_schema(connection) - allowed):
        kind, name, _ = strange[0]
        raise FairHumanError(
            f"{where}: must have only this program's tables and indexes, but its {kind} {name!r} isn't one of them, or "
            "is defined in another way; delete the file if someone else made it"
        )


def _schema(connection: Connection) -> set[tuple[str, str, str]]:
    """Kind, name and definition of everything in an SQLite database."""
    rows = connection.exec_driver_sql("SELECT type, name, coalesce(sql, '') FROM sqlite_master")
    return {(str(kind), str(name), " ".join(str(sql).split())) for kind, name, sql in rows}


def _make_private(path: Path) -> None:
    """Make an empty file, which is an empty database, with mode 600; SQLite gives its log the same."""
    with suppress(OSError):  # it is there, or SQLite says why it can't be made
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))


def _copied(path: Path, folder: Path) -> Engine:
    """A copy in `folder` of an SQLite file and its log."""
    try:
        for file in (path, path.with_name(f"{path.name}-wal")):
            if file == path or file.exists():
                shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise _unusable(path, error) from error
    return open_database(folder / path.name, MetaData())


def _without_writing(path: Path) -> Engine | None:
    """An SQLite file opened for reading alone; None if SQLite can't do that."""
    engine = create_engine("sqlite://", creator=lambda: sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True))
    try:
        with engine.connect() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM sqlite_master")
    except SQLAlchemyError:
        engine.dispose()
        return None
    return engine


def _sqlite_file(where: Path | str) -> Path | None:
    """The file of an SQLite database that exists; None for other databases."""
    if isinstance(where, str):
        try:
            url = make_url(where)
        except SQLAlchemyError:
            return None
        if url.get_backend_name() != "sqlite" or not url.database:
            return None
        where = Path(url.database)
    return where if where.is_file() else None


def _unusable(where: Path | str, error: Exception) -> FairHumanError:
    shown = where if isinstance(where, Path) else where.partition("://")[0] + "://…"  # a URL may contain a password
    return FairHumanError(f"{shown}: the database can't be used: {getattr(error, 'orig', None) or error}")


@contextmanager
def transaction(engine: Engine) -> Iterator[Connection]:
    """A transaction.

    SQLite runs one at a time, so that values read in it stay valid until the commit. On other databases that depends on
    the isolation level.
    """
    with engine.begin() as connection:
        yield connection


@contextmanager
def snapshot(engine: Engine) -> Iterator[Connection]:
    """A transaction that only reads: it sees what was committed when it began, and on SQLite waits for no writer."""
    with engine.connect().execution_options(**{_READS: True}) as connection:
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
        "trusted_schema=OFF",
    ):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(_READS) else "BEGIN IMMEDIATE")
