"""What the store promises, on both databases: no answer twice, none lost, history kept, nothing mixed up."""

import threading

import pytest
from sqlalchemy import insert, select, text, update

from fairhuman.errors import DataError
from fairhuman.study.links import participant_tokens
from fairhuman.study.shown import load_shown
from fairhuman.study.store import ANSWERS, EVENTS, MIGRATIONS, SESSIONS, VERSION, StudyStore, open_store, token_digest
from fairhuman.study.study import SETTINGS
from fairhuman.web.app import RefusedError
from fairhuman.web.database import outage_is_known, transaction
from helpers.small_study import write_study


@pytest.fixture
def folder(study_folder):
    return study_folder(participants=3, trials=4)


@pytest.fixture
def store(folder, database):
    opened = open_store(load_shown(folder), database)
    tokens = opened.invite(participant_tokens(folder, range(3)))
    for number in tokens:
        opened.consent(number)
    yield opened
    opened.close()


def rows(store: StudyStore, table):
    with transaction(store.engine) as connection:
        return [tuple(row) for row in connection.execute(select(table))]


def test_an_answer_is_kept_once_however_often_it_is_sent(store):
    for _ in range(3):
        assert store.answer(0, "k" * 16, 2, "overall", 1, 3.25) == 1
    assert [row[:5] for row in rows(store, ANSWERS)] == [(0, 2, "overall", 1, 3.25)]
    assert len(rows(store, EVENTS)) == 1
    assert store.answer(0, "l" * 16, 2, "regional", None, 1.0) == 2  # a tie
    assert store.answers(0)[1].choice is None
    assert store.answer(1, "k" * 16, 0, "overall", 0, 1.0) == 1  # the key is each participant's own


def test_a_changed_answer_replaces_the_old_one_and_both_are_kept_in_the_history(store):
    store.answer(0, "a" * 16, 0, "overall", 0, 1.0)
    store.answer(0, "b" * 16, 0, "overall", 1, 2.0)
    store.answer(0, "a" * 16, 0, "overall", 0, 1.0)  # comes late, was accepted before
    assert [row[:5] for row in rows(store, ANSWERS)] == [(0, 0, "overall", 1, 2.0)]
    assert [row[5] for row in rows(store, EVENTS)] == [0, 1]


def test_reading_waits_for_nobody_who_writes(store):
    with transaction(store.engine):
        assert (store.has_consented(0), store.answers(0), len(store.progress())) == (True, [], 3)


def test_a_key_that_comes_back_with_another_content_changes_nothing(store):
    store.answer(0, "a" * 16, 0, "overall", 0, 1.0)
    with pytest.raises(RefusedError, match="same key"):
        store.answer(0, "a" * 16, 0, "overall", 1, 1.0)
    assert [row[3] for row in rows(store, ANSWERS)] == [0]


@pytest.mark.parametrize(
    ("trial", "question", "choice"), [(4, "overall", 0), (-1, "overall", 0), (0, "other", 0), (0, "overall", 2)]
)
def test_what_is_not_asked_is_not_kept(store, trial, question, choice):
    with pytest.raises(RefusedError) as refused:
        store.answer(0, "a" * 16, trial, question, choice, 1.0)
    assert refused.value.status == 422
    assert rows(store, EVENTS) == []


def test_nothing_is_kept_before_consent_and_the_first_consent_counts(folder, database):
    store = open_store(load_shown(folder), database)
    store.invite(participant_tokens(folder, range(3)))
    assert not store.has_consented(0)
    with pytest.raises(RefusedError) as refused:
        store.answer(0, "a" * 16, 0, "overall", 0, 1.0)
    assert refused.value.status == 403
    store.consent(0)
    first = rows(store, SESSIONS)
    store.consent(0)
    assert rows(store, SESSIONS) == first
    assert store.has_consented(0)
    store.close()


def test_the_database_knows_tokens_by_their_hash_alone(store, folder):
    tokens = participant_tokens(folder, range(3))
    assert {row[1] for row in rows(store, SESSIONS)} == {token_digest(token) for token in tokens.values()}
    assert {store.participant_of(token): token for token in tokens.values()} == tokens
    for wrong in ("", "x" * 43, token_digest(tokens[0]), tokens[0][:-1], tokens[0].lower(), "' OR 1=1 --", "%"):
        assert store.participant_of(wrong) is None


def test_visitors_get_numbers_that_are_free_and_the_same_again(folder, database):
    store = open_store(load_shown(folder), database)
    store.invite({1: "invited"})
    for token in ("first", "first", "second", "first"):
        store.join(token)
    assert [store.participant_of(token) for token in ("first", "invited", "second")] == [0, 1, 2]
    with pytest.raises(RefusedError) as refused:
        store.join("third")
    assert refused.value.status == 409
    store.join("second")  # who has a place keeps it
    assert store.invite({0: "a", 1: "invited"}) == {1: "invited"}
    store.close()


def test_processes_that_come_at_once_share_numbers_and_answers_rightly(folder, database):
    """Engines of their own, as processes have; they also make the tables at once."""
    failures, stores, ready = [], [], threading.Barrier(4)

    def act(own: int) -> None:
        try:
            ready.wait()
            store = open_store(load_shown(folder), database)
            stores.append(store)
            if own < 3:
                store.join(f"visitor {own}")
            ready.wait()
            number = store.participant_of("visitor 0")
            for i in range(5):  # all send the same ones
                store.answer(number, f"key-{i}".ljust(16, "-"), i % 4, "overall", 1, 1.0)
        except Exception as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=act, args=(own,)) for own in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(row[0] for row in rows(stores[0], SESSIONS)) == [0, 1, 2]
    assert len(rows(stores[0], EVENTS)) == 5
    assert len(rows(stores[0], ANSWERS)) == 4
    assert len(rows(stores[0], VERSION)) == 1
    for store in stores:
        store.close()


def test_progress_counts_everybody(store):
    store.answer(2, "a" * 16, 0, "overall", 0, 1.0)
    found = store.progress()
    assert [(each.participant, each.answered, each.total, each.done) for each in found] == [
        (0, 0, 8, False),
        (1, 0, 8, False),
        (2, 1, 8, False),
    ]
    assert (found[0].last, found[2].last) == (None, rows(store, ANSWERS)[0][5])


def test_a_database_of_another_study_is_refused(store, tmp_path, database):
    other = load_shown(write_study(tmp_path / "other"))
    with pytest.raises(DataError, match="another study"):
        open_store(other, database)


def test_a_question_may_be_worded_anew_but_not_exchanged(folder, database):
    open_store(load_shown(folder), database).close()
    path = folder / SETTINGS
    worded = path.read_text(encoding="utf-8").replace("Which picture is better", "Which picture looks better")
    path.write_text(worded, encoding="utf-8")
    open_store(load_shown(folder), database).close()
    path.write_text(worded.replace("name: regional", "name: hands"), encoding="utf-8")
    with pytest.raises(DataError, match="other questions"):
        open_store(load_shown(folder), database)


def test_an_older_database_is_brought_up_to_date_once_and_a_newer_one_refused(folder, database):
    study = load_shown(folder)
    old = open_store(study, database)
    with transaction(old.engine) as connection:
        connection.execute(insert(SESSIONS).values(participant=0, token=token_digest("a")))
    old.close()

    def add_note(connection):
        connection.execute(text("ALTER TABLE sessions ADD COLUMN note VARCHAR"))

    for _ in range(2):
        store = open_store(study, database, [*MIGRATIONS, add_note])
        with transaction(store.engine) as connection:
            assert connection.execute(text("SELECT participant, note FROM sessions")).all() == [(0, None)]
            assert connection.execute(select(VERSION.c.version)).scalar() == len(MIGRATIONS) + 2
        store.close()
    with pytest.raises(DataError, match="use a newer fairhuman"):
        open_store(study, database)


def test_a_failed_migration_changes_nothing(folder, database):
    study = load_shown(folder)
    open_store(study, database).close()

    def fail(connection):
        connection.execute(update(VERSION).values(design="spoilt"))
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        open_store(study, database, [*MIGRATIONS, fail])
    open_store(study, database).close()


def test_a_new_connection_to_a_server_ends_an_outage(folder, database):
    outage_is_known()
    open_store(load_shown(folder), database).close()
    assert outage_is_known() == database.startswith("sqlite")


def test_a_link_is_looked_up_while_another_process_writes(store):
    with transaction(store.engine) as connection:
        connection.execute(insert(SESSIONS).values(participant=7, token=token_digest("new")))
        assert store.participant_of("new") is None, "not committed yet"
    assert store.participant_of("new") == 7
