"""A reviewed set is read as reviewed by whatever reads it, and a review that isn't applied is named."""

import json
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from fairhuman.data.look.check import check_dataset
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review import ReviewSettings, apply_review
from fairhuman.data.review.events import FILE, TABLES
from fairhuman.data.review.pictures import load_pictures
from fairhuman.data.review.store import ReviewStore
from fairhuman.data.sources import SourceSettings, read_source, source_kind
from fairhuman.data.sources.prompts import prompts_at
from fairhuman.errors import DataError
from fairhuman.web.database import open_database
from helpers.tiny_pictures import encoded, picture

COUNT = 3


@pytest.fixture(params=["metadata.jsonl", "no metadata"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    root = tmp_path / "people"
    root.mkdir()
    for number in range(COUNT):
        (root / f"{number}.png").write_bytes(encoded(picture(64, 48, number)))
        (root / f"{number}.txt").write_text(f"person {number}")
    if request.param == "metadata.jsonl":
        rows = [{"file_name": f"{number}.png", "caption": f"person {number}"} for number in range(COUNT)]
        (root / request.param).write_text("\n".join(map(json.dumps, rows)))
    return root


@pytest.fixture
def decide(folder: Path) -> Callable[..., None]:
    """`decide("1.png", "drop", None, "unclear")` is a decision of Ada."""

    def make(*decision: str | None) -> None:
        engine = open_database(folder / FILE, TABLES)
        prompts = {key: each.prompt for key, each in load_pictures(folder, SourceSettings(), LoadReport()).items()}
        ReviewStore(engine, prompts, ReviewSettings()).decide("Ada", *decision)
        engine.dispose()

    return make


def captions(folder: Path) -> tuple[list[str], list[str]]:
    """What a reader reads, and what it warns of."""
    report = LoadReport()
    records = read_source(folder, (), SourceSettings(), report)
    return [record.caption for record in records], [note.reason for note in report.notes if "review" in note.reason]


def test_dropped_pictures_are_gone_and_edited_prompts_are_used(folder: Path, decide: Callable[..., None]) -> None:
    decide("0.png", "keep", "a person who waves", None)
    decide("1.png", "drop", None, "unclear")
    decide("2.png", "keep", None, None)
    assert captions(folder) == (["person 0", "person 1", "person 2"], ["review is not applied"])
    apply_review(folder)
    assert captions(folder) == (["a person who waves", "person 2"], [])
    assert prompts_at(folder) == ["a person who waves", "person 2"]
    checked = check_dataset(folder)
    assert (checked.usable, checked.good, checked.report.unused) == (2, True, [])
    assert source_kind(folder) == "imagefolder"
    # the review itself goes on with all pictures
    assert [each.prompt for each in load_pictures(folder, SourceSettings(), LoadReport()).values()] == [
        f"person {number}" for number in range(COUNT)
    ]


def test_decisions_after_it_was_applied_are_named(folder: Path, decide: Callable[..., None]) -> None:
    decide("0.png", "keep", None, None)
    apply_review(folder)
    os.utime(folder / "reviewed.jsonl", (1e9, 1e9))
    decide("1.png", "keep", None, None)
    assert captions(folder) == (["person 0"], ["review is newer than what was applied"])


def test_a_database_that_was_only_touched_is_not_newer(folder: Path, decide: Callable[..., None]) -> None:
    decide("0.png", "keep", None, None)
    apply_review(folder)
    os.utime(folder / "reviewed.jsonl", (1e9, 1e9))
    assert captions(folder) == (["person 0"], [])


def test_a_decision_older_than_what_was_applied_without_it_is_named(folder: Path, decide: Callable[..., None]) -> None:
    """It was made while the others were applied, or the folder was copied."""
    decide("0.png", "keep", None, None)
    apply_review(folder)
    decide("1.png", "keep", None, None)
    os.utime(folder / FILE, (1e9, 1e9))
    assert captions(folder) == (["person 0"], ["review is newer than what was applied"])
    assert not list(folder.glob(f"{FILE}-*"))  # reading leaves nothing behind


def test_pictures_that_came_after_the_review_are_named(folder: Path, decide: Callable[..., None]) -> None:
    for number in range(COUNT - 1):
        decide(f"{number}.png", "keep", None, None)
    decide(f"{COUNT - 1}.png", "drop", None, "unclear")
    apply_review(folder)

    def undecided() -> list[str]:
        report = LoadReport()
        assert len(read_source(folder, (), SourceSettings(), report)) == COUNT - 1
        return [note.value for note in report.notes if note.reason == "pictures without a decision are not read"]

    def add(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        if (folder / "metadata.jsonl").exists():
            with (folder / "metadata.jsonl").open("a") as file:
                file.write(f'\n{{"file_name": "{name}"}}')

    add("broken.png", b"")  # which nobody can decide on
    assert undecided() == []
    add("later.png", encoded(picture(64, 48, COUNT)))
    assert undecided() == [f"2, such as later.png: fairhuman data review {folder}"]
    (folder / "review.json").unlink()  # without it, nothing tells what was dropped
    assert undecided() == []


def test_a_strangers_database_is_not_asked_what_its_views_say(folder: Path, decide: Callable[..., None]) -> None:
    """SQLite can't be interrupted inside a function of a view."""
    decide("0.png", "keep", None, None)
    apply_review(folder)
    os.utime(folder / "reviewed.jsonl", (1e9, 1e9))
    (folder / FILE).unlink()
    with closing(sqlite3.connect(folder / FILE)) as connection:
        connection.execute("CREATE VIEW event AS SELECT 1 AS id WHERE NOT instr(zeroblob(9), 'x')")
    assert captions(folder) == (["person 0"], ["review is newer than what was applied"])


def test_a_report_that_is_one_hole_is_not_read(folder: Path, decide: Callable[..., None]) -> None:
    decide("0.png", "keep", None, None)
    apply_review(folder)
    os.utime(folder / "reviewed.jsonl", (1e9, 1e9))
    os.truncate(folder / "review.json", 2**33)
    assert captions(folder) == (["person 0"], ["review is newer than what was applied"])


def test_prompts_of_files_and_sets(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "prompts.txt").write_text("a hat\n\n a coat \n")
    assert prompts_at(tmp_path / "prompts.txt") == ["a hat", "a coat"]
    assert prompts_at(folder) == [f"person {number}" for number in range(COUNT)]
    (folder / "metadata.jsonl").write_text(
        '{"file_name": "0.png", "caption": "a\\nhat"}\n{"file_name": "1.png", "caption": " "}'
    )
    with pytest.raises(DataError, match=r"people: prompts need a caption for every record, 1 of 2 have none.*1\.png"):
        prompts_at(folder)
    with pytest.raises(DataError, match=r"metadata\.jsonl: prompts are .* give its folder, .*people"):
        prompts_at(folder / "metadata.jsonl")
