"""Checking records: cut-off pictures are found by decoding, wrong sizes are mended."""

from dataclasses import replace

import pytest
from PIL import Image

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.check import check_records
from fairhuman.errors import DataError
from fairhuman.record import Box, Finding
from helpers.tiny_pictures import encoded


def test_good_records_pass_unchanged_and_in_order(people):
    records = people(9)
    for full in (False, True):
        report = LoadReport()
        assert check_records(records, report, full) == records
        assert report.notes == []


def test_only_decoding_finds_a_truncated_picture(people):
    records = people(6)
    data = records[4].image.read_bytes()
    records[4].image.write_bytes(data[: len(data) // 2])
    assert len(check_records(records, LoadReport(), full=False)) == 6
    report = LoadReport()
    assert check_records(records, report, full=True) == records[:4] + records[5:]
    (entry,) = report.notes
    assert (entry.file, entry.line, entry.stage, entry.action) == ("metadata.jsonl", 5, "check", "skipped")


@pytest.mark.parametrize("full", [False, True])
def test_the_real_size_wins_and_boxes_are_clipped_again(people, full):
    (record,) = people(1)
    boxes = {"face": (Box(4, 5, 60, 25), Box(50, 5, 60, 25)), "hand": None, "feet": (), "text": (Box(50, 0, 60, 9),)}
    report = LoadReport()
    (found,) = check_records([replace(record, width=100, boxes=boxes)], report, full)
    assert (found.width, found.height) == (40, 64)
    assert found.boxes == {"face": (Box(4, 5, 40, 25),), "hand": None, "feet": (), "text": None}
    assert [entry.action for entry in report.notes] == ["converted", "converted", "dropped", "dropped"]


def test_painted_masks_are_checked_too(people):
    records = people(2)
    good, small = encoded(Image.new("L", (40, 64))), encoded(Image.new("L", (20, 32)))
    records[0] = replace(records[0], masks={"face": good, "hand": small, "feet": good[:60]})
    report = LoadReport()
    found = check_records(records, report, full=True)
    assert found[0].masks == {"face": good}
    assert [entry.action for entry in report.notes] == ["dropped", "dropped"]


def test_too_many_rejects(people):
    records = people(4)
    for record in records[:2]:
        record.image.unlink()
    report = LoadReport()
    with pytest.raises(DataError, match="2 of 4 records"):
        check_records(records, report, full=False)
    assert len(report.notes) == 2
    assert len(check_records(records, LoadReport(), full=False, max_reject_share=0.5)) == 2


def test_rejects_of_reading_and_of_checking_count_together(folder):
    root = folder([{"file_name": f"{i:02}.png", "caption": f"person {i}"} for i in range(24)])
    for i in range(4):
        (root / f"{i:02}.png").unlink()
        cut = root / f"{i + 4:02}.png"
        cut.write_bytes(cut.read_bytes()[:-40])
    report = LoadReport()
    records = read_source(root, (), SourceSettings(max_reject_share=0.2), report)
    assert len(records) == 20  # 4 of 24 pass by themselves, and so do 4 of 20
    with pytest.raises(DataError, match=r"8 of 24 records .*33 %.*\n.*00\.png(.|\n)*07\.png"):
        check_records(records, report, full=True, max_reject_share=0.2)
    assert len(report.skipped()) == 8
    report = LoadReport()
    records = read_source(root, (), SourceSettings(max_reject_share=0.34), report)
    assert len(check_records(records, report, full=True, max_reject_share=0.34)) == 16


def test_only_what_reading_skipped_counts_among_the_rejects(people):
    report = LoadReport()
    report.add("metadata.jsonl:7", "read", Finding("dropped", "box under one pixel"))
    report.add("metadata.jsonl:8", "train", Finding("skipped", "picture is cut off or damaged"))
    assert len(check_records(people(4), report, full=True, max_reject_share=0.0)) == 4


@pytest.mark.parametrize("full", [False, True])
def test_pictures_deleted_since_reading_are_skipped(people, full):
    records = people(8)
    records[2].image.unlink()
    records[5].image.unlink()
    records[5].image.mkdir()
    report = LoadReport()
    assert len(check_records(records, report, full, max_reject_share=0.25)) == 6
    assert [entry.reason for entry in report.skipped()] == ["file does not exist", "can't be read: not a regular file"]
