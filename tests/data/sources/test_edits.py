"""Changes by hand beside a data set: what readers make of them, and that none is lost."""

import base64
import errno
import json
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fairhuman.data.look.reading import open_dataset
from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.run import build_dataset
from fairhuman.data.pipeline.settings import BuildRecipe
from fairhuman.data.sources import SourceSettings, edits, read_source
from fairhuman.data.sources.edits import EDITS, EditsWriter, read_edits
from fairhuman.data.sources.undo import undo_edit
from fairhuman.errors import DataError, FairHumanError
from fairhuman.studio.cells import boxes_around, mask_of, png_of, runs_of
from helpers.tiny_pictures import encoded, picture


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three pictures of 64 x 48 with captions, faces, and no hands annotated."""
    root = tmp_path / "photos"
    root.mkdir()
    rows = []
    for i in range(3):
        (root / f"{i}.png").write_bytes(encoded(picture(64, 48, i)))
        rows.append({"file_name": f"{i}.png", "caption": f"number {i}", "faces": [[4, 5, 20, 25, 0.9]], "hands": None})
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def painted() -> tuple[np.ndarray, str]:
    mask_hw = np.zeros((48, 64), dtype=bool)
    mask_hw[10:20, 30:44] = True
    return mask_hw, base64.b64encode(png_of(mask_hw)).decode()


def records(path: Path, *regions: str):
    return {record.key: record for record in read_source(path, regions or ("face",), SourceSettings(), LoadReport())}


def test_readers_see_changes_and_the_data_set_stays_as_it_is(photos: Path) -> None:
    before = (photos / "metadata.jsonl").read_bytes()
    mask_hw, png = painted()
    with EditsWriter(photos) as writer:
        writer.add("0.png", {"caption": "by hand"})
        writer.add("0.png", {"region": "hand", "boxes": [[30, 10, 44, 20]], "mask": png})
        writer.add("1.png", {"region": "face", "boxes": [], "mask": None})
        writer.add("2.png", {"region": "left-shoe", "boxes": [[1, 2, 9, 10]], "mask": None})
    found = records(photos, "face", "hand", "left-shoe")
    assert found["0.png"].caption == "by hand"
    assert np.array_equal(np.asarray(decode_mask(found["0.png"].masks["hand"])) > 127, mask_hw)
    assert (found["1.png"].boxes["face"], found["1.png"].boxes["hand"]) == ((), None)
    assert found["2.png"].boxes["left-shoe"][0].x1 == 9
    assert "left-shoe" in open_dataset(photos).regions
    assert (photos / "metadata.jsonl").read_bytes() == before
    undo_edit(photos, 1)
    assert records(photos)["0.png"].caption == "number 0"


def test_undo_and_redo_go_back_and_forth_until_something_new_is_changed(photos: Path) -> None:
    with EditsWriter(photos) as writer:
        for text in "abc":
            writer.add("0.png", {"caption": text})

        def standing() -> str | None:
            edit = writer.edits.standing("0.png").get(("caption", ""))
            return edit and edit.values["caption"]

        def undo(again: bool = False) -> str | None:
            line = writer.edits.next_redo("0.png") if again else writer.edits.next_undo("0.png")
            writer.add("0.png", {"undo": line.n})
            return standing()

        assert [standing(), undo(), undo(), undo()] == ["c", "b", "a", None]
        assert writer.edits.next_undo("0.png") is None
        assert [undo(again=True), undo(again=True)] == ["a", "b"]
        assert undo() == "a"
        writer.add("0.png", {"caption": "d"})
        assert writer.edits.next_redo("0.png") is None
        assert undo() == "a"
    assert read_edits(photos).standing("0.png")["caption", ""].values["caption"] == "a"  # as the file tells


def test_half_a_line_of_a_killed_process_is_dropped_and_one_process_writes_at_a_time(photos: Path) -> None:
    with EditsWriter(photos) as writer:
        writer.add("0.png", {"caption": "kept"})
        with pytest.raises(DataError, match="another studio or command is changing") as busy, EditsWriter(photos):
            pass
        where = f" (process {os.getpid()})" if Path("/proc/locks").exists() else ""
        assert str(busy.value).endswith(
            f"changing this data set{where}; a studio holds it from its first change until it ends: make the change "
            "there, or end it with Ctrl-C"
        )
    with (photos / EDITS).open("ab") as file:
        file.write(b'{"n": 2, "key": "1.png", "capt')
    assert records(photos)["0.png"].caption == "kept"
    with EditsWriter(photos) as writer:
        assert writer.add("1.png", {"caption": "next"}).n == 2
    assert [line.n for line in read_edits(photos).lines] == [1, 2]


def test_a_change_that_failed_is_gone_and_the_next_one_has_its_number(photos: Path, monkeypatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "no such luck")

    with EditsWriter(photos) as writer:
        writer.add("0.png", {"caption": "kept"})
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", fail)
            with pytest.raises(FairHumanError, match="no such luck"):
                writer.add("1.png", {"caption": "failed"})
        assert len(read_edits(photos).lines) == 1
        assert writer.add("1.png", {"caption": "next"}).n == 2
    assert records(photos)["1.png"].caption == "next"


def test_the_list_says_which_changes_count(photos: Path, typed: Callable[..., tuple[int, str, str]]) -> None:
    with EditsWriter(photos) as writer:
        for values in ({"caption": "a"}, {"caption": "b"}, {"undo": 2}, {"undo": 3}, {"undo": 4}):
            writer.add("0.png", values)
        writer.add("1.png", {"region": "face", "boxes": [], "mask": None})
        writer.add("1.png", {"region": "face", "boxes": None, "mask": None})
    assert read_edits(photos).without_effect() == {2: "undone by 3", 4: "undone by 5", 6: "replaced by 7"}
    lines = typed("data", "edits", photos)[1].splitlines()
    ends = [line.split("0.png  ")[-1].split("1.png  ")[-1] for line in lines[:-1]]
    assert ends == [
        "caption: a",
        "caption: b  (undone by 3)",
        "undoes 2",
        "undoes 3  (undone by 5)",
        "undoes 4",
        "face: none there  (replaced by 7)",
        "face: not annotated",
    ]
    with pytest.raises(DataError, match="change 4 doesn't count: undone by 5"):
        undo_edit(photos, 4)


def lines_of(photos: Path) -> list[bytes]:
    """Six changes: a caption, an undo of it, and a caption for each of four pictures."""
    with EditsWriter(photos) as writer:
        writer.add("0.png", {"caption": "first"})
        writer.add("0.png", {"undo": 1})
        for number in range(4):
            writer.add(f"{number % 3}.png", {"caption": f"caption {number}"})
    return (photos / EDITS).read_bytes().splitlines()


@pytest.mark.parametrize(
    ("damage", "number", "left", "said"),
    [
        (lambda it: [it[0], b"\xff\0", *it[2:]], 2, [1, 3, 4, 5, 6], "change 2, found \\xff"),
        (lambda it: [it[0], it[1] + it[2], *it[3:]], 2, [1, 4, 5, 6], "changes 2 to 3, found {"),
        (lambda it: [it[0], it[1][:20], it[1][20:], *it[2:]], 2, [1, 3, 4, 5, 6], "change 2, found {"),
        (lambda it: [it[0], *it[4:]], 2, [1, 5, 6], "changes 2 to 4, found {"),
        (lambda it: [b"", *it[1:]], 1, [2, 3, 4, 5, 6], "change 1, found "),
        (lambda it: [*it[:4], b"{}", b"{}"], 5, [1, 2, 3, 4], "changes 5 to 6, found {}"),
        (lambda it: [*it[:5], b'{"n": 3}'], 6, [1, 2, 3, 4, 5], "change 6, found {"),
    ],
)
def test_a_damaged_line_can_be_given_up_without_the_others(photos: Path, damage, number, left, said) -> None:
    whole = lines_of(photos)
    damaged = b"\n".join(damage(whole)) + b"\n"
    (photos / EDITS).write_bytes(damaged)
    with pytest.raises(
        DataError, match=rf"{EDITS}:{number}: .*, or give up this line .* edits .*photos --undo {number}"
    ):
        records(photos)
    with pytest.raises(DataError, match=rf"{EDITS}:{number}: "):
        undo_edit(photos, number + 1)
    assert (photos / EDITS).read_bytes() == damaged
    assert f"given up: {said}" in undo_edit(photos, number)
    assert (photos / f".{EDITS}.before-{number}").read_bytes() == damaged
    found = read_edits(photos)
    assert [line.n for line in found.lines if not line.lost] == left
    assert [line.n for line in found.lines] == list(range(1, max(6, *left) + 1))
    assert records(photos)["0.png"].caption == "caption 3" if 6 in left else "caption 0"
    with pytest.raises(DataError, match=f"change {number} doesn't count: given up"):
        undo_edit(photos, number)
    with EditsWriter(photos) as writer:
        assert writer.add("1.png", {"caption": "goes on"}).n == 7


REGION = {"n": 1, "key": "0.png", "region": "face"}
UNDONE = json.dumps({"n": 1, "key": "a.png", "caption": ""})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (json.dumps({"n": 5, "key": "0.png", "caption": "x"}), r"1: n must be 1, found 5;"),
        (json.dumps({"n": True, "key": "0.png", "caption": "x"}), "1: n must be 1, found True;"),
        (json.dumps({"n": 10**299, "key": "0.png", "caption": "x"}), "1: n must be 1, found 1000.*…;"),
        ('{"n": 1' + "0" * 400 + "}", "1: is not JSON: an integer must have at most 300 digits"),
        ("[" * 5000 + "]" * 5000, "1: is not JSON: must be nested at most"),
        ("[1]", "1: must be a JSON object"),
        ("\xff", "1: is not JSON"),
        ("", "1: is not JSON"),
        (json.dumps({"n": 1, "caption": "x"}), "1: key and at must be texts"),
        (json.dumps({"n": 1, "key": "0.png", "at": 3, "caption": "x"}), "1: key and at must be texts"),
        (json.dumps({"n": 1, "key": "0.png"}), "1: must have a caption, a region .* found ;"),
        (json.dumps({"n": 1, "key": "0.png", "caption": "x", "undo": 1}), "1: must have .*found caption, undo;"),
        (json.dumps({**REGION, "polygon": []}), "1: must have .*found polygon, region;"),
        (json.dumps({"n": 1, "key": "0.png", "caption": 3}), "1: caption must be a text"),
        (json.dumps({"n": 1, "key": "0.png", "undo": 1}), "1: undo must be an earlier change of the same picture"),
        (f"{UNDONE}\n{json.dumps({'n': 2, 'key': '0.png', 'undo': 1})}", "2: undo must be an earlier change"),
        (json.dumps({**REGION, "region": "../../etc"}), r"1: region must be a name .* found ../../etc;"),
        (json.dumps({**REGION, "region": "file_name", "boxes": []}), "1: region must be a name .* found file_name;"),
        (json.dumps({**REGION, "region": ["face"]}), "1: region must be a name"),
        (json.dumps({**REGION, "region": "-", "boxes": []}), "1: region must be a name .* found -;"),
        (json.dumps({**REGION, "boxes": 3}), "1: boxes must be a list"),
        (json.dumps({**REGION, "boxes": [[1, 2, 3]]}), "1: boxes must be a list"),
        (json.dumps({**REGION, "boxes": [[1, 2, 3, "9" * 999]]}), "1: boxes must be a list .*…;"),
        (json.dumps({**REGION, "mask": 3}), "1: mask must be a PNG in base64"),
        (json.dumps({**REGION, "mask": "iVBORw0KGgo"}), "1: mask must be a PNG in base64, or null, found iVBORw0KGgo;"),
        (json.dumps({**REGION, "mask": "/9j/4AAQSkZJRgABAQ=="}), "1: mask must be a PNG in base64"),
    ],
)
def test_a_file_that_is_something_else_is_an_error(photos: Path, content: str, said: str) -> None:
    (photos / EDITS).write_text(content + "\n", encoding="latin-1")
    with pytest.raises(DataError, match=rf"edits\.jsonl:{said}.*restore the file from a backup, or delete it"):
        read_edits(photos)


def test_a_file_that_is_too_large_is_neither_read_nor_made(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (photos / EDITS).open("wb") as file:
        file.truncate(2**31)  # a hole
    with pytest.raises(DataError, match=r"must have at most 1,073,741,824 bytes and .*found 2,147,483,648 bytes"):
        records(photos)
    (photos / EDITS).write_bytes(b"x" * (edits.MAX_TEXT + 1))
    with pytest.raises(DataError, match="line 1 must have at most"):
        records(photos)
    (photos / EDITS).unlink()
    monkeypatch.setattr(edits, "MAX_LINES", 1)
    with EditsWriter(photos) as writer:
        writer.add("0.png", {"caption": "x"})
        with pytest.raises(DataError, match=r"found 2 changes; go on in a copy .*: fairhuman data export"):
            writer.add("0.png", {"caption": "y"})
    assert records(photos)["0.png"].caption == "x"
    (photos / EDITS).write_text((photos / EDITS).read_text() * 2)
    with pytest.raises(DataError, match="found 2 changes; restore the file"):
        records(photos)
    (photos / EDITS).unlink()
    (photos / EDITS).mkdir()
    with pytest.raises(DataError, match="not a regular file"):
        records(photos)


def test_a_mask_that_is_no_mask_of_its_picture_is_noted_and_never_decoded(photos: Path) -> None:
    def png(width: int, height: int) -> str:
        head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
        chunk = struct.pack(">I", len(head)) + b"IHDR" + head + struct.pack(">I", zlib.crc32(b"IHDR" + head))
        return base64.b64encode(edits.PNG + chunk + b"\0\0\0\0IDAT").decode()

    with EditsWriter(photos) as writer:
        writer.add("0.png", {"region": "hand", "boxes": [], "mask": png(2**31 - 1, 2**31 - 1)})
        writer.add("1.png", {"region": "hand", "boxes": [], "mask": png(9, 9)})
    report = LoadReport()
    found = read_source(photos, ("hand",), SourceSettings(), report)
    assert [record.masks for record in found] == [{}, {}, {}]
    dropped = [note.value for note in report.notes if note.action == "dropped"]
    assert len(dropped) == 2
    assert all(value.startswith("mask of hand: ") for value in dropped)


def test_a_link_is_not_followed_and_a_change_of_a_missing_picture_is_noted(photos: Path, tmp_path: Path) -> None:
    with EditsWriter(photos) as writer:
        writer.add("gone.png", {"caption": "x"})
    report = LoadReport()
    read_source(photos, ("face",), SourceSettings(), report)
    assert report.counts()["warned"]["change of a picture that isn't there"] == 1
    (photos / EDITS).rename(tmp_path / "elsewhere")
    (photos / EDITS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="is a link"):
        records(photos)


def test_a_build_takes_changes_of_its_source_and_keeps_its_own_when_made_again(photos: Path, tmp_path: Path) -> None:
    recipe = BuildRecipe.model_validate({"min_side": None, "detect": None, "caption": {"kind": "text"}})
    mask_hw, png = painted()
    with EditsWriter(photos) as writer:
        writer.add("0.png", {"region": "hand", "boxes": [[30, 10, 44, 20]], "mask": png})
    build_dataset(photos, tmp_path / "built", recipe)
    found = records(tmp_path / "built", "face", "hand")
    assert np.array_equal(np.asarray(decode_mask(found["0.png"].masks["hand"])) > 127, mask_hw)
    with EditsWriter(tmp_path / "built") as writer:
        writer.add("1.png", {"caption": "in the build"})
    with EditsWriter(photos) as writer:
        writer.add("2.png", {"caption": "in the source"})
    build_dataset(photos, tmp_path / "built", recipe)
    captions = {key: record.caption for key, record in records(tmp_path / "built").items()}
    assert captions == {"0.png": "number 0", "1.png": "in the build", "2.png": "in the source"}


@pytest.mark.parametrize("first", [False, True])
def test_runs_of_cells_and_boxes_around_parts(first: bool) -> None:
    mask_hw = np.random.default_rng(0).random((5, 7)) < 0.4
    mask_hw[0, 0] = first
    assert np.array_equal(mask_of(runs_of(mask_hw), 7, 5), mask_hw)
    assert (runs_of(mask_hw)[0] == 0) == first
    for wrong in ([35, 1], [-1, 36], []):
        with pytest.raises(ValueError, match="must add up to 7 x 5"):
            mask_of(wrong, 7, 5)
    two_hw = np.zeros((6, 6), dtype=bool)
    two_hw[0, 0] = two_hw[1, 1] = two_hw[3:6, 4:6] = True
    assert boxes_around(two_hw, 9) == [[4, 3, 6, 6], [0, 0, 2, 2]]
    assert boxes_around(two_hw, 1) == [[0, 0, 6, 6]]
