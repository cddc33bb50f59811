"""The expected treatment of every bad file and every bad line of the shared collection, one row each."""

import re
from pathlib import Path

import numpy as np
import pytest

from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.check import check_records
from fairhuman.errors import DataError
from fairhuman.record import Box, HumanRecord

REGIONS = ("face", "hand")
ANY = SourceSettings(max_reject_share=1.0)
KEPT = True

# line of metadata.jsonl, file, whether it is used, and its notes (action, words of the reason), in their order.
SAME = ("warned", "same picture as another record")
TABLE = [
    (1, "00_good.jpg", KEPT, []),
    (2, "01_truncated.jpg", not KEPT, [("skipped", "cut off or damaged")]),
    (3, "02_zero_byte.jpg", not KEPT, [("skipped", "empty (0 bytes)")]),
    (4, "03_text_named.jpg", not KEPT, [("skipped", "not a picture")]),
    (5, "04_palette_alpha.png", KEPT, [("converted", "transparent pixels")]),
    (6, "05_gray16.png", KEPT, [("converted", "16-bit grey scaled by 1/257")]),
    (7, "06_rgb16.png", KEPT, []),
    (8, "07_cmyk.jpg", KEPT, [("converted", "CMYK to RGB")]),
    (9, "08_exif_orientation6.jpg", KEPT, [("converted", "turned upright")]),
    (10, "09_one_pixel.png", not KEPT, [("skipped", "too small")]),
    (11, "10_extreme_aspect_20000x10.png", not KEPT, [("skipped", "too long and narrow")]),
    (12, "11_grayscale.jpg", KEPT, [("converted", "L to RGB")]),
    (13, "12_animated.gif", KEPT, [("warned", "only the first frame"), ("converted", "P to RGB")]),
    (14, "13_bomb_30000x30000_1bit.png", not KEPT, [("skipped", "too many pixels, refused from the header")]),
    (15, "14 file name with spaces – ünïcödé 写真 😀.jpg", KEPT, []),
    (16, "15_duplicate_of_00.jpg", KEPT, [SAME]),
    (17, "17_rgba.webp", KEPT, [("converted", "transparent pixels")]),
    (18, "18_really_webp_named.jpg", KEPT, [("warned", "content is WEBP"), ("converted", "transparent"), SAME]),
    (19, "16_bad_boxes.jpg", KEPT, [("converted", "clipped"), ("dropped", "outside the picture")]),
    (20, "16_bad_boxes.jpg#2", KEPT, [("dropped", "inverted"), SAME]),
    (21, "16_bad_boxes.jpg#3", KEPT, [("dropped", "NaN or infinity"), ("dropped", "NaN or infinity"), SAME]),
    (22, "16_bad_boxes.jpg#4", KEPT, [("dropped", "under one pixel"), ("dropped", "4 numbers"), SAME]),
    (23, "16_bad_boxes.jpg#5", KEPT, [("dropped", "not a list of boxes"), SAME]),
    (24, "16_bad_boxes.jpg#6", KEPT, [("converted", "strings"), SAME]),
    (25, "16_bad_boxes.jpg#7", KEPT, [("warned", "caption is empty"), SAME]),
    (26, "16_bad_boxes.jpg#8", KEPT, [("dropped", "normalised 0..1 coordinates?"), SAME]),
    (27, "no_such_file.jpg", not KEPT, [("skipped", "file does not exist")]),
    (28, "../../etc/passwd", not KEPT, [("skipped", "path leaves the folder")]),
    (29, None, not KEPT, [("skipped", "no file_name")]),
    (30, None, not KEPT, [("skipped", "line is not JSON")]),
    (31, None, not KEPT, []),  # an empty line is no record
    (32, None, not KEPT, [("skipped", "not a JSON object")]),
    (33, "00_good.jpg#2", KEPT, [("warned", "exact repeat of a line"), SAME]),
    (34, None, not KEPT, [("skipped", "not UTF-8")]),
]


@pytest.fixture(scope="module")
def bad(shared: Path) -> Path:
    return shared / "data" / "bad"


@pytest.fixture(scope="module")
def loaded(bad: Path) -> tuple[dict[int, HumanRecord], LoadReport]:
    report = LoadReport()
    records = check_records(read_source(bad, REGIONS, ANY, report), report, full=True, max_reject_share=1.0)
    return {int(record.location.rpartition(":")[2]): record for record in records}, report


@pytest.mark.parametrize(("line", "key", "kept", "notes"), TABLE, ids=[str(row[0]) for row in TABLE])
def test_each_line_is_treated_as_it_must_be(loaded, line, key, kept, notes):
    records, report = loaded
    assert (line in records) == kept
    if kept:
        assert records[line].key == key
    found = [entry for entry in report.notes if entry.line == line]
    assert [entry.action for entry in found] == [action for action, _ in notes]
    for entry, (_, words) in zip(found, notes, strict=True):
        assert words in entry.reason
        assert entry.file == "metadata.jsonl"
    if found and key and not kept:
        assert key in found[0].value


def test_the_table_is_complete(bad, loaded):
    records, report = loaded
    lines = (bad / "metadata.jsonl").read_bytes().count(b"\n")
    assert [row[0] for row in TABLE] == list(range(1, lines + 1))
    named = {re.sub(r"#\d+$", "", row[1] or "") for row in TABLE}
    assert {path.name for path in bad.iterdir()} - named == {"metadata.jsonl", "README.txt"}
    assert len(records) == sum(row[2] for row in TABLE) == 21
    assert sum(report.counts()["skipped"].values()) == len(report.skipped()) == 12
    assert sum(map(len, (row[3] for row in TABLE))) == len(report.notes)


def test_too_many_rejects_end_the_run_with_the_first_reasons(bad):
    report = LoadReport()
    with pytest.raises(DataError, match=r"11 of 33 records .* max_reject_share = 20 %") as caught:
        read_source(bad, REGIONS, SourceSettings(), report)
    assert str(caught.value).count("\n  metadata.jsonl:") == 10
    assert len(report.skipped()) == 11


def test_boxes_of_the_good_and_the_bad_lines(loaded):
    records, _ = loaded
    good = (Box(139.5, 49.0, 183.1, 92.6, 0.79),)
    hands = (Box(228.4, 239.5, 245.8, 267.6, 1.0), Box(105.0, 253.3, 118.6, 285.1, 1.0))
    assert records[1].boxes == records[33].boxes == {"face": good, "hand": hands}
    # The faces of line 9 are in the upright frame; stored pixels are 512x333.
    assert (records[9].width, records[9].height) == (333, 512)
    assert records[9].boxes["hand"][1] == Box(108.6, 254.4, 121.0, 284.5, 0.6)
    assert records[2 + 3].boxes == {"face": (), "hand": ()}
    assert records[19].boxes == {"face": (Box(0, 0, 60, 50, 0.9),), "hand": None}
    for line in (20, 26):
        assert records[line].boxes == {"face": None, "hand": ()}
    for line in (21, 22, 23):
        assert records[line].boxes == {"face": None, "hand": None}
    assert records[24].boxes["face"] == (Box(10, 20, 60, 80, 0.9),)


def test_pictures_look_as_they_should(bad):
    def pixels(name: str) -> np.ndarray:
        return np.asarray(decode(bad / name).picture, dtype=float)

    assert pixels("05_gray16.png").mean() == pytest.approx(131, abs=1)  # clipped it would be 253
    left = pixels("04_palette_alpha.png")[:, :20]
    assert left.min() == 255  # white, not magenta
    assert pixels("17_rgba.webp")[:, :20].min() == 255
    assert pixels("08_exif_orientation6.jpg").shape == (512, 333, 3)
    grey = pixels("11_grayscale.jpg")
    assert (grey[..., 0] == grey[..., 2]).all()
    assert 60 < pixels("07_cmyk.jpg").mean() < 200


@pytest.mark.parametrize(("name", "count"), [("ccp", 1900), ("wholebody", 43)])
def test_real_sets_are_read_without_a_skip(shared, name, count):
    report = LoadReport()
    records = read_source(shared / "data" / name, REGIONS, SourceSettings(), report)
    assert len(records) == count
    assert not report.skipped()
    assert "dropped" not in report.counts()
    if name == "ccp":  # none found there means unknown: never an empty list
        assert sum(record.boxes["hand"] is None for record in records) == 350
        assert {record.split for record in records} == {"train", "val"}
        assert not any(record.boxes[region] == () for record in records for region in REGIONS)
    else:
        kinds = [type(record.boxes["face"]) for record in records]
        assert type(None) in kinds
        assert any(record.boxes[region] == () for record in records for region in REGIONS)
