"""The reader of MoLE's folders: whose caption a picture gets."""

import json
import tracemalloc

import pytest

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source, source_kind
from fairhuman.data.sources.rows import read_limited
from fairhuman.errors import DataError
from helpers.formats import put
from helpers.tiny_pictures import encoded, picture


def lay(root, names, captions):
    """Pictures, and files of captions by their paths."""
    for number, name in enumerate(names):
        put(root / name, encoded(picture(40, 30, number)))
    for name, entries in captions.items():
        put(root / name, json.dumps(entries) if isinstance(entries, dict | list) else entries)


def read(root, **settings):
    report = LoadReport()
    records = read_source(root, (), SourceSettings(max_reject_share=1.0, **settings), report)
    return {record.key: (record.caption, record.attributes["subset"]) for record in records}, report


def text(caption):
    return {"caption": caption}


def test_captions_are_by_path_and_the_nearest_file_counts(tmp_path):
    names = ["hand/1.png", "hand/deep/1.png", "hand/deep/2.png", "face/1.png", "face/2.png", "1.png"]
    captions = {
        "hand/meta_cap.json": {"1": text("hand one"), "deep/1": text("deep one"), "deep/2.png": text("deep two")},
        "hand/deep/meta_cap.json": {"1": text("nearer")},
        "meta_cap.json": {"face/1": text("from above"), "1": text("top"), "2": text("of nobody")},
    }
    lay(tmp_path, names, captions)
    assert source_kind(tmp_path) == "mole"
    assert read(tmp_path)[0] == {
        "1.png": ("top", tmp_path.name),
        "face/1.png": ("from above", "face"),
        "face/2.png": ("", "face"),
        "hand/1.png": ("hand one", "hand"),
        "hand/deep/1.png": ("nearer", "hand"),
        "hand/deep/2.png": ("deep two", "hand"),
    }


def test_without_files_of_captions_it_is_a_folder_whose_subsets_are_kept_when_asked(tmp_path):
    lay(tmp_path, ["hand/1.png", "face/1.png"], {"hand/1.txt": "a hand", "face/1.txt": "a face"})
    assert source_kind(tmp_path) == "folder"
    expected = {"face/1.png": ("a face", "face"), "hand/1.png": ("a hand", "hand")}
    assert read(tmp_path, format="mole")[0] == expected


@pytest.mark.parametrize("content", ["{", "[" * 100_000, [1], '"text"', b"\xff"])
def test_a_file_of_captions_that_cannot_be_read_is_refused(tmp_path, content):
    lay(tmp_path, ["hand/1.png"], {"hand/meta_cap.json": content})
    with pytest.raises(DataError, match=r"hand/meta_cap.json: (not a JSON file|must hold a JSON object)"):
        read(tmp_path)


@pytest.mark.parametrize("entry", [None, "text", {}, {"caption": None}, {"caption": 5}])
def test_an_entry_without_text_gives_no_caption(tmp_path, entry):
    lay(tmp_path, ["hand/1.png", "hand/2.png"], {"hand/meta_cap.json": {"1": entry, "2": text("two")}})
    found, report = read(tmp_path)
    assert found == {"hand/1.png": ("", "hand"), "hand/2.png": ("two", "hand")}
    assert [entry.file for entry in report.notes] == ["hand/1.png"]


def test_a_huge_file_of_captions_is_not_read(tmp_path):
    lay(tmp_path, ["1.png"], {})
    with (tmp_path / "meta_cap.json").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match=r"meta_cap\.json: must have at most 2,147,483,648 bytes"):
        read(tmp_path)


def test_a_sparse_caption_file_is_not_read_whole(tmp_path):
    with (tmp_path / "meta_cap.json").open("wb") as file:
        file.write(b'{"a":')
        file.truncate(2**31)
    tracemalloc.start()
    with pytest.raises(DataError, match=r"meta_cap.json: holds 4,096 zero bytes in a row"):
        read_limited(tmp_path / "meta_cap.json")
    assert tracemalloc.get_traced_memory()[1] < 2**26
    tracemalloc.stop()
