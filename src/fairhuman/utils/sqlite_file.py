"""Checks of an SQLite file that may come from someone else, before it is opened and before it is read.

Opened, a file can lead to others: a rollback journal beside it may name one that SQLite then deletes, and a link in the
place of its log has the log written elsewhere. Read or written, it runs what its definitions say: views, triggers,
checks, generated columns.
"""

import os
import re
import sqlite3
import time
from collections.abc import Iterable
from pathlib import Path

from fairhuman.errors import DataError

MAX_VALUE = 1 << 25  # bytes of a text, a blob or a row; a caption has half as many at most
DEFINITIONS = "SELECT type, name, sql FROM sqlite_master"
_JOURNAL_SECONDS = 1.0  # for the journal of a process that is making the file
_PLAIN = re.compile(
    r'CREATE TABLE "?\w+"? ?\([\w\s,()"]*\)|CREATE (UNIQUE )?INDEX \w+ ON "?\w+"? ?\([\w\s,"]*\)', re.ASCII
)
_RUNS = re.compile(r"\b(AS|CHECK|DEFAULT)\b", re.ASCII | re.IGNORECASE)


def check_file(path: Path) -> None:
    """Check that opening an SQLite file reads and writes that file and its log alone.

    Raises:
        DataError: it or its log is a link, or it has a rollback journal, which a write-ahead log replaces.
    """
    for each in (path, *(path.with_name(f"{path.name}{end}") for end in ("-wal", "-shm"))):
        if each.is_symlink():
            raise DataError(f"{each}: must be a file, but is a link; copy the file that it leads to, or delete it")
    journal, until = path.with_name(f"{path.name}-journal"), time.monotonic() + _JOURNAL_SECONDS
    while os.path.lexists(journal) and path.is_file() and path.stat().st_size:
        if time.monotonic() > until:
            raise DataError(
                f"{journal}: must not be there, because it lets SQLite change {path.name} and delete any file that it "
                "names; delete it if someone else made it, else open the database once with the program that did"
            )
        time.sleep(0.05)


def set_limits(connection: sqlite3.Connection) -> None:
    """Limit the length of values, within which SQLite can't be interrupted."""
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)


def check_definitions(where: object, definitions: Iterable[tuple[object, ...]]) -> None:
    """Check that an SQLite database, of which `DEFINITIONS` are given, has only plain tables and indexes.

    Raises:
        DataError: it has a view or trigger, or something that runs when a table is read or written.
    """
    for kind, name, sql in definitions:
        own = sql is None and kind == "index"  # an index that SQLite makes for UNIQUE
        if not own and (not isinstance(sql, str) or not _PLAIN.fullmatch(sql) or _RUNS.search(sql)):
            raise DataError(
                f"{where}: must have only this program's tables and indexes, but its {kind} {name!r} isn't one of them,"
                " or is defined in another way; delete the file if someone else made it"
            )
