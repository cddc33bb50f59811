"""Answers from the database and from tables, and what is done with those that can't be used."""

import json
import math
import sqlite3
from collections import namedtuple
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairhuman.errors import DataError, FairHumanError
from fairhuman.study.answers import COLUMNS, Vote, load_votes, read_votes, write_votes
from fairhuman.study.exclusion import judge_participants
from fairhuman.study.recorded import possible_seconds, read_database
from fairhuman.study.study import DATABASE, Design, StoredStudy, StudyItem, StudySettings, Trial
from helpers.simulated_votes import vote
from helpers.study_database import write_database

Event = namedtuple("Event", "participant trial question seconds given")
QUESTIONS = ("overall", "regional")
DESIGN = Design(
    ("A", "B"),
    (
        StudyItem("one", {"A": "1", "B": "2"}, {"A": (), "B": ()}),
        StudyItem("two", {"A": "3", "B": "4"}, {"A": (), "B": ()}),
        StudyItem("two", {"sharp": "5", "blurred": "6"}, {"sharp": (), "blurred": ()}, "sharp"),
    ),
    ((Trial(1, ("B", "A")), Trial(2, ("blurred", "sharp"))), (Trial(0, ("A", "B")), Trial(2, ("sharp", "blurred")))),
)


def test_answers_of_the_database_become_votes(tmp_path: Path) -> None:
    now = "2026-01-01T00:00:00+00:00"
    rows = [(1, 0, "overall", None, 2.0, now), (0, 0, "overall", 1, 3.5, now), (0, 1, "regional", 0, 1.0, now)]
    found = read_database(write_database(tmp_path / DATABASE, rows), DESIGN, QUESTIONS)
    assert repr(found.votes) == repr(
        [
            Vote("0", 0, "overall", "two", ("B", "A"), "A", 3.5, now, "1"),
            Vote("0", 1, "regional", "two", ("blurred", "sharp"), "blurred", 1.0, now, "2", "sharp"),
            Vote("1", 0, "overall", "one", ("A", "B"), None, 2.0, now, "0"),
        ]
    )
    assert (found.bad, found.expected) == ([], 4)


def test_rows_that_the_design_doesnt_know_are_named_and_left_out(tmp_path: Path) -> None:
    rows = [
        (2, 0, "overall", 0, 1.0, ""),
        (0, 2, "overall", 0, 1.0, ""),
        (0, -1, "overall", 0, 1.0, ""),
        (0, 0, "taste", 0, 1.0, ""),
        (0, 0, "overall", 2, 1.0, ""),
        (0, 0, "regional", 0, -1.0, ""),
        (1, 0, "overall", 0, 1.0, ""),
    ]
    found = read_database(write_database(tmp_path / DATABASE, rows), DESIGN, QUESTIONS)
    assert len(found.votes) == 1
    assert len(found.bad) == 6
    assert "participant 0, trial 0, overall: choice 2 of 2 pictures" in found.bad
    assert "participant 0, trial 0, taste: the questions are overall, regional" in found.bad
    assert "participant 2, trial 0, overall: the design has 2 participants, from 0" in found.bad


def test_a_study_that_wasnt_served_has_no_answers_and_gets_no_database(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has the study been served"):
        read_database(tmp_path / DATABASE, DESIGN, QUESTIONS)
    assert not (tmp_path / DATABASE).exists()
    sqlite3.connect(tmp_path / "other.sqlite").execute("CREATE TABLE other (x)").connection.close()
    with pytest.raises(DataError, match="holds no answers of a study: no such table: answers"):
        read_database(tmp_path / "other.sqlite", DESIGN, QUESTIONS)
    (tmp_path / "text.sqlite").write_text("no database, but long enough to be read as one" * 20)
    with pytest.raises(FairHumanError, match=r"text.sqlite: the database can't be used"):
        read_database(tmp_path / "text.sqlite", DESIGN, QUESTIONS)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (("first", 0, "overall", 0, 1.0, ""), "type int as participant, but has str"),
        ((0, 0, "overall", b"0", 1.0, ""), "type int as choice, but has bytes"),
        ((0, 0, "overall", 0, None, ""), "type float as seconds, but has NoneType"),
    ],
)
def test_values_of_other_types_are_named(tmp_path: Path, row: tuple[object, ...], problem: str) -> None:
    with pytest.raises(FairHumanError, match=rf"study\.sqlite: row 1 of answers must have a value of {problem}"):
        read_database(write_database(tmp_path / DATABASE, [row]), DESIGN, QUESTIONS)


def test_times_with_and_without_a_zone_are_compared() -> None:
    events = [
        Event(0, 0, "overall", 1.0, "2026-01-01T00:00:05+00:00"),
        Event(0, 1, "overall", 1.0, "2026-01-01T00:00:09"),
    ]
    found = possible_seconds({0: "2026-01-01T00:00:00"}, events)
    assert found == {(0, 0, "overall"): 5.0, (0, 1, "overall"): 8.0}


names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=6).filter(
    lambda name: name == name.strip() and "|" not in name and name != "tie"
)


@st.composite
def votes(draw: st.DrawFn) -> list[Vote]:
    methods = draw(st.lists(names, min_size=2, max_size=4, unique=True))
    texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=12)
    seconds = st.one_of(st.floats(0, 1e4), st.just(math.nan))
    return [
        Vote(
            str(number),
            draw(st.integers(0, 99)),
            "overall",
            draw(texts),
            tuple(methods),
            draw(st.sampled_from([None, *methods])),
            draw(seconds),
            "2026-01-01T00:00:00+00:00",
            f"{number} item",
            draw(st.sampled_from([None, *methods])),
        )
        for number in range(draw(st.integers(1, 4)))
    ]


@pytest.mark.parametrize("kind", ["csv", "json"])
@settings(max_examples=60, deadline=None)
@given(written=votes())
def test_what_is_exported_is_imported(tmp_path_factory: pytest.TempPathFactory, kind: str, written: list[Vote]) -> None:
    path = tmp_path_factory.mktemp("votes") / f"votes.{kind}"
    write_votes(written, path)
    found = read_votes(path)
    assert found.bad == []
    assert [repr(one) for one in found.votes] == [repr(one) for one in written], "repr, as NaN isn't itself"


def test_a_table_from_elsewhere_needs_five_columns(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    path.write_text(
        "\ufeffshown,participant,chosen,question,trial,mood\nA | B,ann,B,overall,0,good\nA|B,bob,tie,overall,0,\n"
    )
    ann, bob = read_votes(path).votes
    assert (ann.participant, ann.shown, ann.chosen, bob.chosen) == ("ann", ("A", "B"), "B", None)
    assert (math.isnan(ann.seconds), ann.prompt, ann.better) == (True, "", None)
    assert ann.item == bob.item == "trial 0"


def test_a_table_of_a_study_is_judged_by_the_study_as_its_database_is(tmp_path: Path) -> None:
    path = tmp_path / "answers.csv"
    write_votes([vote("0", "AB", "A", trial=0), vote("1", "AB", "B", trial=0)], path)
    trials = tuple(Trial(0, ("A", "B")) for _ in range(4))
    stored = StoredStudy(tmp_path, StudySettings(), Design(("A", "B"), (), (trials, trials)))
    found = load_votes(stored, None, path)
    assert found.expected == 4 * len(stored.settings.questions)
    reasons = [one.reasons for one in judge_participants(found, stored.settings.exclude)]
    assert all("at least 50 % required" in " ".join(each) for each in reasons)
    assert load_votes(None, None, path).expected is None


def test_bad_lines_are_named_counted_and_left_out(tmp_path: Path) -> None:
    path = tmp_path / "votes.csv"
    good = "0,0,overall,a prompt,A|B,A,1.5,\n"
    bad = [
        "0,x,overall,p,A|B,A,1,",
        ",1,overall,p,A|B,A,1,",
        "0,1,overall,p,A,A,1,",
        "0,1,overall,p,A|A,A,1,",
        "0,1,overall,p,A|B,C,1,",
        "0,1,overall,p,A|B,,1,",
        "0,1,overall,p,A|B,A,nan,",
        "0,1,overall,p,A|B,A,-1,",
        "0,0,overall,p,A|B,B,1,",
        "0,1",
    ]
    path.write_text("participant,trial,question,prompt,shown,chosen,seconds,given\n" + good + "\n".join(bad) + "\n")
    found = read_votes(path)
    assert [one.chosen for one in found.votes] == ["A"]
    assert [text.partition(":")[0] for text in found.bad] == [f"votes.csv, line {line}" for line in range(3, 13)]
    assert "chosen must be one of A, B, or tie; found 'C'" in found.bad[4]
    assert "a second answer to overall in trial 0 of participant 0" in found.bad[8]
    path.write_text(path.read_text() + "\n".join(bad[:3]))
    assert read_votes(path).bad_lines()[-1] == "and 3 more"


def test_tables_that_cant_be_used_are_errors(tmp_path: Path) -> None:
    header = ",".join(COLUMNS)
    for name, text, error in (
        ("a.csv", header, "holds no valid answer; there are no rows"),
        ("b.csv", "participant,trial\n0,0\n", "lacks question, shown, chosen"),
        ("c.csv", "", "lacks participant, trial, question, shown, chosen"),
        ("d.json", "{}", "expected a list of objects"),
        ("e.json", "[1]", "expected a list of objects"),
        ("f.json", "[{}]", "lacks participant"),
        ("g.json", "[", "expected a table of answers in UTF-8"),
        ("h.txt", "", "must be named .csv or .json"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=error):
            read_votes(tmp_path / name)
    with pytest.raises(DataError, match="expected a table of answers in UTF-8"):
        read_votes(tmp_path / "none.csv")
    (tmp_path / "i.csv").write_bytes(header.encode() + b"\n\xff\xfe")
    with pytest.raises(DataError, match="expected a table of answers in UTF-8"):
        read_votes(tmp_path / "i.csv")
    with pytest.raises(DataError, match=r"must be named \.csv or \.json"):
        write_votes([vote(0, "AB", "A")], tmp_path / "votes.xls")


def test_json_holds_plain_values(tmp_path: Path) -> None:
    write_votes([vote(3, "AB", None, 5, seconds=math.nan)], tmp_path / "votes.json")
    (line,) = json.loads((tmp_path / "votes.json").read_text())
    assert line == {
        "participant": "3",
        "trial": 0,
        "question": "overall",
        "prompt": "prompt 5",
        "shown": "A|B",
        "chosen": "tie",
        "seconds": None,
        "given": "",
        "item": "5",
        "better": None,
    }
