"""The manifest: every row once, in its place, with an identity that changes when the row or its picture does."""

import hashlib
import json
import os

import pytest

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.manifest import list_source, numbered_files, read_block, read_blocks
from fairhuman.data.pipeline.values import from_json, to_json
from fairhuman.data.sources import SOURCES
from fairhuman.data.sources.rows import SourceSettings, records_from_rows
from fairhuman.errors import DataError
from fairhuman.record import FileSpan, TableCell
from helpers.tiny_pictures import encoded, picture


@pytest.fixture
def source(tmp_path):
    """`write(rows)` writes metadata.jsonl beside pictures a.png ... j.png, which are made once."""
    root = tmp_path / "photos"
    root.mkdir()
    for i, name in enumerate("abcdefghij"):
        (root / f"{name}.png").write_bytes(encoded(picture(20, 20, i)))

    def write(rows):
        lines = [json.dumps({"file_name": f"{row}.png"} if isinstance(row, str) else row) for row in rows]
        (root / "metadata.jsonl").write_text("\n".join(lines))
        return root

    return write


def listed(root, folder, block_rows=3, report=None):
    return list_source(folder, SOURCES["imagefolder"], root, block_rows, report or LoadReport())


def keys(folder):
    return [[row.key for row in read_block(path)] for _, path in sorted(numbered_files(folder).items())]


def test_blocks_hold_every_row_in_order(source, tmp_path):
    root = source("abcdefgh")
    listing = listed(root, tmp_path / "m")
    assert (listing.rows, listing.new, listing.changed, listing.gone) == (8, 8, 0, 0)
    assert keys(tmp_path / "m") == [["a.png", "b.png", "c.png"], ["d.png", "e.png", "f.png"], ["g.png", "h.png"]]
    row = read_block(numbered_files(tmp_path / "m")[1])[2]
    assert row.row(root) == ("metadata.jsonl:6", {"file_name": "f.png"})
    ids = [identity for block in read_blocks(tmp_path / "m") for identity in block.ids.tolist()]
    assert len(set(ids)) == 8


def test_listing_again_changes_nothing(source, tmp_path):
    root = source("abcdefgh")
    listed(root, tmp_path / "m")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "m").iterdir()}
    listing = listed(root, tmp_path / "m")
    assert (listing.new, listing.changed, listing.gone) == (0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "m").iterdir()} == before


def test_rows_keep_their_place_when_others_come_and_go(source, tmp_path):
    listed(source("abcdefg"), tmp_path / "m")
    listing = listed(source("ijacefg"), tmp_path / "m")
    assert (listing.rows, listing.new, listing.changed, listing.gone) == (7, 2, 0, 2)
    assert keys(tmp_path / "m") == [["a.png", "c.png"], ["e.png", "f.png"], ["g.png"], ["i.png", "j.png"]]
    listed(source("ij"), tmp_path / "m")
    assert keys(tmp_path / "m") == [[], [], [], ["i.png", "j.png"]]
    listed(source("ijb"), tmp_path / "m")
    assert keys(tmp_path / "m")[-1] == ["b.png"], "a number is never given twice"


@pytest.mark.parametrize("what", ["caption", "picture", "gone picture"])
def test_a_change_is_noticed(source, tmp_path, what):
    root = source("abcd")
    listed(root, tmp_path / "m")
    before = [block.ids.tolist() for block in read_blocks(tmp_path / "m")]
    if what == "caption":
        source(["a", "b", {"file_name": "c.png", "caption": "new"}, "d"])
    elif what == "picture":
        os.utime(root / "c.png", ns=(1, 1))
    else:
        (root / "c.png").unlink()
    listing = listed(root, tmp_path / "m")
    assert (listing.new, listing.changed, listing.gone) == (0, 1, 0)
    after = [block.ids.tolist() for block in read_blocks(tmp_path / "m")]
    assert keys(tmp_path / "m") == [["a.png", "b.png", "c.png"], ["d.png"]]
    assert after[0][:2] == before[0][:2]
    assert after[0][2] != before[0][2]
    assert after[1] == before[1]


def test_an_identity_holds_the_files_of_masks_and_conditions(source, tmp_path):
    """A row without them keeps the identity that it always had."""
    rows = ["a", {"file_name": "b.png", "masks": {"face": {"path": "i.png", "labels": [1]}, "hand": None}}]
    rows += [{"file_name": "c.png", "pose": "j.png", "depth": "h.png"}, {"file_name": "d.png", "pose": [[1, 2, 3]]}]
    root = source(rows)
    os.utime(root / "a.png", ns=(7, 7))
    listed(root, tmp_path / "m")
    ids = [identity for block in read_blocks(tmp_path / "m") for identity in block.ids.tolist()]
    text = f'a.png\0{{"file_name":"a.png"}}\0{(root / "a.png").stat().st_size} 7'
    assert ids[0] == int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
    for file, row in (("i.png", 1), ("j.png", 2), ("h.png", 2)):
        before = ids
        os.utime(root / file, ns=(1, 1))
        assert listed(root, tmp_path / "m").changed == 1
        ids = [identity for block in read_blocks(tmp_path / "m") for identity in block.ids.tolist()]
        assert [n for n in range(4) if ids[n] != before[n]] == [row]


def test_a_listing_that_was_killed_gives_the_same_bytes(source, tmp_path):
    root = source("abcdefgh")
    listed(root, tmp_path / "whole")
    listed(root, tmp_path / "m")
    files = sorted((tmp_path / "m").iterdir())
    for path in files[1:]:
        path.unlink()
    (tmp_path / "m" / ".000001-x.parquet.partial").write_bytes(b"half")
    assert listed(root, tmp_path / "m").new == 5
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").glob("[0-9]*")} == wanted


def test_of_two_files_of_one_block_one_stays(source, tmp_path):
    """A kill between the writing of a changed block and the removal of the old one."""
    root = source("abc")
    listed(root, tmp_path / "m")
    (old,) = (tmp_path / "m").iterdir()
    content = old.read_bytes()
    source(["a", {"file_name": "b.png", "caption": "new"}, "c"])
    listed(root, tmp_path / "m")
    old.write_bytes(content)
    listed(root, tmp_path / "m")
    (only,) = (tmp_path / "m").iterdir()
    assert read_block(only)[1].row(root).values["caption"] == "new"


def test_equal_keys_are_numbered(source, tmp_path):
    rows = [{"file_name": "a.png"}, {"file_name": "a.png"}, {"file_name": "b.png", "key": "a.png"}]
    listed(source(rows), tmp_path / "m")
    assert keys(tmp_path / "m") == [["a.png", "a.png#2", "a.png#3"]]


def test_rows_without_any_picture_are_refused(source, tmp_path):
    with pytest.raises(DataError, match=r"photos: no record has the required column 'file_name'"):
        listed(source([{"file": "a.png"}]), tmp_path / "m")


def test_odd_values_come_back(source, tmp_path):
    odd = {
        "file_name": "a.png",
        "faces": [[float("nan"), 1, 2, float("inf")]],
        "caption": "half \ud83d a pair",
        "é🙂": None,
    }
    root = source([odd])
    listed(root, tmp_path / "m")
    (row,) = read_block(numbered_files(tmp_path / "m")[0])
    assert json.dumps(row.row(root).values) == json.dumps(odd)


def test_a_row_can_state_no_file_of_its_own_outside_its_folder(source, tmp_path):
    """What the JSON of a manifest names a path, span or cell comes from sources alone, never from a row's own text."""
    (tmp_path / "private.png").write_bytes(encoded(picture(20, 20, 5)))
    files = [{"!path": "../private.png"}, {"!span": ["../private.png", 0, 90]}, {"!cell": ["../t.parquet", 0, ["a"]]}]
    root = source(
        [{"file_name": file, "pose": file, "key": str(n), "masks": {"face": file}} for n, file in enumerate(files)]
        + [{"file_name": "a.png", "attributes": {"!span": 5, "!!x": [{"!path": {}}]}}]
    )
    listed(root, tmp_path / "m", block_rows=9)
    rows = [row.row(root) for row in read_block(numbered_files(tmp_path / "m")[0])]
    assert [row.values["file_name"] for row in rows] == [*files, "a.png"]
    assert rows[3].values["attributes"] == {"!span": 5, "!!x": [{"!path": {}}]}
    (kept,) = records_from_rows(rows, root, "file_name", (), SourceSettings(), LoadReport())
    assert kept.key == "a.png"


def test_files_that_a_source_found_come_back_also_from_earlier_manifests(tmp_path):
    found = {"a": FileSpan(tmp_path / "x.tar", 10, 5), "b": {"bytes": TableCell(tmp_path / "t.parquet", 3, ("b",))}}
    text = '{"a":{"!span":["x.tar",10,5]},"b":{"bytes":{"!cell":["t.parquet",3,["b"]]}}}'
    assert to_json(found, tmp_path) == text
    assert from_json(text, tmp_path) == found
