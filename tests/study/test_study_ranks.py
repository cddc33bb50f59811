"""Ranks with ties of any subset: what they mean, what is stored, and what comes of them."""

import json
import math
from urllib.request import Request, urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import rankdata
from sqlalchemy import inspect, select, text

from fairhuman.errors import DataError
from fairhuman.study.analysis import analyse
from fairhuman.study.answers import Vote, Votes, read_votes, write_votes
from fairhuman.study.bradley_terry import fit_strengths
from fairhuman.study.create import make_trials
from fairhuman.study.links import participant_tokens
from fairhuman.study.ranks import dense, parse_ranks, ranks_text, shared_places, sole_best
from fairhuman.study.recorded import read_database
from fairhuman.study.scores import mean_rank, method_score, pair_records, vote_score
from fairhuman.study.shown import load_shown
from fairhuman.study.store import ANSWERS, open_store
from fairhuman.study.study import SETTINGS, StudySettings, load_settings, load_study
from fairhuman.study.texts import ABOUT_RANKS, DEFAULT, load_texts
from fairhuman.web.app import RefusedError
from fairhuman.web.database import transaction

ABCD = ("A", "B", "C", "D")
some_ranks = st.lists(st.integers(1, 9), min_size=2, max_size=9)


def ranked(*ranks: int, participant: str = "0", item: str = "0", shown: tuple[str, ...] = ABCD) -> Vote:
    best = sole_best(ranks)
    chosen = None if best is None else shown[best]
    return Vote(participant, 0, "overall", "", shown, chosen, 1.0, "", item, ranks=dense(ranks))


@given(some_ranks)
def test_ranks_are_dense_and_survive_as_text(ranks):
    found = dense(ranks)
    assert sorted(set(found)) == list(range(1, len(set(ranks)) + 1))
    for i, one in enumerate(ranks):
        for j, other in enumerate(ranks):
            assert (one < other) == (found[i] < found[j])
    assert parse_ranks(ranks_text(found), len(ranks)) == found
    assert shared_places(ranks) == rankdata(ranks, method="average").tolist()


@pytest.mark.parametrize("text", ["", "1|2", "1|2|3|", "0|1|1|1", "1|2|3|5", "1|x|1|1", "1|2|²|1"])
def test_what_are_no_ranks_of_four_pictures(text):
    with pytest.raises(ValueError, match="4 numbers of 1 to 4"):
        parse_ranks(text, 4)


def test_the_supplement_s_score():
    """1 on top, 0.5 each for those tied on top, 0 for the rest, however they are tied."""
    assert [vote_score(ranked(1, 2, 3, 3), method) for method in ABCD] == [1, 0, 0, 0]
    assert [vote_score(ranked(2, 1, 1, 3), method) for method in ABCD] == [0, 0.5, 0.5, 0]
    assert [vote_score(ranked(1, 1, 1, 2), method) for method in ABCD] == [0.5, 0.5, 0.5, 0]
    assert [vote_score(ranked(3, 3, 3, 3), method) for method in ABCD] == [0.5] * 4


def test_every_pair_of_a_ranking_meets_and_ranks_below_the_best_count():
    votes = [ranked(1, 2, 3, 3, participant=str(p), item=str(i)) for p in range(3) for i in range(3)]
    found = pair_records(votes, ABCD)
    assert (found["A", "B"].wins, found["C", "D"].ties, found["B", "C"].losses) == (9, 9, 0)
    assert found["B", "C"].share.value == 1.0
    assert [mean_rank(votes, method).value for method in ABCD] == [1, 2, 3.5, 3.5]
    strengths = fit_strengths(votes, ABCD).of
    assert strengths["A"].value > strengths["B"].value > strengths["C"].value
    assert strengths["C"].value == pytest.approx(strengths["D"].value, abs=1e-3)


def test_mean_ranks_have_intervals_between_the_first_and_the_last_place():
    orders = [(1, 2, 3, 4), (2, 1, 3, 3), (1, 1, 2, 3), (4, 3, 2, 1), (1, 3, 2, 4), (1, 2, 2, 2)]
    votes = [
        ranked(*orders[(p * 5 + i) % len(orders)], participant=str(p), item=str(i)) for p in range(6) for i in range(5)
    ]
    for method in ABCD:
        found = mean_rank(votes, method)
        expected = [shared_places(vote.ranks)[vote.shown.index(method)] for vote in votes]
        assert found.value == pytest.approx(sum(expected) / len(expected))
        assert 1 <= found.low < found.value < found.high <= 4
    assert mean_rank([ranked(1, 2, shown=("A", "B")), *votes], "A") is None  # places of 2 and of 4 don't compare
    plain = [Vote("0", 0, "overall", "", ABCD, "A", 1.0, "", "0")]
    assert mean_rank(plain, "A") is None
    assert analyse(Votes(plain), StudySettings()).everybody["overall"].ranks == {}


def test_of_two_pictures_ranks_say_what_a_choice_says():
    shown = ("A", "B")
    choices = [("A", (1, 2)), ("B", (2, 1)), (None, (1, 1)), ("A", (1, 2))]
    plain = [
        Vote(str(n), 0, "overall", "", shown, chosen, 1.0, "", str(n % 2)) for n, (chosen, _) in enumerate(choices)
    ]
    both = [ranked(*ranks, participant=str(n), item=str(n % 2), shown=shown) for n, (_, ranks) in enumerate(choices)]
    for method in shown:
        assert method_score(plain, method) == method_score(both, method)
    assert repr(pair_records(plain, shown)) == repr(pair_records(both, shown))  # nan is no nan
    one, other = (analyse(Votes(votes), StudySettings()).everybody["overall"] for votes in (plain, both))
    assert (one.strengths, one.ties) == (other.strengths, other.ties)
    assert one.alpha == other.alpha or math.isnan(one.alpha)


@pytest.mark.parametrize("name", ["answers.csv", "answers.json"])
def test_tables_keep_ranks_and_name_rows_that_contradict_themselves(tmp_path, name):
    votes = [ranked(1, 2, 3, 3), ranked(2, 1, 1, 3, participant="1")]
    write_votes(votes, tmp_path / name)
    assert [(vote.chosen, vote.ranks) for vote in read_votes(tmp_path / name).votes] == [
        ("A", (1, 2, 3, 3)),
        (None, (2, 1, 1, 3)),
    ]
    content = (tmp_path / name).read_text(encoding="utf-8")
    (tmp_path / name).write_text(content.replace("1|2|3|3", "2|1|3|3"), encoding="utf-8")
    assert "chosen must be B, as the ranks say; found 'A'" in read_votes(tmp_path / name).bad[0]


@pytest.fixture
def folder(study_folder):
    return study_folder(participants=2, trials=2, shown=4, ranks=True)


def opened(folder, where):
    study = load_shown(folder)
    store = open_store(study, where)
    for number in store.invite(participant_tokens(folder, range(2))):
        store.consent(number)
    return store


def test_ranks_are_stored_and_what_is_none_is_refused(folder, tmp_path):
    store = opened(folder, tmp_path / "answers.sqlite")
    assert store.answer(0, "a" * 16, 0, "overall", None, 1.0, ranks=[4, 2, 2, 4]) == 1
    assert store.answer(0, "a" * 16, 0, "overall", None, 1.0, ranks=[4, 2, 2, 4]) == 1  # sent again
    assert store.answer(0, "b" * 16, 1, "overall", None, 1.0, ranks=[1, 2, 3, 4]) == 2
    assert [(one.choice, one.ranks) for one in store.answers(0)] == [(None, "2|1|1|2"), (0, "1|2|3|4")]
    for wrong in ([1, 2, 3], [0, 1, 2, 3], [1, 2, 3, 5], None):
        with pytest.raises(RefusedError, match="ranks"):
            store.answer(0, "c" * 16, 0, "regional", None, 1.0, ranks=wrong)
    store.close()
    study = load_study(folder)
    votes = read_database(tmp_path / "answers.sqlite", study.design, ["overall", "regional"]).votes
    shown = study.design.participants[0][1].shown
    assert [vote.ranks for vote in votes] == [(2, 1, 1, 2), (1, 2, 3, 4)]
    assert [vote.chosen for vote in votes] == [None, shown[0]]
    assert set(votes[0].top) == set(study.design.participants[0][0].shown[1:3])


def test_a_study_from_before_there_were_ranks_goes_on_with_choices(folder, tmp_path, database):
    """Its settings don't name ranks, and its database has no column of them."""
    lines = (folder / SETTINGS).read_text(encoding="utf-8").splitlines()
    (folder / SETTINGS).write_text("\n".join(line for line in lines if not line.startswith("ranks:")))
    assert load_settings(folder).ranked is False
    first = opened(folder, database)
    first.answer(0, "a" * 16, 0, "overall", 2, 1.0)
    with transaction(first.engine) as connection:
        for name in ("answers", "events"):
            connection.execute(text(f"ALTER TABLE {name} DROP COLUMN ranks"))
        connection.execute(text("UPDATE version SET version = 1"))
    first.close()
    design = load_study(folder).design
    assert [vote.ranks for vote in read_database(database, design, ["overall"]).votes] == [None]  # as it is
    again = opened(folder, database)
    assert "ranks" in {column["name"] for column in inspect(again.engine).get_columns("answers")}
    assert again.answer(0, "b" * 16, 1, "overall", None, 1.0) == 2
    with pytest.raises(RefusedError, match="asks for a choice"):
        again.answer(0, "c" * 16, 1, "regional", None, 1.0, ranks=[1, 2, 3, 4])
    with transaction(again.engine) as connection:
        assert [row.choice for row in connection.execute(select(ANSWERS).order_by(ANSWERS.c.trial))] == [2, None]
    again.close()


def test_damaged_ranks_in_a_database_are_named(folder, tmp_path):
    where = tmp_path / "answers.sqlite"
    store = opened(folder, where)
    store.answer(0, "a" * 16, 0, "overall", None, 1.0, ranks=[1, 2, 3, 4])
    with transaction(store.engine) as connection:
        connection.execute(text("UPDATE answers SET ranks = '1|2'"))
    store.close()
    found = read_database(where, load_study(folder).design, ["overall", "regional"])
    assert found.votes == []
    assert "ranks must be 4 numbers of 1 to 4" in found.bad[0]


@pytest.mark.parametrize(("methods", "shown"), [(7, 7), (7, 4), (9, 5)])
def test_designs_of_many_methods_end_soon_and_are_balanced(methods, shown):
    settings = StudySettings(items=10, participants=5, shown=shown, checks=0)
    names = [f"m{number}" for number in range(methods)]
    trials = make_trials(settings, names, [])
    often = [sum(name in trial.shown for of_one in trials for trial in of_one) for name in names]
    assert max(often) - min(often) <= (0 if shown == methods else 4)
    assert all(len(set(trial.shown)) == shown for of_one in trials for trial in of_one)


def test_a_ranked_study_s_page_says_so_and_gets_its_answers_back(folder, make_app, serving):
    app, tokens = make_app(folder)
    address = f"{serving(app)}/p/{tokens[0]}"
    urlopen(Request(f"{address}/consent", method="POST", data=b"", headers={"Origin": address.partition("/p/")[0]}))
    page = urlopen(address).read().decode()
    assert 'data-ranked="true"' in page
    assert "Equally good pictures get the same rank" in page
    body = {"key": "k" * 16, "trial": 0, "question": "overall", "choice": None, "ranks": [1, 1, 2, 3], "seconds": 1.0}
    headers = {"Content-Type": "application/json", "Origin": address.partition("/p/")[0]}
    urlopen(Request(f"{address}/api/answers", json.dumps(body).encode(), headers))
    answers = json.load(urlopen(f"{address}/api/trials"))["answers"]
    assert answers == [{"trial": 0, "question": "overall", "choice": None, "ranks": [1, 1, 2, 3]}]


def test_texts_about_ranks_may_be_missing_where_nothing_is_ranked(tmp_path):
    texts = json.loads(DEFAULT.read_text(encoding="utf-8"))
    (tmp_path / "old.json").write_text(json.dumps({name: texts[name] for name in texts if name not in ABOUT_RANKS}))
    assert load_texts(tmp_path / "old.json")["rank"] == texts["rank"]
    with pytest.raises(DataError, match="'how_to_rank' is missing"):
        load_texts(tmp_path / "old.json", ranked=True)
