"""What the database promises: on the disk at once, one after another, a clear word where it can't."""

import threading

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, func, insert, select
from sqlalchemy.exc import IntegrityError, OperationalError

from fairhuman.errors import FairHumanError
from fairhuman.web import database
from fairhuman.web.database import open_database, transaction

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
    "url", ["nonsense", "oracle+nothing://user:secret@host/db", "postgresql+nothing://u:secret@h/d"]
)
def test_bad_urls_are_told_without_their_password(url):
    with pytest.raises(FairHumanError, match="the database can't be used") as error:
        open_database(url, TABLES)
    assert "secret" not in str(error.value)
