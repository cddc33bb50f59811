"""`fairhuman study` as a researcher types it."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from fairhuman.study.study import DATABASE, SETTINGS, load_design
from helpers.study_database import write_database
from helpers.study_pictures import write_method

Typed = Callable[..., tuple[int, str, str]]
ONE_QUESTION = "questions=[{name: overall, text: 'Which is better?'}]"  # without close-ups no detector is needed


@pytest.fixture
def create(tmp_path: Path) -> tuple[object, ...]:
    write_method(tmp_path / "base", 50)
    write_method(tmp_path / "ours", 200)
    methods = ("--method", f"base={tmp_path / 'base'}", "--method", f"ours={tmp_path / 'ours'}")
    return ("study", "create", tmp_path / "study", *methods, "--pairs", 6, "--participants", 3, ONE_QUESTION)


def test_create_report_and_export(tmp_path: Path, typed: Typed, create: tuple[object, ...]) -> None:
    code, said, errors = typed(*create, "--checks", 1, "--seed", 4, "exclude.max_failed_checks=0")
    assert code == 0, errors
    assert "3 participants, 7 trials each; done" in said
    design = load_design(tmp_path / "study")
    rows = [
        (person, place, "overall", trial.shown.index("ours") if "ours" in trial.shown else 0, 2.0, "")
        for person, trials in enumerate(design.participants)
        for place, trial in enumerate(trials)
    ]
    write_database(tmp_path / "study" / DATABASE, [*rows, (0, 99, "overall", 0, 1.0, "")])
    code, said, errors = typed("study", "report", tmp_path / "study")
    assert code == 0, errors
    assert "left out: participant 0, trial 99, overall" in said
    page = tmp_path / "study" / "report" / "report.html"
    assert f"18 answers and 3 attention checks of 3 participants; report: {page}" in said
    # the right picture of a check is on each side, so whoever always takes the left one fails it, or doesn't
    out = r"^(1 of 3 participants is|2 of 3 participants are) excluded by the study's rules \([12] failed checks\)$"
    assert re.search(out, said, flags=re.MULTILINE), said
    found = json.loads((tmp_path / "study" / "report" / "results.json").read_text())
    assert found["everybody"]["overall"]["scores"]["ours"]["value"] == 1
    assert found["settings"]["exclude"]["max_failed_checks"] == 0
    assert any("6 of 8 prompts, drawn with seed 4" in note for note in found["notes"])
    assert not any("after the study was made" in note for note in found["notes"])
    assert typed("study", "export", tmp_path / "study", tmp_path / "answers.csv")[0] == 0
    code, said, errors = typed("study", "report", "--answers", tmp_path / "answers.csv", "--out", tmp_path / "again")
    assert code == 0, errors
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    assert again["everybody"] == found["everybody"], "a table alone gives the same numbers"


def test_rules_that_were_changed_later_are_told(tmp_path: Path, typed: Typed, create: tuple[object, ...]) -> None:
    assert typed(*create, "--checks", 0)[0] == 0
    file = tmp_path / "study" / SETTINGS
    file.write_text(file.read_text().replace("min_seconds: 1.0", "min_seconds: 0.1"))
    write_database(tmp_path / "study" / DATABASE, [(0, 0, "overall", 0, 0.5, "")])
    assert typed("study", "report", tmp_path / "study")[0] == 0
    notes = json.loads((tmp_path / "study" / "report" / "results.json").read_text())["notes"]
    assert notes[-1].endswith("so not fixed in advance: exclude.min_seconds is 0.1, was 1.0.")
    page = (tmp_path / "study" / "report" / "report.html").read_text()
    assert "The exclusion rules were changed after the study was made" in page
    assert "fixed before the first answer" not in page


def test_dry_runs_write_nothing(tmp_path: Path, typed: Typed, create: tuple[object, ...]) -> None:
    before = sorted(tmp_path.iterdir())
    code, said, _ = typed(*create, "--dry-run")
    assert code == 0
    assert "would draw 6 of 8 prompts, nothing is written" in said
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / "a.csv").write_text("participant,trial,question,shown,chosen\n0,0,overall,A|B,A\n")
    code, said, _ = typed("study", "report", "--answers", tmp_path / "a.csv", "--dry-run")
    assert (code, "1 answer of 1 participant; would write into" in said) == (0, True)
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "a.csv"])


def test_wrong_use_is_named(tmp_path: Path, typed: Typed, create: tuple[object, ...]) -> None:
    assert "items must be at most the number of usable prompts, 8; found 9" in typed(*create, "items=9")[2]
    assert "unknown setting 'itmes'; did you mean 'items'?" in typed(*create, "itmes=3")[2]
    assert "expected a folder of pictures" in typed(*create, "--method", "x=nowhere")[2]
    assert "nothing to report on" in typed("study", "report")[2]
    assert f"{tmp_path}: holds no study, which has study.yaml and design.json" in typed("study", "report", tmp_path)[2]
    assert "per_participant must be at most items" in typed(*create, "--per-participant", 7)[2]
    assert typed(*create)[0] == 0
    for command in ("report", "serve", "links"):
        code, _, said = typed("study", command, tmp_path / "studdy")
        assert (code, f"studdy: there is no such folder; did you mean {tmp_path / 'study'}?\n" in said) == (1, True)
    assert "; --pairs 8 takes all of them" in typed(*create[:2], tmp_path / "other", *create[3:], "--pairs", 9)[2]
    assert "has the study been served" in typed("study", "report", tmp_path / "study")[2]
    assert "holds a study already" in typed(*create)[2]


def test_power_is_said(typed: Typed) -> None:
    code, said, _ = typed("study", "power", "--difference", 0.4, "--pairs", 20, "--simulations", 100, "ties=0.1")
    assert code == 0
    assert "detect a difference of 0.4 with a power of" in said
    assert "difference must be less than 1 - ties" in typed("study", "power", "--difference", 0.9)[2]
