"""The formats of published sets, by small samples of each: what is read, and that it trains."""

import errno
import os
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fairhuman import config
from fairhuman.data.pictures.decode import decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SOURCES, SourceSettings, format_lines, read_source, source_kind
from fairhuman.data.sources.folder import folder_rows
from fairhuman.errors import DataError, RecipeError
from fairhuman.record import Box, HumanRecord
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from helpers.formats import AA_IDS, AA_TEXT, FORMATS, Person
from helpers.tiny_pictures import encoded, picture

REGIONS = {
    "cosmicman": ("face",),
    "bodyhands": ("hand", "person"),
    "mole": (),
    "wholebody": ("face", "hand", "person"),
    "webdataset": ("face", "hand"),
}


def read(path: Path, regions: tuple[str, ...], **settings) -> tuple[list[HumanRecord], LoadReport]:
    report = LoadReport()
    return read_source(path, regions, SourceSettings(**settings), report), report


def boxes(*corners: list[float]) -> tuple[Box, ...]:
    return tuple(Box(*box) for box in corners)


@pytest.fixture(params=FORMATS)
def sample(request, tmp_path) -> tuple[str, Path, list[Person]]:
    root = tmp_path / "sample"
    root.mkdir()
    return request.param, root, FORMATS[request.param](root, 4)


def test_formats_are_detected_and_give_locations(sample):
    kind, root, people = sample
    assert source_kind(root) == kind
    records, report = read(root, REGIONS[kind])
    assert {entry.action for entry in report.notes} <= {"warned"}
    order = [0, 3, 1, 2] if kind == "mole" else range(4)  # by folder
    for record, person in zip(records, (people[i] for i in order), strict=True):
        assert (record.width, record.height) == person.picture.size
        truth = {"face": boxes(person.face), "hand": boxes(*person.hands), "person": boxes(person.body)}
        if kind == "cosmicman":
            x0, y0, x1, y1 = map(int, person.face)
            mask_hw = np.zeros(person.picture.size, bool)
            mask_hw[y0:y1, x0:x1] = True
            assert np.array_equal(np.asarray(decode_mask(record.masks["face"])), mask_hw * np.uint8(255))
        else:
            assert record.boxes == {region: truth[region] for region in REGIONS[kind]}
        assert record.caption == ("" if kind in ("cosmicman", "bodyhands") else person.caption)
    assert len({record.key for record in records}) == len(records)


def test_other_fields_of_each_format_are_kept(sample):
    kind, root, people = sample
    records, _ = read(root, REGIONS[kind])
    first = records[0]
    expected = {
        "cosmicman": {"aa_text": AA_TEXT, "aa_ids": AA_IDS, "person_type": "full_body"},
        "mole": {"subset": "face_new"},
        "wholebody": {},
        "webdataset": {"url": "https://example.org/0.jpg", "status": "success"},
    }
    if kind == "bodyhands":
        hand = people[0].hands[0]
        x0, y0, x1, y1 = hand[0] + 1, hand[1] + 1, hand[2], hand[3]
        quad = {"body_id": 1, "points": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]}
        assert first.attributes["hand_quads"][0] == quad
        assert first.attributes["body_ids"] == [1]
    else:
        assert first.attributes == expected[kind]
    splits = {"bodyhands": ["train", "train", "train", "test"], "wholebody": ["val"] * 4}
    assert [record.split for record in records] == splits.get(kind, [None] * 4)


def test_each_trains(sample, tmp_path):
    kind, root, _ = sample
    regions = [name for name in ("face", "hand") if name in REGIONS[kind]]
    if kind == "wholebody":  # its pictures are of COCO's val, which is held out
        names = root / "annotations" / "coco_wholebody_val_v1.0.json"
        names.rename(names.with_name("coco_wholebody_train_v1.0.json"))
        (root / "val2017").rename(root / "train2017")
    settings = config.build(
        TrainRecipe,
        {
            "data": str(root),
            "out": str(tmp_path / "run"),
            "steps": 2,
            "batch_size": 2,
            "resolution": 32,
            "lora": {"rank": 4},
            "regions": {"names": regions},
            "strategy": "mpd" if regions else "ls",
            "validation": {"every": 0},
            "preview": {"count": 0},
        },
    )
    assert train(settings).finished


def test_a_format_can_be_forced_and_must_exist(sample):
    kind, root, _ = sample
    assert source_kind(root, "folder") == "folder"
    with pytest.raises(RecipeError, match=f"unknown source format '{kind}x'; did you mean '{kind}'"):
        read(root, (), format=f"{kind}x")


def test_what_is_no_data_set_is_named_in_a_line(tmp_path):
    """The formats are listed on request alone."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "documents").mkdir()
    (tmp_path / "documents" / "notes.txt").touch()
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.JPG").touch()
    for name, said in (
        ("empty", "no picture in .*empty, which is empty; `fairhuman data formats` lists"),
        ("documents", r"no picture in .*documents, which has other files, such as notes.txt;"),
        ("photos/a.JPG", "is a single picture; give the folder that it is in"),
        ("documents/notes.txt", "is a file that holds no data set; expected a folder, a .parquet or a .tar"),
    ):
        with pytest.raises(DataError, match=said) as caught:
            source_kind(tmp_path / name)
        assert "wholebody" not in str(caught.value)
    assert [line.partition(":")[0] for line in format_lines()][: len(SOURCES)] == list(SOURCES)


def test_a_folder_that_cannot_be_listed_is_named(tmp_path, monkeypatch):
    def refuse(*_):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "private"))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(DataError, match=r"private: can't be read: Permission denied$"):
        source_kind(tmp_path)
    with pytest.raises(DataError, match=r"private: can't be read: Permission denied$"):
        list(replace(SOURCES["folder"], rows=refuse).read(tmp_path, LoadReport()))


def test_pictures_of_one_stem_keep_their_own_masks_and_keys(folder):
    """Masks with the same stem must not overwrite each other."""
    names = ["a.png", "a.jpg", "deep/a.png", "deep/a.jpg"]
    rows = [{"file_name": name, "caption": name, "masks": {"face": f"masks/{name}"}} for name in names]
    root = folder(rows)
    for number, name in enumerate(names):
        (root / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        grey = np.full((30, 40), 60 * number, np.uint8)
        (root / "masks" / name).write_bytes(encoded(Image.fromarray(grey)))
    records, _ = read(root, ("face",))
    assert [(record.key, record.caption) for record in records] == [(name, name) for name in names]
    shades = [decode_mask(record.masks["face"]).getpixel((0, 0)) for record in records]
    assert shades == [0, 60, 120, 180]


def test_pictures_of_one_stem_share_a_caption_file_but_no_key(tmp_path):
    for name in ("a.png", "a.jpg", "deep/a.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(picture(40, 30, len(name)), "PNG" if name == "a.png" else "JPEG"))
    (tmp_path / "a.txt").write_text("above", encoding="utf-8")
    (tmp_path / "deep" / "a.caption").write_text("below", encoding="utf-8")
    records, _ = read(tmp_path, ())
    assert [(record.key, record.caption) for record in records] == [
        ("a.jpg", "above"), ("a.png", "above"), ("deep/a.jpg", "below"),
    ]  # fmt: skip


def test_names_that_macos_wrote_are_paired_with_those_of_other_systems(tmp_path):
    (tmp_path / "e\u0301.png").write_bytes(encoded(picture(40, 30)))  # é as two characters
    (tmp_path / "\u00e9.txt").write_text("somebody")
    (tmp_path / "e\u0301.heic").touch()
    [record], report = read(tmp_path, ())
    assert (record.key, record.caption, report.notes) == ("e\u0301.png", "somebody", [])


def test_folders_are_walked_in_order_without_following_links(tmp_path):
    for name in ("b/z.png", "b.png", "a/c/d.png", "a.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "back").symlink_to(tmp_path)
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "odd\udcff.png").touch()
    for name in ("._a.png", "._a.txt", "a/._b.png", "__MACOSX/a.png", "a/__MACOSX/b.png"):  # attributes, of macOS
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    report = LoadReport()
    rows = list(folder_rows(tmp_path, report))
    assert [(note.place, note.reason) for note in report.notes] == [("a/back", "link to a folder is not followed")]
    names = [row.values["file_name"] for row in rows]
    assert names == ["a/c/d.png", "a.png", "b/z.png", "b.png", "gone.png", "odd\udcff.png"]
    assert rows[-1].location == "odd\\udcff.png"
    with pytest.raises(OSError, match="none"):
        next(folder_rows(tmp_path / "none", LoadReport()))


def test_endings_of_pictures_and_captions(tmp_path):
    for name in ("a.JPG", "b.jpe", "c.jfif", "d.jpg", "e.HEIC", "f/g.jxl", "d.heif", "h.pdf"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(encoded(picture(40, 30, ord(name[0])), "JPEG"))
    for name in ("a.TXT", "b.Caption", "d.txt", "d.TXT"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    records, report = read(tmp_path, (), max_reject_share=0.5)
    assert {record.key: record.caption for record in records} == {
        **{"a.JPG": "a.TXT", "b.jpe": "b.Caption", "c.jfif": "", "d.jpg": "d.txt"}
    }
    skipped = [(note.place, note.reason, note.value) for note in report.skipped()]
    reason = "picture of a type that is not read"
    assert skipped == [("e.HEIC", reason, ".HEIC"), ("f/g.jxl", reason, ".jxl")]


def test_deep_folders_are_walked(tmp_path, monkeypatch):
    """Deeper than Python's calls may be nested."""
    depth = 1100
    monkeypatch.chdir(tmp_path)
    for _ in range(depth):
        Path("d").mkdir()
        os.chdir("d")
    Path("a.png").touch()
    (row,) = folder_rows(tmp_path, LoadReport())
    assert row.values["file_name"] == "d/" * depth + "a.png"
    Path("a.png").unlink()
    for _ in range(depth):  # what removes the folder after the test calls itself
        os.chdir("..")
        Path("d").rmdir()


@pytest.mark.slow
def test_a_hundred_thousand_files_are_listed_within_seconds(tmp_path):
    for part in range(10):
        (tmp_path / f"{part}").mkdir()
        for number in range(10_000):
            (tmp_path / f"{part}" / f"{number:05d}.png").touch()
    began = time.process_time()
    assert sum(1 for _ in folder_rows(tmp_path, LoadReport())) == 100_000
    assert time.process_time() - began < 10.0
    tracemalloc.start()
    rows = folder_rows(tmp_path, LoadReport())
    assert next(rows).values["file_name"] == "0/00000.png"
    assert sum(1 for _ in rows) == 99_999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 20 * 2**20
