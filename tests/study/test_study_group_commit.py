"""Writes that share a transaction: all are there or none, a refusal is its own, errors are everybody's."""

import threading

import pytest
from sqlalchemy import Column, Integer, MetaData, Table, event, insert, select

from fairhuman.study.group_commit import GroupCommit
from fairhuman.web.app import RefusedError
from fairhuman.web.database import open_database, transaction

TABLES = MetaData()
NUMBERS = Table("number", TABLES, Column("value", Integer, primary_key=True, autoincrement=False))


@pytest.fixture
def engine(database):
    opened = open_database(database, TABLES)
    yield opened
    opened.dispose()


def at_once(engine, writes):
    """Run writes from threads that all wait for the same turn; what each came to, by its place."""
    together, found = GroupCommit(engine), {}

    def run(place):
        try:
            found[place] = together.run(writes[place])
        except Exception as error:
            found[place] = type(error)

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(writes))]
    with together._turn:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(0.1)
    for thread in threads:
        thread.join()
    return found


def add(value):
    def write(connection):
        connection.execute(insert(NUMBERS).values(value=value))
        return value

    return write


def refuse(_):
    raise RefusedError(409, "no")


def fail(_):
    raise RuntimeError("broken")


def values(engine):
    with transaction(engine) as connection:
        return sorted(connection.execute(select(NUMBERS.c.value)).scalars())


def test_each_gets_its_own_result_and_a_refusal_is_nobody_else_s(engine):
    found = at_once(engine, [add(1), refuse, add(2), add(3)])
    assert found == {0: 1, 1: RefusedError, 2: 2, 3: 3}
    assert values(engine) == [1, 2, 3]


def test_on_sqlite_those_that_wait_share_a_commit_and_its_failure(tmp_path):
    engine = open_database(tmp_path / "a.sqlite", TABLES)
    commits = []
    event.listen(engine, "commit", lambda _: commits.append(True))
    assert at_once(engine, [add(value) for value in range(8)]) == {value: value for value in range(8)}
    assert len(commits) == 1
    assert set(at_once(engine, [add(10), fail, add(11)]).values()) == {RuntimeError}
    assert values(engine) == list(range(8))
    engine.dispose()
