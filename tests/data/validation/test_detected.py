"""A validation set whose source doesn't know where people are: detectors look, and what nobody knows is left out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairhuman.config import build
from fairhuman.data.validation import boxes
from fairhuman.data.validation.build import ValidationSummary, build_validation
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.detect.detection import DetectorError
from fairhuman.detect.settings import detector_names
from helpers.damage import flip
from helpers.figures import write_figures
from helpers.marked_people import NOBODY, PERSON, SPOILS, mark, open_marked, open_none
from helpers.runs import read_lines
from helpers.unguarded import unguarded_map

FILTERS = {"min_side": 64, "min_clarity_percentile": None}
Build = Callable[..., ValidationSummary]


@pytest.fixture
def validate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Build:
    """`validate("out", unknown="keep")` makes a set of five pictures: two with people, two without, one that spoils."""
    monkeypatch.setenv("FAIRHUMAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(boxes, "open_detectors", open_marked)
    monkeypatch.setattr(boxes, "guarded_map", unguarded_map)
    source = tmp_path / "source"
    write_figures(source, 5, 64)
    rows = read_lines(source / "metadata.jsonl")
    for row, red in zip(rows, (PERSON, NOBODY, PERSON, NOBODY, SPOILS), strict=True):
        mark(source / row["file_name"], red)
        row |= {"faces": None, "hands": None}
    (source / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def make(
        name: str, unknown: str = "reject", say: Callable[[str], object] = lambda _: None, **values: Any
    ) -> ValidationSummary:
        chosen = {"count": 5, "allow_fewer": True, "filters": {**FILTERS, "unknown": unknown}, **values}
        return build_validation(source, tmp_path / name, build(ValidationSetSettings, chosen), say=say)

    return make


def test_what_the_source_lacks_is_detected_once_and_people_free_pictures_go(
    validate: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    summary = validate("out")
    assert summary.pictures == 2
    assert summary.reasons == {"number of faces and hands below 1": 2, "number of faces and hands unjudged": 1}
    names = detector_names(build(ValidationSetSettings, {}).detect)
    for row in read_lines(tmp_path / "out" / "metadata.jsonl"):
        assert row["faces"] == row["hands"] == row["persons"] == [[2, 3, 12, 13, 0.75]]
        assert {part: row[f"{part}_by"] for part in names} == names
    (unjudged,) = [row for row in read_lines(tmp_path / "out" / "rejected.jsonl") if "unjudged" in row["reason"]]
    assert (unjudged["key"], unjudged["value"]) == ("images/00004.png", "ValueError: no such layer")
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert [name for name, _ in manifest["stages"]][2:] == [
        *("shorter side", "number of faces and hands", "number of persons", "can be decoded, no duplicate"),
        *("number of faces and hands, after detection", "number of persons, after detection", "has a prompt"),
    ]
    # another seed knows all but the picture on which the detectors failed
    monkeypatch.setattr(boxes, "open_detectors", open_none)
    with pytest.raises(DetectorError, match="3 parts were to be detected"):
        validate("again", seed=1)
    mark(tmp_path / "source" / "images" / "00004.png", PERSON)
    monkeypatch.setattr(boxes, "open_detectors", open_marked)
    assert validate("again", seed=1).pictures == 3
    monkeypatch.setattr(boxes, "open_detectors", open_none)
    assert validate("third", seed=2).pictures == 3


def test_boxes_of_the_source_stay_and_a_second_build_is_equal(validate: Build, tmp_path: Path) -> None:
    metadata = tmp_path / "source" / "metadata.jsonl"
    rows = read_lines(metadata)
    person, face = [[1, 2, 40, 60]], [[8, 8, 24, 28]]
    rows[0]["persons"], rows[2]["faces"] = person, face
    metadata.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    validate("cold")
    validate("warm")
    first, second = sorted(read_lines(tmp_path / "cold" / "metadata.jsonl"), key=lambda row: row["key"])
    found = [[2, 3, 12, 13, 0.75]]
    assert (first["persons"], first["faces"], first["hands"]) == (person, found, found)
    assert (second["persons"], second["faces"], second["hands"]) == (found, face, None)
    assert [{name for name in row if name.endswith("_by")} for row in (first, second)] == [
        {"face_by", "hand_by"},
        {"person_by"},
    ]
    for name in ("metadata.jsonl", "manifest.json", "rejected.jsonl"):
        assert (tmp_path / "warm" / name).read_bytes() == (tmp_path / "cold" / name).read_bytes()


def test_without_detectors_nothing_can_be_judged(validate: Build, tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"unjudged: 5; filters\.unknown=keep would keep them"):
        validate("none", detect=None)
    kept = validate("kept", unknown="keep", detect=None)
    assert (kept.pictures, kept.reasons) == (5, {})
    manifest = json.loads((tmp_path / "kept" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["unknown"]["number of persons"] == manifest["unknown"]["number of faces and hands"] == 5
    assert "unknown</code> is <code>keep" in (tmp_path / "kept" / "report.html").read_text(encoding="utf-8")


def test_damaged_boxes_are_looked_for_again_and_counted(validate: Build, tmp_path: Path) -> None:
    validate("out")
    files = sorted((tmp_path / "cache" / "boxes").rglob("*.parquet"))
    flip(files[0])
    said: list[str] = []
    assert validate("again", seed=1, say=said.append).pictures == 2
    note = f"cache of boxes: damaged files, deleted, and what they held computed again: 1 (such as {files[0]})"
    assert said == [note, "writing 2 of 2 usable pictures"]
    assert not files[0].exists()
    said.clear()
    validate("third", seed=2, say=said.append)
    assert said == ["writing 2 of 2 usable pictures"]
