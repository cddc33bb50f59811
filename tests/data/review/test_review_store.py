"""Assignment of pictures, valid decisions and undo, under any sequence of actions."""

import sqlite3
import threading
from contextlib import closing

import numpy as np
import pytest
from sqlalchemy import insert, select

from fairhuman.data.review.events import EVENTS, FILE, LEASES, TABLES, open_review, standing_decisions
from fairhuman.data.review.settings import REASONS, ReviewSettings
from fairhuman.data.review.store import ReviewStore
from fairhuman.errors import FairHumanError
from fairhuman.web.app import RefusedError
from fairhuman.web.database import open_database, transaction

PEOPLE = ("Ada", "Bo", "Cy")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def store(tmp_path, clock):
    opened = []

    def make(pictures: int = 6, **settings) -> ReviewStore:
        prompts = {f"p{i}": f"prompt {i}" for i in range(pictures)}
        engine = open_database(tmp_path / FILE, TABLES)
        opened.append(engine)
        return ReviewStore(engine, prompts, ReviewSettings(**settings), clock)

    yield make
    for engine in opened:
        engine.dispose()


def keep(store, reviewer, key, prompt=None):
    return store.decide(reviewer, key, "keep", prompt, None)


def drop(store, reviewer, key, reason="other"):
    return store.decide(reviewer, key, "drop", None, reason)


def rows(store, table=EVENTS):
    with transaction(store.engine) as connection:
        return [tuple(row) for row in connection.execute(select(table))]


def decisions(store):
    with transaction(store.engine) as connection:
        return standing_decisions(connection)


@pytest.mark.parametrize(("needed", "seed"), [(1, 0), (2, 1), (3, 2)])
def test_no_picture_gets_too_many_reviews_and_events_are_append_only(store, clock, needed, seed):
    here = store(5, reviews_per_picture=needed, lease_seconds=50)
    rng = np.random.default_rng(seed)
    model: dict[str, list[tuple[str, str]]] = {name: [] for name in PEOPLE}  # each one's decisions, in order
    before: list[tuple] = []
    refused: list[int] = []
    for _ in range(60):
        name = PEOPLE[rng.integers(3)]
        action = rng.choice(["work", "keep", "drop", "keep", "undo", "wait"])
        try:
            if action == "wait":
                clock.now += float(rng.uniform(0, 40))
            elif action == "undo":
                _, undone = here.undo(name)
                assert (undone.key, undone.action) == model[name].pop()
            elif action == "work":
                here.work(name)
            else:
                key = f"p{rng.integers(5)}"
                known = key in [each for each, _ in model[name]]
                (keep if action == "keep" else drop)(here, name, key)
                model[name] += [] if known else [(key, str(action))]
        except RefusedError as error:
            refused.append(error.status)
        now = rows(here)
        assert now[: len(before)] == before
        before = now
        stands = decisions(here)
        assert sorted((each.reviewer, each.key, each.action) for each in stands) == sorted(
            (name, key, action) for name, made in model.items() for key, action in made
        )
        leases = [(key, who) for key, who, until in rows(here, LEASES) if until > clock.now]
        taken = [(each.key, each.reviewer) for each in stands] + leases
        assert len(set(taken)) == len(taken)
        assert max([0, *(sum(key == f"p{i}" for key, _ in taken) for i in range(5))]) <= needed
    assert set(refused) == {409}
    clock.now += 60
    for name in PEOPLE:
        while work := here.work(name).keys:
            keep(here, name, work[0])
    assert [here.work(name).elsewhere for name in PEOPLE] == [0, 0, 0]  # what is done won't come back
    assert here.summary().left == 0
    assert sum(here.summary().reviewers.values()) == 5 * needed


def test_many_at_once_decide_on_each_picture_once(tmp_path, store):
    store(30)
    done: dict[str, list[str]] = {}
    failures: list[BaseException] = []

    def review(name: str) -> None:
        engine = open_database(tmp_path / FILE, TABLES)  # as a server of its own
        own = ReviewStore(engine, {f"p{i}": "prompt" for i in range(30)}, ReviewSettings())
        try:
            work = own.work(name)
            while work.keys:
                done.setdefault(name, []).append(work.keys[0])
                work = keep(own, name, work.keys[0])
        except BaseException as error:
            failures.append(error)
        finally:
            engine.dispose()

    threads = [threading.Thread(target=review, args=(name,)) for name in PEOPLE]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert sorted(key for keys in done.values() for key in keys) == sorted(f"p{i}" for i in range(30))


def test_a_lease_ends_and_its_picture_goes_to_the_next(store, clock):
    here = store(2, lease_seconds=10)
    assert here.work("Ada").keys == ("p0", "p1")
    waiting = here.work("Bo")
    assert (waiting.keys, waiting.elsewhere) == ((), 2)
    clock.now += 9
    assert here.work("Ada").keys == ("p0", "p1")  # renewed
    clock.now += 9
    assert here.work("Bo").keys == ()
    clock.now += 2
    assert here.work("Bo").keys == ("p0", "p1")
    with pytest.raises(RefusedError, match="now belongs to another reviewer") as refusal:
        keep(here, "Ada", "p0")
    assert refusal.value.status == 409
    clock.now += 11
    assert keep(here, "Ada", "p0").done == 1  # nobody else has it in hand


def test_a_decision_that_comes_too_late_changes_nothing_and_says_whose_stands(store):
    here = store(2)
    keep(here, "Ada", "p0")
    before = rows(here)
    with pytest.raises(RefusedError, match="already been decided by Ada"):
        drop(here, "Bo", "p0")
    with pytest.raises(RefusedError, match="undo that first"):
        drop(here, "Ada", "p0")
    assert rows(here) == before
    assert keep(here, "Ada", "p0").own == 1  # sent again, as after a lost answer
    assert rows(here) == before


def test_undo_goes_back_any_number_of_steps_of_one_s_own_and_survives_a_restart(store):
    here = store(4)
    keep(here, "Ada", "p0")  # and gets p1 and p2
    keep(here, "Bo", "p3", "another prompt")
    drop(here, "Ada", "p1", "unclear")
    again = store(4)
    work, undone = again.undo("Ada")
    assert (undone.key, undone.reason, work.keys) == ("p1", "unclear", ("p1", "p2"))
    work, undone = again.undo("Ada")
    assert (undone.key, work.keys) == ("p0", ("p0", "p1"))
    with pytest.raises(RefusedError, match="nothing to undo") as refusal:
        again.undo("Ada")
    assert refusal.value.status == 409
    assert [(each.key, each.prompt) for each in decisions(again)] == [("p3", "another prompt")]
    assert drop(again, "Ada", "p0").own == 1


def test_an_undone_picture_is_shown_first_even_where_an_earlier_one_is_in_hand(store, clock):
    here = store(3, lease_seconds=10)
    assert here.work("Ada").keys[0] == "p0"
    keep(here, "Ada", "p1")
    assert here.undo("Ada")[0].keys == ("p1", "p0")


def test_prompts_are_one_line_and_unchanged_ones_stay_as_they_were(store):
    here = store(1)
    here.prompts = {"p0": " a  person\n here "}
    keep(here, "Ada", "p0", "a person here")
    assert decisions(here)[0].prompt == " a  person\n here "
    here.undo("Ada")
    keep(here, "Ada", "p0", " a person\r\n\t there ")
    assert decisions(here)[0].prompt == "a person there"


@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("  \n ", "is empty"),
        ("x" * 21, "has 21 characters; the limit is 20"),
        ("a\x00b", "U\\+0000"),
        ("a\x1b[31m", "U\\+001B"),
    ],
)
def test_prompts_that_are_refused(store, prompt, said):
    here = store(1, max_prompt=20)
    with pytest.raises(RefusedError, match=said) as refusal:
        keep(here, "Ada", "p0", prompt)
    assert (refusal.value.status, rows(here)) == (422, [])


def test_a_long_prompt_that_was_there_before_may_stay(store):
    here = store(1, max_prompt=3)
    assert keep(here, "Ada", "p0").done == 1


@pytest.mark.parametrize(("action", "reason"), [("drop", None), ("drop", "ugly"), ("keep", "other")])
def test_a_drop_has_a_known_reason_and_a_keep_has_none(store, action, reason):
    here = store(1)
    with pytest.raises(RefusedError, match=", ".join(REASONS)):
        here.decide("Ada", "p0", action, None, reason)
    assert rows(here) == []


def test_decisions_on_pictures_that_have_gone_are_left_alone(store):
    here = store(2)
    keep(here, "Ada", "p0")
    keep(here, "Ada", "p1")
    fewer = store(1)
    assert (fewer.summary().done, fewer.summary().unknown) == (1, 1)
    assert fewer.work("Ada").own == 1
    assert fewer.undo("Ada")[1].key == "p0"
    with pytest.raises(RefusedError, match="no such picture"):
        keep(fewer, "Ada", "p1")


def test_the_token_is_long_and_stays(store):
    first = store().token()
    assert len(first) >= 40
    assert store().token() == first


FOREVER = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"


@pytest.mark.parametrize(
    ("before", "after", "what"),
    [
        (f"CREATE VIEW event AS {FOREVER}", "", "view 'event'"),
        ("", "CREATE TRIGGER t AFTER INSERT ON event BEGIN DELETE FROM event; END", "trigger 't'"),
        ("CREATE TABLE secret (token TEXT CHECK (length(randomblob(1000000000)) > 0))", "", "table 'secret'"),
    ],
)
def test_a_database_with_queries_of_a_stranger_is_refused_before_any_runs(tmp_path, before, after, what):
    if after:
        open_review(tmp_path).dispose()
        open_review(tmp_path).dispose()  # one of this program is opened again
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        connection.executescript(before + after)
    with pytest.raises(FairHumanError, match=f"{FILE}: must have only this program's tables .* but its {what} isn't"):
        open_review(tmp_path)


def test_leases_that_end_later_than_leases_can_hold_no_picture(store):
    here = store(2, lease_seconds=10)
    with transaction(here.engine) as connection:
        connection.execute(insert(LEASES), [{"key": f"p{i}", "reviewer": "x", "until": 9e99} for i in range(2)])
    assert keep(here, "Ada", "p0").keys == ("p1",)
    assert here.work("Bo").elsewhere == 1
    assert {row[1] for row in rows(here, LEASES)} == {"Ada"}
