"""The reader of COCO-WholeBody: what is known, and what isn't."""

import json

import pytest

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source, wholebody
from fairhuman.errors import DataError
from fairhuman.record import Box
from helpers.formats import write_wholebody

REGIONS = ("face", "hand", "person")


@pytest.fixture
def change(tmp_path):
    """`change(edit)` lets `edit(labels)` change the annotations of two pictures, and reads them."""
    write_wholebody(tmp_path, 2)
    file = tmp_path / "annotations" / "coco_wholebody_val_v1.0.json"

    def make(edit):
        labels = json.loads(file.read_text(encoding="utf-8"))
        edited = edit(labels)
        file.write_text(json.dumps(labels if edited is None else edited), encoding="utf-8")
        report = LoadReport()
        records = read_source(tmp_path, REGIONS, SourceSettings(max_reject_share=1.0), report)
        return records, [(entry.action, entry.reason) for entry in report.notes]

    return make


def second_person(labels, **fields):
    """Another person in the first picture."""
    other = {**labels["annotations"][0], "bbox": [30, 2, 30, 60], "face_box": [40, 4, 8, 8], **fields}
    labels["annotations"].append({name: value for name, value in other.items() if value is not None})


def test_valid_boxes_of_all_persons_are_the_boxes(change):
    (first, _), notes = change(second_person)
    assert notes == []
    assert first.boxes["face"][1] == Box(40, 4, 48, 12)
    assert [len(first.boxes[region]) for region in REGIONS] == [2, 4, 2]
    assert first.attributes == {}


def test_a_part_that_is_not_valid_is_left_out(change):
    (first, _), _ = change(lambda labels: second_person(labels, face_valid=False))
    assert [len(first.boxes[region]) for region in REGIONS] == [1, 4, 2]


def test_a_part_of_which_nothing_is_valid_is_unknown(change):
    def nobody(labels):
        labels["annotations"][0] |= {"lefthand_valid": False, "righthand_valid": False}

    (first, second), _ = change(nobody)
    assert first.boxes["hand"] is None
    assert first.annotated("face")
    assert len(second.boxes["hand"]) == 2


def test_a_missing_flag_makes_its_part_unknown_and_keeps_what_is_valid(change):
    (first, second), _ = change(lambda labels: second_person(labels, face_valid=None))
    assert (first.boxes["face"], len(first.boxes["hand"])) == (None, 4)
    assert first.attributes["valid_boxes"].keys() == {"faces"}
    (known,) = first.attributes["valid_boxes"]["faces"]
    assert known != [40, 4, 48, 12]
    assert len(second.boxes["face"]) == 1


def test_a_crowd_makes_all_unknown(change):
    (first, second), _ = change(lambda labels: second_person(labels, iscrowd=1))
    assert [first.boxes[region] for region in REGIONS] == [None, None, None]
    assert {name: len(boxes) for name, boxes in first.attributes["valid_boxes"].items()} == {"faces": 1, "hands": 2}
    assert second.annotated("face")


def test_a_picture_with_nobody_has_none(change):
    (first, _), _ = change(lambda labels: labels["annotations"].pop(0) and None)
    assert [first.boxes[region] for region in REGIONS] == [(), (), ()]


@pytest.mark.parametrize("box", [None, [1, 2, 3], ["1", "2", "3", "4"], [True, 1, 2, 3], "box"])
def test_invalid_boxes_are_noted(change, box):
    def spoil(labels):
        labels["annotations"][0]["face_box"] = box

    (first, second), notes = change(spoil)
    assert (first.boxes["face"], notes) == (None, [("dropped", "face_box is not x, y, width, height")])
    assert second.annotated("face")


def test_boxes_with_nan_are_dropped(change):
    def spoil(labels):
        labels["annotations"][0]["face_box"] = [float("nan"), 1, 2, 3]

    (first, _), notes = change(spoil)
    assert (first.boxes["face"], notes) == (None, [("dropped", "a box holds NaN or infinity")])


@pytest.mark.parametrize(
    "labels",
    [[], {}, {"images": [], "annotations": {}}, {"images": 1, "annotations": []}, "text", [[[]]]],
)  # fmt: skip
def test_what_is_not_the_format_is_refused(change, labels):
    with pytest.raises(DataError, match=r"coco_wholebody_val_v1.0.json: must hold a list '(images|annotations)'"):
        change(lambda _: labels)


def test_pictures_are_found_where_the_first_one_is_missing(tmp_path):
    write_wholebody(tmp_path, 3)
    (tmp_path / "val2017" / "000000000000.jpg").unlink()
    records = read_source(tmp_path, REGIONS, SourceSettings(max_reject_share=0.5), LoadReport())
    assert [record.key for record in records] == ["val2017/000000000001.jpg", "val2017/000000000002.jpg"]


def test_broken_json_is_refused(tmp_path):
    (tmp_path / "wholebody.json").write_bytes(b"[" * 100_000)
    with pytest.raises(DataError, match="not a JSON file"):
        read_source(tmp_path, (), SourceSettings(), LoadReport())


def test_images_and_annotations_of_odd_kinds_are_named(change):
    def spoil(labels):
        labels["images"] += [
            {"id": 7},
            5,
            {"id": 8, "file_name": "../../out.jpg"},
            {"id": [1], "file_name": "none.jpg"},
        ]
        labels["annotations"] += [3, {"image_id": {}}, {}]

    records, notes = change(spoil)
    assert len(records) == 2
    assert sorted(notes) == [
        ("dropped", "annotation has no image_id"),
        ("dropped", "annotation has no image_id"),
        ("skipped", "file does not exist"),
        ("skipped", "image has no file_name"),
        ("skipped", "image has no file_name"),
        ("skipped", "path leaves the folder of the data set"),
    ]


def test_key_points_are_dropped(tmp_path):
    write_wholebody(tmp_path, 2)
    (entries,) = wholebody._load(tmp_path / "annotations" / "coco_wholebody_val_v1.0.json", "annotations")
    assert {name for entry in entries for name in entry if "kpts" in name or name == "keypoints"} == set()


def test_the_real_sample_reads(shared):
    """Photos with the boxes of COCO-WholeBody and others, laid out as an imagefolder."""
    report = LoadReport()
    records = read_source(shared / "data" / "wholebody", REGIONS, SourceSettings(), report)
    text = (shared / "data" / "wholebody" / "metadata.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(records) == len(rows)
    for record, row in zip(records, rows, strict=True):
        for region, column in {"face": "faces", "hand": "hands", "person": "persons"}.items():
            assert (record.boxes[region] is None) == (row[column] is None)
            assert len(record.boxes[region] or ()) == len(row[column] or ())


def test_annotations_are_read_within_the_limits_of_json(change):
    for said, edit in {
        "nested at most": lambda labels: labels["annotations"][0].update(bbox=nested(150)),
        "at most 300 digits": lambda labels: labels["annotations"][0].update(bbox=[1, 10**1000]),
    }.items():
        with pytest.raises(DataError, match=rf"coco_wholebody_val_v1.0.json: not a JSON file \(.*{said}"):
            change(edit)


def nested(levels):
    found = []
    for _ in range(levels):
        found = [found]
    return found
