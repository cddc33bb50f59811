"""The report: places, counts, the share, and a file that is whole or not there."""

import json

import pytest

from fairhuman.data.pictures.notes import LoadReport, note
from fairhuman.errors import DataError
from fairhuman.record import Finding


def report(skipped: int, warned: int = 0) -> LoadReport:
    made = LoadReport()
    for line in range(1, skipped + 1):
        made.add(f"metadata.jsonl:{line}", "read", Finding("skipped", f"reason {line % 2}", f"{line}.jpg"))
    for line in range(1, warned + 1):
        made.add(f"metadata.jsonl:{line}", "read", Finding("warned", "caption is empty"))
    return made


@pytest.mark.parametrize(
    ("location", "file", "line"),
    [("metadata.jsonl:12", "metadata.jsonl", 12), ("a.jpg", "a.jpg", None), ("C:\\a", "C:\\a", None), ("", "", None)],
)
def test_places(location, file, line):
    found = note(location, "read", Finding("warned", "odd"))
    assert (found.file, found.line) == (file, line)


def test_counts_by_action_and_reason():
    assert report(3, 2).counts() == {"skipped": {"reason 1": 2, "reason 0": 1}, "warned": {"caption is empty": 2}}


def test_share_names_the_first_ten():
    report(20, 99).check_share(0.2, 100)
    with pytest.raises(DataError) as caught:
        report(21, 99).check_share(0.2, 100)
    message = str(caught.value)
    assert "21 of 100" in message
    assert "max_reject_share = 20 %" in message
    assert "metadata.jsonl:10: skipped, reason 0 (10.jpg)" in message
    assert "metadata.jsonl:11" not in message


def test_save(tmp_path):
    path = tmp_path / "deep" / "report.json"
    for number in (1, 2):
        made = report(number)
        made.add("a", "read", Finding("warned", "odd", "\ud800"))  # half a surrogate pair, as JSON may hold it
        made.save(path)
        found = json.loads(path.read_text(encoding="utf-8"))
        assert found["counts"]["skipped"]["reason 1"] == 1
        assert len(found["notes"]) == number + 1
        assert found["notes"][0] == {
            "file": "metadata.jsonl", "line": 1, "stage": "read", "action": "skipped",
            "reason": "reason 1", "value": "1.jpg",
        }  # fmt: skip
    assert [entry.name for entry in path.parent.iterdir()] == ["report.json"]
