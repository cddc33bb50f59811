"""Databases of the web apps: SQLite with durable commits, or any other database by URL.

Everything specific to SQLite is here. Tables and queries elsewhere use SQLAlchemy Core, so they also run on PostgreSQL.
"""

import os
import shutil
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    MetaData,
    Table,
    create_engine,
    event,
    func,
    inspect,
    make_url,
    select,
)
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import ConnectionPoolEntry

from fairhuman.errors import DataError, FairHumanError
from fairhuman.utils.sqlite_file import DEFINITIONS, check_definitions, check_file, set_limits

_LOCK = 7_305_421  # arbitrary, but the same in all processes
_READS = "fairhuman_reads"  # execution option of a connection that only reads
_outage = threading.Event()
BUSY_SECONDS = 5.0  # time that a transaction waits for another process before it fails


def open_database(where: Path | str, tables: MetaData) -> Engine:
    """Open a database, an SQLite file or an SQLAlchemy URL, and create missing tables.

    SQLite commits are on disk when they return (write-ahead log, synchronous=FULL). A new file, and the log beside it,
    can be read by its owner alone.

    An SQLite file may come from someone else, so it is checked first: opening it concerns no other file, it runs
    nothing of its own, and its values have the types of `tables`.

    Args:
        where: the file or URL.
        tables: tables that the database must have.

    Raises:
        FairHumanError: the file isn't a database, can't be opened or written, or fails the checks.
    """
    engine = _open(where)
    try:
        with _naming(where), engine.begin() as connection:
            _check_content(connection, where, tables)
            serialize_transactions(connection)  # processes that start at the same time would create the same table
            tables.create_all(connection)
    except BaseException:
        engine.dispose()
        raise
    return engine


@contextmanager
def reading(where: Path | str, tables: MetaData) -> Iterator[Engine]:
    """Open a database to read it, also where its disk or folder can't be written; missing tables stay missing.

    SQLite needs to write beside a database with a write-ahead log, even to read it. Where it can't, and no server has
    the database open, a copy is read; the copy includes the log, which may hold the last commits.

    Raises:
        FairHumanError: as `open_database`.
    """
    path = _sqlite_file(where)
    with tempfile.TemporaryDirectory() as folder:
        if path is None or all(os.access(each, os.W_OK) for each in (path.parent, path)):
            engine = _open(where)
        else:
            check_file(path)
            engine = _without_writing(path) or _copied(path, Path(folder))
        try:
            with _naming(where), engine.connect() as connection:
                _check_content(connection, where, tables)
            yield engine
        finally:
            engine.dispose()


def _open(where: Path | str) -> Engine:
    with _naming(where):
        url = URL.create("sqlite", database=str(where)) if isinstance(where, Path) else _parsed(where)
        if isinstance(where, Path):
            check_file(where)
            _make_private(where)
        engine = create_engine(url, pool_pre_ping=url.get_backend_name() != "sqlite")
        if engine.dialect.name == "sqlite":
            event.listen(engine, "connect", _set_up_sqlite)
            event.listen(engine, "begin", _begin_sqlite)
        else:
            event.listen(engine, "connect", lambda *_: _outage.clear())
        return engine


def outage_is_known() -> bool:
    """Whether this was asked since the last connection to a server was made, so that an outage is told once."""
    known = _outage.is_set()
    _outage.set()
    return known


def _check_content(connection: Connection, where: Path | str, tables: MetaData) -> None:
    """Check that an SQLite database has only plain tables, and that values in `tables` have the types of the columns.

    SQLite itself accepts any value in any column.
    """
    if connection.dialect.name != "sqlite":
        return
    check_definitions(where, (tuple(row) for row in connection.exec_driver_sql(DEFINITIONS)))
    there = inspect(connection)
    for table in tables.sorted_tables:
        if there.has_table(table.name):
            _check_values(connection, where, table)


def _check_values(connection: Connection, where: Path | str, table: Table) -> None:
    rows = connection.exec_driver_sql(f"SELECT * FROM {table.name}")
    own = {column.name.lower(): column for column in table.columns}  # SQLite's names have no case
    columns = [own.get(name.lower()) for name, *_ in rows.cursor.description]
    sound: set[tuple[type, ...]] = set()
    for number, row in enumerate(rows, 1):
        found = tuple(map(type, row))
        if found in sound:
            continue
        for column, kind in zip(columns, found, strict=True):
            if column is not None and kind not in _types(column):
                raise DataError(
                    f"{where}: row {number} of {table.name} must have a value of type "
                    f"{column.type.python_type.__name__} as {column.name}, but has {kind.__name__}; "
                    "another program wrote it, so delete the row, or the file"
                )
        sound.add(found)


def _types(column: Column[Any]) -> tuple[type, ...]:
    """Python types of a column's values; SQLite gives the real number 1.0 of a column without a type as it was."""
    wanted = column.type.python_type
    return (wanted, *((int,) if wanted is float else ()), *((type(None),) if column.nullable else ()))


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
    return _open(folder / path.name)


def _without_writing(path: Path) -> Engine | None:
    """An SQLite file opened for reading alone; None if SQLite can't do that."""

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)
        set_limits(connection)
        return connection

    engine = create_engine("sqlite://", creator=connect)
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
            url = _parsed(where)
        except FairHumanError:
            return None
        if url.get_backend_name() != "sqlite" or not url.database:
            return None
        where = Path(url.database)
    return where if where.is_file() else None


@contextmanager
def _naming(where: Path | str) -> Iterator[None]:
    """Errors of the database name it."""
    try:
        yield
    except (SQLAlchemyError, ImportError) as error:
        raise _unusable(where, error) from error


def _parsed(where: str) -> URL:
    try:
        return make_url(where)
    except (SQLAlchemyError, ValueError):  # a port that is no number
        form = "expected a URL such as postgresql://USER:PASSWORD@HOST/NAME"
        raise FairHumanError(f"{_shown(where)}: the database can't be used: {form}") from None


def _shown(where: Path | str) -> str:
    """A file, or the scheme of a URL, which may contain a password."""
    scheme, sign, _ = str(where).partition("://")
    return str(where) if isinstance(where, Path) else f"{scheme}{sign}…" if sign else "the database URL"


def _unusable(where: Path | str, error: Exception) -> FairHumanError:
    cause = getattr(error, "orig", None) or error
    url = None if isinstance(where, Path) else _parsed(where)
    if url is not None and url.get_backend_name() != "sqlite" and "@" in f"{url.host}{url.database}":
        cause = "in its user and password, write @ as %40 and / as %2F"  # the driver would tell a part of them
    hint = "; pip install 'fairhuman[postgresql]'" if getattr(error, "name", None) == "psycopg" else ""
    return FairHumanError(f"{_shown(where)}: the database can't be used: {cause}{hint}")


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


def _set_up_sqlite(connection: sqlite3.Connection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # Python's implicit BEGIN comes too late
    cursor = connection.cursor()
    connection.text_factory = os.fsdecode  # a file's name needn't be UTF-8
    _, _, file = cursor.execute("PRAGMA database_list").fetchone()  # reads nothing yet
    connection.text_factory = str
    if file:
        check_file(Path(file))
    set_limits(connection)
    cursor.execute(f"PRAGMA busy_timeout={int(BUSY_SECONDS * 1000)}")
    _write_ahead(cursor)
    for pragma in ("synchronous=FULL", "foreign_keys=ON", "trusted_schema=OFF"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _write_ahead(cursor: sqlite3.Cursor) -> None:
    """Turn the write-ahead log on; SQLite refuses it, without waiting, beside a process that is making the file."""
    end = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN" if connection.get_execution_options().get(_READS) else "BEGIN IMMEDIATE")
