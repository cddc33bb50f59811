"""The report: right numbers in all four files, with and without exclusion, and a page that stands alone."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman.stats.estimate import Estimate
from fairhuman.study.analysis import analyse
from fairhuman.study.answers import Vote, Votes, read_votes
from fairhuman.study.report import StudyFacts, scores_figure, write_report
from fairhuman.study.study import StudySettings
from fairhuman.study.verdict import verdict_text
from helpers.simulated_votes import simulate, vote

EVIL = "<script>alert(1)</script>$x$"


def answers() -> Votes:
    """Ten participants on ours against base; one always chooses base, in no time, and fails the check."""
    votes: list[Vote] = []
    for person in range(10):
        careless = person == 9
        for item in range(8):
            shown = ("ours", "base") if (person + item) % 2 else ("base", "ours")
            chosen = "base" if careless else None if item == 0 else "base" if item == 7 else "ours"
            seconds = 0.2 if careless else 5.0
            votes.append(Vote(str(person), item, "overall", "p", shown, chosen, seconds, "", str(item)))
        wrong = [vote(person, "xy", "y" if careless else "x", f"c{n}", trial=8 + n, better="x") for n in range(2)]
        votes += wrong
    return Votes(votes, ["line 3: a bad row"], 10)


def test_numbers_with_and_without_exclusion(tmp_path: Path) -> None:
    """Of nine who stay ours gets (0.5 + 6) / 8; the tenth adds eight zeros."""
    page = write_report(
        answers(), StudySettings(), StudyFacts(("base", "ours"), 12, ["made by hand"], ["lost"]), tmp_path
    )
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["kept"]["overall"]["scores"]["ours"]["value"] == pytest.approx(6.5 / 8)
    assert found["everybody"]["overall"]["scores"]["ours"]["value"] == pytest.approx(9 * 6.5 / 80)
    assert found["kept"]["overall"]["votes"] == 72, "checks don't count"
    (out,) = [one for one in found["participants"] if one["reasons"]]
    assert (out["participant"], out["failed"], len(out["reasons"])) == ("9", 2, 2)
    assert found["bad_rows"] == ["line 3: a bad row"]
    text = page.read_text()
    for part in ("10 of 12", "made by hand", "lost", "line 3: a bad row", "2 of 2 attention checks failed", "0.81 ["):
        assert part in text
    assert "After exclusion: 9 participants, 72 answers" in text
    assert "There are 80 answers and 20 attention checks of 10 participants." in text
    assert "The rules exclude 1 of 10 participants." in text
    assert "<p>overall: no preference shown between ours and base (81" in text
    assert "9 failed none, 1 failed 2" in text
    assert [one.chosen for one in read_votes(tmp_path / "answers.csv").votes] == [v.chosen for v in answers().votes]
    with Image.open(tmp_path / "scores.png") as chart:
        assert chart.width > 400


def test_where_nobody_is_left_out_there_is_one_analysis(tmp_path: Path) -> None:
    votes = Votes(simulate({"A": 0.5, "B": -0.5}, np.random.default_rng(0), people=6, items=6))
    text = write_report(votes, StudySettings(), StudyFacts(), tmp_path).read_text()
    assert "both analyses are the same" in text
    assert "After exclusion" not in text
    assert "our defaults" in text, "without a study nobody fixed the rules beforehand"


def test_the_page_stands_alone_and_runs_nothing(tmp_path: Path) -> None:
    methods = {EVIL: 0.3, "B": 0.0}
    votes = Votes(simulate(methods, np.random.default_rng(0), people=4, items=4))
    votes.votes = [
        Vote(EVIL, v.trial, v.question, EVIL, tuple(methods), None if v.chosen is None else "B", 3.0, EVIL, v.item)
        for v in votes.votes
    ]
    votes.bad.append(EVIL)
    settings = StudySettings(title=EVIL)
    text = write_report(votes, settings, StudyFacts((), None, [EVIL], [EVIL]), tmp_path).read_text()
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;$x$" in text
    assert not [link for link in re.findall(r'(?:src|href)="([^"]*)"', text) if not link.startswith(("data:", "#"))]
    assert not re.search(r"url\(|@import", text)


def test_bars_stand_for_the_scores() -> None:
    analysis = analyse(answers(), StudySettings(), ("base", "ours"))
    (axes,) = scores_figure(analysis).axes
    heights = sorted(bar.get_height() for bar in axes.patches)
    scores = [found["overall"].scores for found in (analysis.everybody, analysis.kept)]
    assert heights == pytest.approx(sorted(one[name].value for one in scores for name in ("base", "ours")))


def test_no_answers_a_single_one_or_none_that_are_left_make_a_page_too(tmp_path: Path) -> None:
    assert (
        "There are no answers yet"
        in write_report(Votes([]), StudySettings(), StudyFacts(("a", "b"), 3), tmp_path).read_text()
    )
    one = write_report(Votes([vote(0, "AB", "A")]), StudySettings(), StudyFacts(), tmp_path).read_text()
    assert "All participants: 1 participant, 1 answer<" in one
    fast = Votes([vote(0, "AB", "A", seconds=0.1), vote(1, "AB", None, seconds=0.1)])
    none = write_report(fast, StudySettings(), StudyFacts(), tmp_path).read_text()
    assert "<td>tie parameter ν</td><td>-</td>" in none.partition("After exclusion")[2], "no answers, no strengths"
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["kept"]["overall"]["votes"] == 0
    assert found["kept"]["overall"]["scores"]["A"]["value"] is None


def test_methods_and_questions_keep_their_order() -> None:
    votes = Votes([vote(0, "CA", "A", question="taste"), vote(0, "CA", "A", question="regional"), vote(0, "AB", "A")])
    found = analyse(votes, StudySettings(), ("B", "A"))
    assert found.methods == ("B", "A", "C")
    assert found.questions == ("overall", "regional", "taste")


def test_a_verdict_in_words() -> None:
    methods = ("A", "B", "C")
    votes = simulate({"A": 2.0, "B": -2.0, "C": 1.9}, np.random.default_rng(0), people=8, items=8)
    [result] = analyse(Votes(votes), StudySettings(), methods).kept.values()
    best, other = sorted("AC", key=lambda name: -result.scores[name].value)
    text = verdict_text("overall", result, methods)
    assert text.startswith(f"overall: {best} is preferred to B (")
    assert f"; no preference shown between {best} and {other} (" in text
    close = replace(result.meetings[best, "B"], share=Estimate(0.7, 0.51, 0.86, 64), joint=Estimate(0.7, 0.47, 0.9, 64))
    unsure = replace(result, meetings={**result.meetings, (best, "B"): close})
    assert f"no preference shown between {best} and " in verdict_text("overall", unsure, methods)
    assert " is preferred to " not in verdict_text("overall", unsure, methods), "the single interval lies above half"
    alone = [vote for vote in votes if vote.participant == votes[0].participant]
    [lonely] = analyse(Votes(alone), StudySettings(), methods).everybody.values()
    assert "too few answers for an interval of " in verdict_text("overall", lonely, methods)


def test_a_verdict_says_where_the_named_method_lost_and_where_all_are_ties() -> None:
    """B is first most often, as it is shown most often with C; where it meets A, it loses."""
    votes = [vote(person, "AB", "A", item) for person in range(12) for item in range(12)]
    votes += [vote(person, "BC", "B", 100 + item) for person in range(12) for item in range(99)]
    votes += [vote(person, "AC", "C", 200 + item) for person in range(12) for item in range(12)]
    votes += [vote(person, "BD", None, 300 + item) for person in range(12) for item in range(12)]
    [result] = analyse(Votes(votes), StudySettings(), tuple("ABCD")).everybody.values()
    text = verdict_text("overall", result, tuple("ABCD"))
    assert text.startswith("overall: B is preferred to C (100 % [")
    assert "; B has the highest score, but A (0 % [" in text
    assert "]) is preferred to it; all answers of B against D (50 %" in text
    assert text.endswith(") are ties.")
    assert "no preference shown" not in text
    assert "too few" not in text
