"""The reader of BodyHands: numbers from 1, entries that lack something, and XML that means harm."""

import numpy as np
import pytest

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.record import Box
from helpers.formats import put, write_bodyhands

XML = """<annotation><object><name>hand</name>{}<bndbox><xmin>1</xmin><ymin>1</ymin><xmax>{}</xmax><ymax>20</ymax>
</bndbox></object></annotation>"""


def read(root, regions=("hand",)):
    report = LoadReport()
    records = read_source(root, regions, SourceSettings(max_reject_share=1.0), report)
    return records, [(entry.file, entry.action, entry.reason) for entry in report.notes if entry.action != "warned"]


@pytest.fixture
def root(tmp_path):
    write_bodyhands(tmp_path, 3)
    return tmp_path


def annotation(root, text: str | bytes):
    put(root / "Annotations" / "000001.xml", text)
    records, notes = read(root)
    assert [record.key for record in records] == ["000000", "000001", "000002"]
    return records[1], notes


def test_a_box_covers_just_the_pixels_from_its_first_to_its_last(root):
    """Pixels 1..12 are 12 of them, and begin at the edge of the picture."""
    record, notes = annotation(root, XML.format("", 12))
    assert notes == []
    assert record.boxes["hand"] == (Box(0, 0, 12, 20),)
    covered = np.zeros((64, 64), bool)
    covered[0:20, 0:12] = True
    box = record.boxes["hand"][0]
    assert covered.sum() == box.area


def test_a_hand_without_a_body_or_a_quadrilateral_is_fine(root):
    record, notes = annotation(root, XML.format("", 12))
    assert record.attributes == {"hand_quads": [{"body_id": None, "points": None}], "body_ids": []}
    assert notes == []
    assert read(root, ("hand", "person"))[0][1].boxes["person"] is None


def test_a_picture_without_objects_has_no_hands(root):
    record, _ = annotation(root, "<annotation/>")
    assert record.boxes["hand"] == ()


@pytest.mark.parametrize("value", ["nan", "wide", "", "1e400"])
def test_a_box_without_numbers_is_dropped(root, value):
    record, notes = annotation(root, XML.format("", value))
    assert record.boxes["hand"] is None, "there is a hand, nobody knows where"
    assert notes == [("Annotations/000001.xml", "dropped", "object is no hand or body with a box")]


BILLION = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10 if i else "lol"}">' for i in range(10))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (f"<!DOCTYPE a [{BILLION}]><annotation>&a9;</annotation>", "XML has a document type, which is refused"),
        ('<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation/>', "XML has a document type, which is refused"),
        ("<annotation>", "not XML"),
        (b"\xff\xfe\x00", "not XML"),
        ('<?xml version="1.0" encoding="nonsense"?><annotation/>', "not XML"),
        ("<annotation>&unknown;</annotation>", "not XML"),
        ("", "not XML"),
        ("<a>" + " " * 2**22 + "</a>", "XML is too long"),
    ],
)
def test_xml_that_cannot_be_read_leaves_the_hands_unknown(root, text, reason):
    record, notes = annotation(root, text)
    assert record.boxes["hand"] is None
    assert notes == [("Annotations/000001.xml", "dropped", f"annotation: {reason}")]


def test_deep_xml_is_read(root):
    assert annotation(root, "<a>" * 100_000 + "</a>" * 100_000)[0].boxes["hand"] == ()


def test_entries_that_lack_something_are_named(root):
    (root / "Annotations" / "000000.xml").unlink()
    (root / "JPEGImages" / "000001.jpg").unlink()
    put(root / "ImageSets" / "Main" / "test.txt", "\ufeff000002\n\n000002\n../../etc/passwd\nodd\0name\n")
    records, notes = read(root)
    assert [(record.key, record.boxes["hand"] is None, record.split) for record in records] == [
        ("000000", True, "train"), ("000002", False, "test"),
    ]  # fmt: skip
    reasons = {(action, reason) for _, action, reason in notes}
    assert ("dropped", "annotation: file does not exist") in reasons
    assert ("skipped", "file does not exist") in reasons
    assert ("dropped", "annotation: path leaves the folder of the data set") in reasons
    assert ("skipped", "path leaves the folder of the data set") in reasons


def test_all_annotations_count_where_there_are_no_lists(root):
    for name in ("train", "test"):
        (root / "ImageSets" / "Main" / f"{name}.txt").unlink()
    assert [(record.key, record.split) for record in read(root)[0]] == [(f"00000{i}", None) for i in range(3)]
