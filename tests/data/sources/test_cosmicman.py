"""The reader of CosmicMan: attributes as they are, the face out of the parsing map."""

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source, source_kind
from fairhuman.data.sources.check import check_records
from fairhuman.record import LabelMap
from helpers.formats import AA_IDS, write_cosmicman


@pytest.fixture
def change(tmp_path):
    """`change(row)` writes fields of the first of two rows anew, None leaves one out, and reads them."""
    write_cosmicman(tmp_path, 2)
    file = tmp_path / "label" / "laion1B-nolang_0.parquet"

    def make(**fields):
        rows = pyarrow.parquet.read_table(file).to_pylist()
        rows[0] |= fields
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        report = LoadReport()
        records = read_source(tmp_path, ("face",), SourceSettings(max_reject_share=1.0), report)
        return records, [(entry.action, entry.reason) for entry in report.notes if entry.line == 1]

    return make


def test_the_face_is_where_the_map_says_face_or_glasses(change, tmp_path):
    (record, _), _ = change()
    mask = record.masks["face"]
    assert isinstance(mask, LabelMap)
    map_hw = np.asarray(Image.open(mask.stored)).copy()
    plain = np.asarray(decode_mask(mask))
    assert set(np.unique(plain)) == {0, 255}
    y, x = np.argwhere(map_hw == 11)[0]
    map_hw[y, x] = 3
    Image.fromarray(map_hw).save(mask.stored)
    assert np.array_equal(np.asarray(decode_mask(mask)), plain)


def test_hands_are_unknown(change, tmp_path):
    assert [record.annotated("hand") for record in change()[0]] == [False, False]


@pytest.mark.parametrize("ids", [None, json.dumps(AA_IDS[:2]), "{}", json.dumps([[1], [0], [0], None])])
def test_a_map_is_used_if_it_is_consistent(change, ids):
    (record, _), notes = change(aa_ids=ids)
    assert "face" in record.masks
    assert notes == []


def test_a_map_of_other_classes_is_dropped(change):
    (first, second), notes = change(aa_ids=json.dumps([[4], [0], [0], [1, 13]]))
    assert (first.masks, "face" in second.masks) == ({}, True)
    assert notes == [("dropped", "parsing map is not in the classes of ATR")]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"segm_path": "none.png"}, "file does not exist"),
        ({"segm_path": "../out.png"}, "path leaves the folder of the data set"),
        ({"segm_path": None}, None),
    ],
)
def test_a_row_without_a_map_is_kept(change, fields, reason):
    (record, _), notes = change(**fields)
    assert (record.masks, record.boxes["face"]) == ({}, None)
    assert notes == ([("dropped", reason)] if reason else [])


def test_text_that_is_not_json_is_kept_as_it_is(change):
    (record, _), notes = change(aa_text="a woman")
    assert record.attributes["aa_text"] == "a woman"
    assert notes == [("warned", "aa_text is not JSON, kept as text")]


def test_a_map_of_another_kind_is_dropped_by_the_check(change, tmp_path):
    (record, other), _ = change()
    Image.open(record.masks["face"].stored).convert("RGB").save(record.masks["face"].stored)
    report = LoadReport()
    checked = check_records([record, other], report, full=True)
    assert [list(found.masks) for found in checked] == [[], ["face"]]
    assert [entry.reason for entry in report.notes] == ["label map has not one number a pixel"]


def test_tables_of_other_columns_are_plain_parquet(tmp_path):
    for columns in ({"path": ["a"], "aa_text": ["b"]}, {"image": ["a"]}):
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "t.parquet")
        assert source_kind(tmp_path) == "parquet"
    (tmp_path / "t.parquet").write_bytes(b"broken")
    assert source_kind(tmp_path) == "parquet"
