"""What the database promises: on the disk at once, one after another, a clear word where it can't."""

import re
import sqlite3
import sys
import threading
from contextlib import closing

import pytest
from sqlalchemy import Column, Float, Integer, MetaData, String, Table, func, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from fairhuman.errors import DataError, FairHumanError
from fairhuman.utils import sqlite_file
from fairhuman.web import database
from fairhuman.web.database import open_database, reading, transaction
from helpers.hot_journal import write_hot_journal

TABLES = MetaData()
NUMBERS = Table("number", TABLES, Column("value", Integer, primary_key=True))


@pytest.fixture
def engine(tmp_path):
    engine = open_database(tmp_path / "a.sqlite", TABLES)
    yield engine
    engine.dispose()


def test_sqlite_keeps_what_it_acknowledged(engine):
    with transaction(engine) as connection:
        pragmas = {
            name: connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "busy_timeout": 5000}


def test_a_url_opens_the_same_database(tmp_path, engine):
    with transaction(engine) as connection:
        connection.execute(insert(NUMBERS).values(value=7))
    other = open_database(f"sqlite:///{tmp_path / 'a.sqlite'}", TABLES)
    with transaction(other) as connection:
        assert connection.execute(select(NUMBERS.c.value)).scalar() == 7
    other.dispose()


def test_what_is_read_in_a_transaction_stays_true_in_it(tmp_path):
    """Read the largest, write one more: threads with engines of their own never see the same."""
    failures = []

    def count_up():
        own = open_database(tmp_path / "a.sqlite", TABLES)
        try:
            for _ in range(10):
                with transaction(own) as connection:
                    largest = connection.execute(select(func.max(NUMBERS.c.value))).scalar() or 0
                    connection.execute(insert(NUMBERS).values(value=largest + 1))
        except Exception as error:
            failures.append(error)
        finally:
            own.dispose()

    open_database(tmp_path / "a.sqlite", TABLES).dispose()
    threads = [threading.Thread(target=count_up) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine = open_database(tmp_path / "a.sqlite", TABLES)
    with transaction(engine) as connection:
        assert connection.execute(select(func.count(), func.max(NUMBERS.c.value)).select_from(NUMBERS)).one() == (
            30,
            30,
        )
    engine.dispose()


def test_an_error_undoes_the_whole_transaction(engine):
    def add_twice():
        with transaction(engine) as connection:
            connection.execute(insert(NUMBERS).values(value=1))
            connection.execute(insert(NUMBERS).values(value=1))

    with pytest.raises(IntegrityError):
        add_twice()
    with transaction(engine) as connection:
        assert connection.execute(select(NUMBERS.c.value)).all() == []


def test_a_lock_of_another_process_ends_in_an_error(tmp_path, engine, monkeypatch):
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    other = open_database(tmp_path / "a.sqlite", TABLES)
    with transaction(engine), pytest.raises(OperationalError, match="locked"), transaction(other):
        pass
    other.dispose()


def test_a_file_that_another_process_is_making_is_waited_for(tmp_path):
    """SQLite itself doesn't wait where the write-ahead log is turned on beside another's transaction."""
    other = sqlite3.connect(tmp_path / "a.sqlite", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    end = threading.Timer(0.2, other.execute, ["COMMIT"])
    end.start()
    open_database(tmp_path / "a.sqlite", TABLES).dispose()
    end.join()
    assert not other.in_transaction
    other.close()


@pytest.mark.parametrize("kind", ["folder", "not a database", "missing folder"])
def test_what_can_t_be_opened_is_named(tmp_path, kind):
    path = tmp_path / "x.sqlite"
    if kind == "folder":
        path.mkdir()
    elif kind == "not a database":
        path.write_bytes(b"something else" * 100)
    else:
        path = tmp_path / "missing" / "x.sqlite"
    with pytest.raises(FairHumanError, match=r"x\.sqlite: the database can't be used"):
        open_database(path, TABLES)


@pytest.mark.parametrize(
    "url",
    [
        "nonsense",
        "oracle+nothing://user:secret@host/db",
        "postgresql+nothing://u:secret@h/d",
        "postgresql//user:secret@host/db",
        "postgresql://user:secret@host:abc/db",
        "postgresql://user:pass@secret@127.0.0.1:1/db",
        "postgresql://us/er:secret@127.0.0.1:1/db",
    ],
)
def test_bad_urls_are_told_without_their_password(url):
    with pytest.raises(FairHumanError, match="the database can't be used") as error:
        open_database(url, TABLES)
    assert "secret" not in str(error.value)


def test_a_missing_driver_names_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(FairHumanError, match=re.escape("; pip install 'fairhuman[postgresql]'") + "$"):
        open_database("postgresql+psycopg://u:secret@127.0.0.1:1/d", TABLES)


# Files of others

OPENED = {
    "open": lambda path: open_database(path, TABLES).dispose(),
    "open by URL": lambda path: open_database(f"sqlite:///{path}", TABLES).dispose(),
    "open by URI": lambda path: open_database(f"sqlite:///file:{path}?uri=true", TABLES).dispose(),
    "read": lambda path: reading(path, TABLES).__enter__().dispose(),
}


@pytest.fixture
def strangers(tmp_path, monkeypatch):
    """A database of these tables with what `sql` adds."""
    monkeypatch.setattr(sqlite_file, "_JOURNAL_SECONDS", 0.0)

    def make(sql=""):
        path = tmp_path / "a.sqlite"
        with closing(sqlite3.connect(path)) as connection:
            connection.executescript(f"CREATE TABLE number (value INTEGER NOT NULL, PRIMARY KEY (value)); {sql}")
        return path

    return make


def test_sqlite_itself_deletes_what_a_journal_names(strangers, tmp_path):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    path = strangers()
    write_hot_journal(path, victim)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT * FROM sqlite_master")
    assert not victim.exists(), "so the tests below test something"


@pytest.mark.parametrize("opened", OPENED)
def test_a_journal_is_refused_before_sqlite_deletes_what_it_names(strangers, tmp_path, opened):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    path = strangers()
    journal = write_hot_journal(path, victim)
    before = path.read_bytes(), journal.read_bytes()
    with pytest.raises(DataError, match=r"a\.sqlite-journal: must not be there, .* delete it if someone else made it"):
        OPENED[opened](path)
    assert victim.read_text() == "precious"
    assert (path.read_bytes(), journal.read_bytes()) == before


def test_the_journal_of_a_process_that_makes_the_file_is_waited_for(strangers, tmp_path, monkeypatch):
    path, journal = strangers(), tmp_path / "a.sqlite-journal"
    journal.touch()
    monkeypatch.setattr(sqlite_file, "_JOURNAL_SECONDS", 60.0)
    monkeypatch.setattr(sqlite_file.time, "sleep", lambda _: journal.unlink())
    open_database(path, TABLES).dispose()


@pytest.mark.parametrize("opened", OPENED)
def test_a_refused_database_is_closed(strangers, opened, open_connections):
    path = strangers("CREATE VIEW v AS SELECT 1")
    with pytest.raises(DataError, match="must have only this program's tables"):
        OPENED[opened](path)
    assert open_connections() == 0


@pytest.mark.parametrize("opened", OPENED)
@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_a_log_that_is_a_link_is_refused_before_it_is_written(strangers, tmp_path, opened, end):
    victim = tmp_path / "victim.txt"
    victim.write_text("precious")
    path = strangers()
    (tmp_path / f"a.sqlite{end}").symlink_to(victim)
    with pytest.raises(DataError, match=rf"a\.sqlite{end}: must be a file, but is a link"):
        OPENED[opened](path)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize("opened", ["open", "read"])
def test_a_database_that_is_a_link_is_refused(strangers, tmp_path, opened):
    path = strangers().rename(tmp_path / "mine.sqlite")
    before = path.read_bytes()
    (tmp_path / "a.sqlite").symlink_to(path)
    with pytest.raises(DataError, match=r"a\.sqlite: must be a file, but is a link"):
        OPENED[opened](tmp_path / "a.sqlite")
    assert path.read_bytes() == before


@pytest.mark.parametrize("opened", ["open by URL", "read"])
@pytest.mark.parametrize(
    ("sql", "what"),
    [
        ("CREATE VIEW v AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x FROM r) SELECT x FROM r", "view 'v'"),
        ("CREATE TRIGGER t AFTER INSERT ON number BEGIN DELETE FROM number; END", "trigger 't'"),
        ("CREATE TABLE t (x, y GENERATED ALWAYS AS (instr(x, x)))", "table 't'"),
        ("CREATE TABLE t (x, y as (x))", "table 't'"),
        ("CREATE TABLE t (x CHECK (length(x)))", "table 't'"),
        ("CREATE TABLE t (x DEFAULT (random()))", "table 't'"),
        ("CREATE TABLE t (x /* */)", "table 't'"),
        ("CREATE VIRTUAL TABLE t USING rtree(a, b, c)", "table 't'"),
        ("CREATE INDEX i ON number (instr(value, 1))", "index 'i'"),
        ("CREATE INDEX i ON number (value) WHERE value > 1", "index 'i'"),
    ],
)
def test_definitions_that_run_something_are_refused(strangers, opened, sql, what):
    path = strangers(sql)
    with pytest.raises(DataError, match=rf"must have only this program's tables and indexes, but its {what} isn't"):
        OPENED[opened](path)


def test_plain_tables_of_other_programs_are_let_alone(strangers):
    path = strangers("CREATE TABLE more (a INTEGER PRIMARY KEY AUTOINCREMENT, b VARCHAR(3) UNIQUE); ANALYZE")
    open_database(path, TABLES).dispose()


TYPED = MetaData()
Table("typed", TYPED, Column("id", Integer, primary_key=True), Column("a", Float), Column("B", String, nullable=False))


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("1.5, 'x'", None),
        ("NULL, ''", None),
        ("'x', 'x'", "row 2 of typed must have a value of type float as a, but has str"),
        ("1.5, NULL", "type str as B, but has NoneType"),
        ("1.5, x'ff'", "type str as B, but has bytes"),
        ("1.5, CAST(x'ff' AS TEXT)", "the database can't be used: Could not decode to UTF-8"),
    ],
)
def test_values_have_the_types_of_their_columns(tmp_path, value, problem):
    path = tmp_path / "a.sqlite"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(
            f"CREATE TABLE typed (ID INTEGER PRIMARY KEY, A, B); INSERT INTO typed VALUES (1, 1, '');"
            f"INSERT INTO typed VALUES (2, {value})"
        )
    for opened in (lambda: open_database(path, TYPED).dispose(), lambda: reading(path, TYPED).__enter__().dispose()):
        if problem is None:
            opened()
        else:
            with pytest.raises(FairHumanError, match=problem):
                opened()
