"""The imagefolder reader: all kinds of metadata, and everything that can be wrong with a line."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from fairhuman.data.look.reading import open_dataset
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.manifest import list_source, numbered_files, read_block
from fairhuman.data.sources import SourceSettings, _compare_pictures, read_source, source_format, source_kind
from fairhuman.data.sources.imagefolder import HELD_OUT_SPLITS, SPLITS, metadata_files
from fairhuman.errors import DataError
from fairhuman.record import Box, LabelMap
from helpers.tiny_pictures import encoded, picture

ANY = SourceSettings(max_reject_share=1.0)
ROWS = [
    {"file_name": "a.png", "caption": "one", "faces": [[1, 2, 11, 12, 0.5]], "hands": [], "split": "train"},
    {"file_name": "deep/b.png", "caption": "two", "faces": None, "hands": [[3, 4, 13, 14]], "split": "val"},
]


def read(path, regions=("face", "hand"), settings=ANY):
    report = LoadReport()
    return read_source(path, regions, settings, report), report


def reasons(report, action=None):
    return [entry.reason for entry in report.notes if action in (None, entry.action)]


def test_jsonl(folder):
    root = folder(ROWS)
    records, report = read(root)
    assert report.notes == []
    first, second = records
    assert (first.key, first.image, first.width, first.height) == ("a.png", root / "a.png", 40, 30)
    assert (first.caption, first.split, first.source, first.location) == ("one", "train", "set", "metadata.jsonl:1")
    assert first.boxes == {"face": (Box(1, 2, 11, 12, 0.5),), "hand": ()}
    assert second.boxes == {"face": None, "hand": (Box(3, 4, 13, 14),)}
    assert (second.key, second.split, second.pose, second.depth) == ("deep/b.png", "val", None, None)


def test_a_folder_per_split(folder):
    """As Hugging Face has it: each with its metadata, whose paths are relative to it."""
    root = folder([])
    (root / "metadata.jsonl").unlink()
    for split in ("train", "test"):
        (root / split).mkdir()
        for name in ("a.png", "mask.png", "depth.png"):
            (root / split / name).write_bytes(encoded(picture(40, 30)))
        row = {"file_name": "a.png", "text": f"of {split}", "faces": [[1, 2, 11, 12]], "depth": "depth.png"}
        row |= {"masks": {"hand": "mask.png", "face": {"path": "mask.png", "labels": [0]}}}
        (root / split / "metadata.jsonl").write_text(json.dumps(row))
    assert source_kind(root) == "imagefolder"
    records, report = read(root)
    assert reasons(report) == ["same picture as another record"]
    assert [(record.key, record.caption, record.split) for record in records] == [
        ("train/a.png", "of train", "train"),
        ("test/a.png", "of test", "test"),
    ]
    for record in records:
        assert record.depth == root / record.split / "depth.png"
        assert record.masks["hand"] == root / record.split / "mask.png"
        assert record.masks["face"] == LabelMap(root / record.split / "mask.png", (0,))
        assert record.location == f"{record.split}/metadata.jsonl:1"


def test_a_folder_of_every_split_that_is_held_out(folder):
    root = folder([])
    (root / "metadata.jsonl").unlink()
    for split in SPLITS:
        (root / split).mkdir()
        (root / split / "metadata.jsonl").write_text("")
    assert {file.parent.name for file in metadata_files(root)} == {"train", *HELD_OUT_SPLITS} >= {"dev", "eval"}


def test_pictures_without_a_line_are_named(folder):
    root = folder([{**ROWS[0], "masks": {"face": "./m.png"}}])
    (root / "m.png").write_bytes(encoded(Image.new("L", (40, 30), 255)))
    assert reasons(read(root)[1]) == []
    (root / "deep").mkdir()
    (root / "deep" / "more.png").write_bytes(encoded(picture(40, 30)))
    (note,) = read(root)[1].notes
    assert (note.action, note.reason) == ("warned", "pictures without a line are not read")
    assert note.value == "1, such as deep/more.png"
    (root / "deep" / "more.png").rename(root / "e\u0301.png")  # é as macOS lists it
    with (root / "metadata.jsonl").open("a", encoding="utf-8") as file:
        file.write('\n{"file_name": "\u00e9.png"}')
    assert "pictures without a line" not in str(read(root)[1].notes)


@pytest.mark.parametrize(("listed", "on_disk"), [("\u00e9.png", "e\u0301.png"), ("e\u0301.png", "\u00e9.png")])
def test_names_are_found_in_either_form_of_unicode(folder, listed, on_disk):
    root = folder([{**ROWS[0], "file_name": f"deep/{listed}", "masks": {"face": f"{listed}"}}])
    (root / "deep" / listed).rename(root / "deep" / on_disk)
    (root / on_disk).write_bytes(encoded(Image.new("L", (40, 30), 255)))
    [record], report = read(root)
    assert (record.image, record.masks["face"]) == (root / "deep" / on_disk, root / on_disk)
    assert report.notes == []


def test_keys_are_unique_and_those_of_every_reader(folder, tmp_path):
    """Of rows that can't be read too; `a#2` is taken by the second a."""
    names = ["gone.png", "1.png", "2.png", "3.png", "4.png"]
    keys = ["a", "a", "a#2", "b#2", "a"]
    root = folder([{"file_name": name, "key": key} for name, key in zip(names, keys, strict=True)])
    (root / "gone.png").unlink()
    unique = ["a", "a#2", "a#2#2", "b#2", "a#3"]
    assert [record.key for record in read(root, ())[0]] == unique[1:]
    assert [record.key for _, record in open_dataset(root).records(LoadReport())] == unique[1:]
    list_source(tmp_path / "manifest", source_format("imagefolder"), root, 9, LoadReport())
    assert [row.key for row in read_block(numbered_files(tmp_path / "manifest")[0])] == unique
    (root / "edits.jsonl").write_text(json.dumps({"n": 1, "at": "2026-11-30", "key": "a#2", "caption": "mine"}))
    assert [record.caption for record in read(root, ())[0]] == ["mine", "", "", ""]


def test_a_caption_is_text_whatever_it_looks_like(folder):
    root = folder([{"file_name": "a.png", "caption": None, "text": "one"}, {"file_name": "b.png", "text": None}])
    assert [record.caption for record in read(root, ())[0]] == ["one", ""]
    (root / "metadata.jsonl").unlink()
    for column in ("text", "caption"):
        (root / "metadata.csv").write_text(f'file_name,{column},faces\na.png,"[""1girl""]","[[1, 2, 9, 9]]"\n')
        (record,) = read(root, ("face",))[0]
        assert (record.caption, record.boxes["face"]) == ('["1girl"]', (Box(1, 2, 9, 9),))


def test_csv_and_parquet_metadata_say_the_same(folder):
    root = folder(ROWS)
    expected = [(record.key, record.caption, record.boxes, record.split) for record in read(root)[0]]
    (root / "metadata.jsonl").unlink()
    with (root / "metadata.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(ROWS[0])
        for row in ROWS:
            cells = [json.dumps(value) if isinstance(value, list) else value for value in row.values()]
            writer.writerow(["" if cell is None else cell for cell in cells])
    assert [(record.key, record.caption, record.boxes, record.split) for record in read(root)[0]] == expected
    (root / "metadata.csv").unlink()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), root / "metadata.parquet")
    assert [(record.key, record.caption, record.boxes, record.split) for record in read(root)[0]] == expected


def test_bare_pictures_with_captions_beside(tmp_path):
    for name in ("b.png", "deep/a.jpg", "c.webp", "notes.md"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        kind = {"jpg": "JPEG", "webp": "WEBP"}.get(name[-4:].strip("."), "PNG")
        (tmp_path / name).write_bytes(encoded(picture(40, 30, len(name)), kind))
    (tmp_path / "b.txt").write_text(" a person \n", encoding="utf-8")
    (tmp_path / "c.txt").write_bytes(b"caf\xe9")
    records, report = read(tmp_path, regions=())
    assert [(record.key, record.caption) for record in records] == [
        ("b.png", "a person"), ("c.webp", ""), ("deep/a.jpg", ""),
    ]  # fmt: skip
    assert sorted(reasons(report)) == ["caption file is not UTF-8", "caption is empty", "caption is empty"]
    with pytest.raises(DataError, match="no record has the region 'face'"):
        read(tmp_path)


def test_a_region_that_is_missing_is_told_beside_those_there(folder):
    rows = [{**row, "logo": [[1, 2, 9, 9]], "logo_by": "me", "clarity": 0.5} for row in ROWS]
    with pytest.raises(DataError, match=r"no record has the region 'nose'.*'masks'; its regions are face, hand, logo;"):
        read(folder(rows), regions=("face", "nose"))


def test_empty_means_unknown(folder):
    records, _ = read(folder(ROWS), settings=SourceSettings(empty_means="unknown"))
    assert records[0].boxes["hand"] is None


def test_user_defined_regions_by_column_or_painted_mask(folder):
    root = folder([{**ROWS[0], "feet": [[1, 1, 9, 9]]}, {**ROWS[1], "masks": {"text": "m.png", "sky": None}}])
    (root / "m.png").write_bytes(encoded(Image.new("L", (40, 30))))
    records, _ = read(root, ("feet", "text"))
    assert records[0].boxes == {"feet": (Box(1, 1, 9, 9),), "text": None}
    assert records[1].masks == {"text": root / "m.png"}
    assert [record.annotated("text") for record in records] == [False, True]
    with pytest.raises(DataError) as caught:
        read(root, ("face", "ears"))
    assert "'ears'" in str(caught.value)
    assert "; its regions are face, feet, hand, text; " in str(caught.value)


def test_a_region_that_is_null_everywhere_is_refused(folder):
    with pytest.raises(DataError, match="no record annotates the region 'feet'"):
        read(folder([{**row, "feet": None} for row in ROWS]), ("feet",))


@pytest.mark.parametrize(
    ("mask", "reason"),
    [
        ("none.png", "does not exist"),
        ("../a.png", "leaves the folder"),
        ("small.png", "not the size of its picture"),
        (7, "neither a path nor a picture"),
    ],
)
def test_painted_masks_that_cannot_be_used_are_dropped(folder, mask, reason):
    root = folder([{**ROWS[0], "masks": {"face": mask}}, {**ROWS[1], "masks": "all"}])
    if mask == "small.png":
        (root / "small.png").write_bytes(encoded(Image.new("L", (20, 16))))
    records, report = read(root)
    assert records[0].masks == {}
    assert records[0].boxes["face"]
    assert [entry.action for entry in report.notes] == ["dropped", "dropped"]
    assert reason in report.notes[0].reason


def test_conditions_are_kept_as_they_are(folder):
    root = folder([{**ROWS[0], "pose": [[1, 2, 0.5]], "depth": "d.png"}, {**ROWS[1], "depth": "../../d.png"}])
    records, report = read(root)
    assert (records[0].pose, records[0].depth) == ([[1, 2, 0.5]], root / "d.png")
    assert records[1].depth is None
    assert reasons(report) == ["path leaves the folder of the data set"]


def test_links_may_not_leave_the_folder(folder, tmp_path):
    root = folder(ROWS)
    outside = tmp_path / "outside.png"
    outside.write_bytes(encoded(picture(40, 30, 9)))
    (root / "a.png").unlink()
    (root / "a.png").symlink_to(outside)
    records, report = read(root, ("hand",))
    assert [record.key for record in records] == ["deep/b.png"]
    assert reasons(report, "skipped") == ["path leaves the folder of the data set"]


@pytest.mark.parametrize("name", ["a\x00b.png", "x" * 5000, "\ud800.png", "", 5, ["a.png"], "deep"])
def test_values_that_are_not_files_are_skipped(folder, name):
    root = folder(ROWS)
    with (root / "metadata.jsonl").open("a", encoding="utf-8") as file:
        file.write("\n" + json.dumps({"file_name": name, "caption": "odd"}))
    records, report = read(root)
    assert len(records) == 2
    assert [(entry.line, entry.action) for entry in report.notes] == [(3, "skipped")]


@pytest.mark.parametrize(
    "line", [b"{", b"[" * 100_000, b'"text"', b"null", b'{"file_name": "\xff"}', b"1" * 5000, b"\xef\xbb\xbf{}x"]
)
def test_lines_that_are_not_records_are_skipped(folder, line):
    root = folder(ROWS)
    lines = (root / "metadata.jsonl").read_bytes().split(b"\n")
    (root / "metadata.jsonl").write_bytes(b"\r\n".join([lines[0], line, b"", lines[1]]))
    records, report = read(root)
    assert [record.location for record in records] == ["metadata.jsonl:1", "metadata.jsonl:4"]
    assert [(entry.line, entry.action) for entry in report.notes] == [(2, "skipped")]


def test_byte_order_mark_of_the_first_line(folder):
    root = folder(ROWS)
    text = (root / "metadata.jsonl").read_bytes()
    (root / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + text)
    assert len(read(root)[0]) == 2


@pytest.mark.parametrize(
    ("fields", "action", "reason"),
    [
        ({"width": 41}, "converted", "size was wrong"),
        ({"width": "40", "height": 30}, "converted", "size was wrong"),
        ({"caption": 5}, "dropped", "caption is not text"),
        ({"caption": "  "}, "warned", "caption is empty"),
        ({"caption": "a \ud800 b"}, "converted", "no Unicode"),
    ],
)
def test_odd_fields_are_named(folder, fields, action, reason):
    records, report = read(folder([{**ROWS[0], **fields}, ROWS[1]]))
    assert (records[0].width, records[0].height) == (40, 30)
    assert [(entry.line, entry.action) for entry in report.notes] == [(1, action)]
    assert reason in report.notes[0].reason
    records[0].caption.encode("utf-8")


def test_keys_stay_unique(folder):
    records, report = read(folder([ROWS[0], {**ROWS[0], "caption": "again"}, {**ROWS[1], "key": "mine"}]))
    assert [record.key for record in records] == ["a.png", "a.png#2", "mine"]
    assert reasons(report) == ["same picture as another record"]


def test_required_columns_are_named(folder):
    root = folder([{"image": "a.png", "caption": "x"}])
    with pytest.raises(DataError, match=r"required column 'file_name'; found the columns caption, image"):
        read(root)


def test_share_of_rejects(folder):
    root = folder(ROWS * 4)
    text = (root / "metadata.jsonl").read_text()
    (root / "metadata.jsonl").write_text(text + "\n{\n{")
    assert len(read(root, settings=SourceSettings(max_reject_share=0.2))[0]) == 8
    (root / "metadata.jsonl").write_text(text + "\n{\n{\n{")
    report = LoadReport()
    with pytest.raises(DataError, match=r"3 of 11 records(.|\n)*metadata.jsonl:9: skipped, line is not JSON"):
        read_source(root, ("face",), SourceSettings(), report)
    assert len(report.skipped()) == 3  # the report is complete even so


def test_missing_sources_are_rejected(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read(tmp_path / "none")
    with pytest.raises(DataError, match=r"no picture in .*, which is empty"):
        read(tmp_path)
    (tmp_path / "metadata.jsonl").touch()
    with pytest.raises(DataError, match="no usable record"):
        read(tmp_path)


@pytest.mark.parametrize("bare", [False, True])
def test_pictures_that_cannot_be_read_are_skipped(folder, bare):
    names = ["dangling.png", "folder.png", "good.png", "loop.png", "pipe.png"]
    root = folder([{"file_name": name, "caption": "x"} for name in names])
    for name in set(names) - {"good.png"}:
        (root / name).unlink()
    (root / "dangling.png").symlink_to(root / "nowhere.png")
    (root / "folder.png").mkdir()
    (root / "loop.png").symlink_to(root / "loop.png")
    os.mkfifo(root / "pipe.png")
    if bare:
        (root / "metadata.jsonl").unlink()
    records, report = read(root, ())
    assert [record.key for record in records] == ["good.png"]
    irregular = "can't be read: not a regular file"
    loop = "not a path" if sys.version_info < (3, 13) else "can't be read: Too many levels of symbolic links"
    expected = ["file does not exist", irregular, loop, irregular]
    if bare:  # a folder is no picture there, whatever its name
        expected.remove(irregular)
    assert reasons(report, "skipped") == expected


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"file_name,caption\na.png,gr\xfcn\n", r"metadata\.csv: must be UTF-8, but isn't at b'.*a.png,gr\\xfc'"),
        (b"file_name,caption\na.png," + b"x" * 200_000, r"metadata\.csv: not a CSV table: field larger than"),
    ],
)
def test_a_table_that_is_no_text_or_no_csv_is_named(tmp_path, content, message):
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "metadata.parquet"])
@pytest.mark.parametrize("what", ["folder", "dangling", "pipe"])
def test_metadata_that_cannot_be_read_is_named(folder, name, what):
    root = folder(ROWS)
    (root / "metadata.jsonl").unlink()
    match what:
        case "folder":
            (root / name).mkdir()
        case "dangling":
            (root / name).symlink_to(root / "nowhere")
        case "pipe":
            os.mkfifo(root / name)
    with pytest.raises(DataError, match=rf"set/{name}: can't be read: "):
        read(root)


def test_pictures_that_vanish_while_they_are_compared(folder):
    rows = [{"file_name": f"{i}.png", "caption": "x"} for i in range(4)]
    records, _ = read(folder(rows), ())
    for record in records[1:]:  # all of one length, so that all are read
        record.image.write_bytes(records[0].image.read_bytes())
    records[2].image.unlink()
    report = LoadReport()
    same = [replace(record, origin="0.png") for record in (records[1], records[3])]
    assert _compare_pictures(records, report) == [records[0], *same]
    assert reasons(report, "skipped") == ["file does not exist"]
    assert len(reasons(report, "warned")) == 2


AS_NOBODY = """
import os, sys
from pathlib import Path
from fairhuman.data.sources.check import check_records
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError

root, private = map(Path, sys.argv[1:])
report, settings = LoadReport(), SourceSettings(max_reject_share=1.0)
read_source(root, (), settings, LoadReport())  # all that is loaded late is loaded now
private.chmod(0o000)
if os.getuid() == 0:
    os.setuid(65534)
try:
    records = check_records(read_source(root, (), settings, report), report, True, max_reject_share=1.0)
    print([record.key for record in records])
except DataError as error:
    print(error)
print(*report.notes, sep="\\n")
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions of files are those of POSIX")
@pytest.mark.parametrize("private", ["a.png", "metadata.jsonl", "."])
def test_files_of_another_user(folder, private):
    with tempfile.TemporaryDirectory() as place:  # tmp_path is closed to others as a whole
        Path(place).chmod(0o755)
        root = Path(shutil.copytree(folder(ROWS), Path(place) / "set"))
        for path in (root, *root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        arguments = [sys.executable, "-c", AS_NOBODY, root, root / private]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        root.chmod(0o755)
    assert done.returncode == 0, done.stderr
    if private == "a.png":
        assert done.stdout.splitlines() == [
            "['deep/b.png']",
            "metadata.jsonl:1: skipped, can't be read: Permission denied (a.png)",
        ]
    else:
        assert "Permission denied" in done.stdout
        assert f"{root / 'metadata.jsonl'}" in done.stdout or private == "."


def test_persons_attributes_and_maps_of_labels(folder):
    table, here = {"age": 30, "tags": ["a"]}, {"path": "m.png"}
    rows = [
        {**ROWS[0], "persons": [[0, 0, 40, 30]], "attributes": table, "masks": {"face": {**here, "labels": [2]}}},
        {**ROWS[1], "persons": None, "attributes": json.dumps(table), "masks": {"face": {"labels": "2"}}},
    ]  # fmt: skip
    root = folder(rows)
    (root / "m.png").write_bytes(encoded(Image.new("L", (40, 30), 2)))
    (first, second), report = read(root, ("face", "person"))
    assert (first.boxes["person"], second.boxes["person"]) == ((Box(0, 0, 40, 30),), None)
    assert first.attributes == second.attributes == table
    assert first.masks == {"face": LabelMap(root / "m.png", (2,))}
    assert second.masks == {}
    assert reasons(report) == ["labels of a mask are not a list of whole numbers"]


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
def test_a_file_without_ends_of_lines_is_not_read_at_once(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(DataError, match=rf"{name}: line 1 must have at most 16,777,216 bytes"):
        read(tmp_path)


def test_a_huge_caption_is_left_out(tmp_path):
    (tmp_path / "a.png").write_bytes(encoded(picture(40, 30)))
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(2**40)
    records, report = read(tmp_path, ())
    assert records[0].caption == ""
    assert "caption file is too long" in reasons(report, "dropped")


@pytest.mark.parametrize("texts", [False, True])
def test_half_surrogates_are_replaced_in_all_that_is_written(tmp_path, texts):
    (tmp_path / "a.png").write_bytes(encoded(picture(40, 30)))
    half = "\ud800"
    attributes = {half: [half, {"deep": half}]}
    row = {"file_name": "a.png", "split": half, "masks": {half: "a.png"}, f"{half}s": [[1, 2, 11, 12]]}
    row["attributes"] = json.dumps(attributes) if texts else attributes
    (tmp_path / "metadata.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (record,), report = read(tmp_path, ("?", "?s"))
    assert (record.split, record.attributes) == ("?", {"?": ["?", {"deep": "?"}]})
    assert (set(record.masks), record.boxes["?s"]) == ({"?"}, (Box(1, 2, 11, 12),))
    assert "column holds characters that are no Unicode" in reasons(report, "converted")
