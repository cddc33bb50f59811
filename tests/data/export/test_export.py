"""`data export`: what is written is what was read, by our own readers and by other people's."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import filelock
import numpy as np
import pytest
from PIL import Image
from webdataset.autodecode import Decoder, imagehandler
from webdataset.tariterators import group_by_keys, tar_file_expander

from fairhuman.data.condition.people import people_from_source, people_to_list
from fairhuman.data.export.run import FORMATS, MARKER, export_dataset
from fairhuman.data.pictures.decode import decode, decode_mask
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import read_bytes
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError, FairHumanError, RecipeError
from fairhuman.record import Box
from helpers.tiny_pictures import encoded, picture
from helpers.trainer_folders import TRAINERS

REGIONS = ("face", "hand", "person", "tail")
POSE = [[float(p), 2.0 * p, 0.5] for p in range(17)]
NAMES = ["a b/写真 😀.png", "a_b/写真 😀.png", "test_1.png", "plain.png"]


def lines():
    common = {"caption": "somebody", "persons": None}
    return [
        {
            **common,
            "faces": [[1, 2, 11, 12, 0.5]],
            "hands": None,
            "masks": {"face": "m.png"},
            "pose": POSE,
            "split": "val",
        },
        {**common, "faces": [], "hands": [[3, 4, 20, 21]], "masks": {"tail": "map.png"}, "depth": "d.png"},
        {**common, "faces": None, "hands": [], "key": "a.b.c", "attributes": {"age": 3, "depth_kind": "relative"}},
        {**common, "faces": [[0, 0, 40, 30]], "persons": [[0, 0, 9, 9]], "caption": "", "tags": ["x", float("nan")]},
    ]


@pytest.fixture
def people(tmp_path) -> Path:
    """Four pictures of 40x30 with everything that a record can have; names that are one without their signs."""
    root = tmp_path / "people"
    for i, (name, line) in enumerate(zip(NAMES, lines(), strict=True)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(picture(40, 30, i)))
        line["file_name"] = name
        if (line.get("masks") or {}).get("tail"):
            line["masks"]["tail"] = {"path": "map.png", "labels": [3, 4]}
        with (root / "metadata.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    numbers = np.arange(1200, dtype=np.uint16).reshape(30, 40)
    Image.fromarray((numbers % 7).astype(np.uint8)).save(root / "map.png")
    Image.fromarray((numbers % 2 * 255).astype(np.uint8)).save(root / "m.png")
    Image.fromarray(numbers * 50).save(root / "d.png")
    return root


def read(path):
    report = LoadReport()
    return read_source(path, REGIONS, SourceSettings(), report)


def content(record, scores=True):
    """All of a record but where it is."""

    def without(boxes):
        return boxes if boxes is None or scores else tuple(replace(box, score=None) for box in boxes)

    pose = people_to_list(people_from_source(record.pose)) if record.pose is not None else None
    return {
        "key": record.key,
        "size": (record.width, record.height),
        "caption": record.caption,
        "boxes": {name: without(boxes) for name, boxes in record.boxes.items()},
        "masks": {name: np.asarray(decode_mask(mask)).tolist() for name, mask in record.masks.items()},
        "pixels": np.asarray(decode(record.image).picture).tolist(),
        "pose": pose,
        "depth": read_bytes(record.depth) if record.depth is not None else None,
        "split": record.split,
        "attributes": {**record.attributes},
    }


def files(folder):
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("format", FORMATS)
def test_our_own_reader_finds_the_same_records(people, tmp_path, format):
    summary = export_dataset(people, tmp_path / "out", format, shard_rows=3)
    assert summary.records == 4
    assert not {"skipped", "dropped"} & set(summary.report.counts())
    expected, found = read(people), read(tmp_path / "out")
    assert len(expected) == len(found) == 4
    for one, other in zip(expected, found, strict=True):
        wanted = content(one, scores=format != "parquet")
        if one.key == "plain.png":  # a column that the format of data sets doesn't know; NaN isn't JSON
            wanted["attributes"]["tags"] = ["x", None]
        assert content(other) == wanted
    assert found[0].boxes["hand"] is None
    assert found[1].boxes["face"] == ()
    assert [bool(record.masks) for record in found] == [True, True, False, False]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("trainer", TRAINERS)
def test_the_masks_of_other_trainers_are_exported(tmp_path, trainer, format):
    source = TRAINERS[trainer][0](tmp_path / "photos")
    export_dataset(source, tmp_path / "out", format)
    expected, found = (read_source(place, (), SourceSettings(), LoadReport()) for place in (source, tmp_path / "out"))
    assert any("ignore" in record.masks for record in expected)
    assert [content(one)["masks"] for one in found] == [content(one)["masks"] for one in expected]


@pytest.mark.parametrize("format", FORMATS)
def test_the_same_export_gives_the_same_bytes_and_replaces_the_old_one(people, tmp_path, format):
    out = tmp_path / "out"
    export_dataset(people, out, format, shard_rows=1)
    before = files(out)
    export_dataset(people, out, format, shard_rows=1)
    export_dataset(people, tmp_path / "other", format, shard_rows=1)
    assert files(out) == files(tmp_path / "other") == before
    export_dataset(people, out, format, shard_rows=4)
    assert format == "imagefolder" or len(files(out)) == len(before) - 3
    assert {path.name for path in tmp_path.iterdir() if "out" in path.name} == {"out", ".out.lock"}


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_of_an_export_loses_nothing(people, tmp_path, format):
    for first in FORMATS:
        export_dataset(people, tmp_path / first, first)
        export_dataset(tmp_path / first, tmp_path / f"{first}-{format}", format)
        one, other = read(tmp_path / first), read(tmp_path / f"{first}-{format}")
        scores = format != "parquet"
        assert [content(record) for record in other] == [content(record, scores) for record in one]


def test_the_webdataset_library_reads_the_shards(people, tmp_path):
    export_dataset(people, tmp_path / "out", "webdataset", shard_rows=3)
    urls = [str(path) for path in sorted((tmp_path / "out").glob("*.tar"))]
    assert len(urls) == 2
    with ExitStack() as stack:
        streams = [{"url": url, "stream": stack.enter_context(Path(url).open("rb"))} for url in urls]
        decoder = Decoder([imagehandler("pil")])
        found = [decoder(sample) for sample in group_by_keys(tar_file_expander(streams))]
    assert [sample["json"]["key"] for sample in found] == [NAMES[0], NAMES[1], "a.b.c", "plain.png"]
    assert found[0]["json"]["faces"] == [[1.0, 2.0, 11.0, 12.0, 0.5]]
    assert found[0]["json"]["hands"] is None
    assert found[0]["txt"] == "somebody"
    assert found[0]["mask.face.png"].size == (40, 30)
    assert np.asarray(found[1]["png"]).shape == (30, 40, 3)
    assert "depth.png" in found[1]
    for url in urls:
        with tarfile.open(url) as tar:
            members = tar.getmembers()
        assert all((member.mtime, member.uid, member.gid, member.uname) == (0, 0, 0, "") for member in members)
        assert len({member.name for member in members}) == len(members)


def test_hugging_face_shows_pictures_and_boxes_of_an_imagefolder(people, tmp_path):
    import datasets

    export_dataset(people, tmp_path / "out", "imagefolder")
    loaded = datasets.load_dataset(
        "imagefolder", data_dir=str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache")
    )
    assert [row["image"].size for row in loaded] == [(40, 30)] * 4
    assert [row["faces"] for row in loaded] == [[[1, 2, 11, 12, 0.5]], [], None, [[0, 0, 40, 30]]]
    assert loaded["key"][:3] == [NAMES[0], NAMES[1], "a.b.c"]


def test_hugging_face_shows_pictures_boxes_and_masks_of_parquet(people, tmp_path):
    import datasets

    export_dataset(people, tmp_path / "out", "parquet", shard_rows=3)
    tables = [str(path) for path in sorted((tmp_path / "out/data").iterdir())]
    loaded = datasets.load_dataset("parquet", data_files=tables, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].size == (40, 30)
    assert (loaded[0]["faces"], loaded[0]["face_scores"], loaded[0]["face_by"]) == ([[1, 2, 11, 12]], [0.5], "source")
    assert loaded[0]["masks"]["face"].size == (40, 30)
    assert set(loaded[0]["masks"]) == {"face", "hand", "person", "tail"}


def test_scores_and_votes_of_a_build_are_exported_with_its_boxes(people, tmp_path):
    """A Parquet set's scores are no part of its boxes: they go on as columns."""
    export_dataset(people, tmp_path / "table", "parquet")
    export_dataset(tmp_path / "table", tmp_path / "out", "imagefolder")
    first = json.loads((tmp_path / "out/metadata.jsonl").read_text().splitlines()[0])
    assert (first["faces"], first["face_scores"], first["face_by"]) == ([[1, 2, 11, 12]], [0.5], "source")


def test_pictures_leave_upright_and_plain(tmp_path):
    root = tmp_path / "odd"
    root.mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20), "red").save(root / "turned.jpg", exif=exif)
    Image.new("RGBA", (20, 20), (0, 0, 255, 0)).save(root / "clear.webp", lossless=True)
    export_dataset(root, tmp_path / "out", "imagefolder")
    with (
        Image.open(tmp_path / "out/images/turned.jpg") as turned,
        Image.open(tmp_path / "out/images/clear.png") as clear,
    ):
        assert (turned.size, dict(turned.getexif())) == ((20, 40), {})
        assert (clear.mode, clear.getpixel((3, 3))) == ("RGB", (255, 255, 255))


def test_a_pose_that_is_a_picture(people, tmp_path):
    """It stays a picture; where there are key points it isn't written, since readers would take it instead."""
    (people / "pose.png").write_bytes(encoded(picture(40, 30, 9)))
    (people / "metadata.jsonl").write_text(json.dumps({"file_name": "plain.png", "caption": "x", "pose": "pose.png"}))
    for format in ("webdataset", "imagefolder"):
        export_dataset(people, tmp_path / format, format)
        (record,) = read_source(tmp_path / format, (), SourceSettings(), LoadReport())
        assert read_bytes(record.pose) == (people / "pose.png").read_bytes()


def test_bad_records_are_left_out_and_named(shared, tmp_path):
    summary = export_dataset(shared / "data" / "bad", tmp_path / "out", "webdataset")
    assert summary.records == 21
    assert sum(summary.report.counts()["skipped"].values()) == 12
    found = read_source(tmp_path / "out", ("face", "hand"), SourceSettings(), LoadReport())
    assert found[0].boxes["face"] == (Box(139.5, 49.0, 183.1, 92.6, 0.79),)
    assert "14 file name with spaces – ünïcödé 写真 😀.jpg" in [record.key for record in found]


def test_regions_that_no_member_can_be_named_after(people, tmp_path):
    line = {"file_name": "plain.png", "caption": "x", "masks": {"Left.Hand/../x": "m.png"}}
    (people / "metadata.jsonl").write_text(json.dumps(line))
    summary = export_dataset(people, tmp_path / "tar", "webdataset")
    assert summary.report.counts()["dropped"] == {"mask's region can't be part of a member's name": 1}
    export_dataset(people, tmp_path / "out", "imagefolder")
    assert [path.name for path in (tmp_path / "out/masks").iterdir()] == ["plain.Left_Hand_x.png"]


@pytest.mark.parametrize("format", FORMATS)
def test_boxes_of_any_region_are_exported(people, tmp_path, format):
    (people / "metadata.jsonl").write_text(
        json.dumps({"file_name": "plain.png", "caption": "x", "foot": [[1, 2, 9, 9]]})
    )
    for number, named in enumerate([["foot"], []]):
        export_dataset(people, tmp_path / f"out{number}", format, regions=named)
        (record,) = read_source(tmp_path / f"out{number}", ("foot",), SourceSettings(), LoadReport())
        assert record.boxes == {"foot": (Box(1, 2, 9, 9),)}
        assert record.attributes == {}


def test_folders_with_other_content_are_rejected(people, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "diary.txt").write_text("mine")
    with pytest.raises(DataError, match="must be empty or hold an export of"):
        export_dataset(people, out, "parquet")
    assert (out / "diary.txt").read_text() == "mine"
    (out / "diary.txt").unlink()
    export_dataset(people, out, "parquet")
    before = files(out)
    for format, source in (("webdataset", people), ("parquet", tmp_path / "other")):
        source.mkdir(exist_ok=True)
        (source / "b.png").write_bytes(encoded(picture(40, 30)))
        with pytest.raises(DataError, match="must be empty or hold an export"):
            export_dataset(source, out, format)
    (out / MARKER).write_text("[1]")
    with pytest.raises(DataError, match="must be empty or hold an export"):
        export_dataset(people, out, "parquet")
    assert {**files(out), MARKER: before[MARKER]} == before


@pytest.mark.parametrize("inside", [".", "out", "deep/er", ".."])
def test_the_source_is_never_written_into(people, inside):
    before = files(people)
    with pytest.raises(DataError, match=r"lies in the data set|contains it"):
        export_dataset(people, people / inside, "imagefolder")
    assert files(people) == before


def test_a_failure_leaves_what_was_there(people, tmp_path):
    out = tmp_path / "out"
    export_dataset(people, out, "webdataset")
    before = files(out)
    for path in people.glob("**/*.png"):
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="no usable record"):
        export_dataset(people, out, "webdataset")
    assert files(out) == before
    assert not (tmp_path / ".out.partial").exists()


def test_two_at_once_are_refused(people, tmp_path):
    with (
        filelock.FileLock(tmp_path / ".out.lock"),
        pytest.raises(DataError, match="another export is running in this folder"),
    ):
        export_dataset(people, tmp_path / "out", "parquet")


AS_NOBODY = """
import os, sys
from pathlib import Path
from fairhuman.data.export.run import export_dataset
from fairhuman.errors import FairHumanError

people, place = map(Path, sys.argv[1:])
export_dataset(people, place / "out", "parquet")  # all that is loaded late is loaded now
(place / "locked").mkdir(mode=0o555)
if os.getuid() == 0:
    os.setuid(65534)
try:
    export_dataset(people, place / "locked" / "out", "parquet")
except FairHumanError as error:
    print(error)
"""


@pytest.mark.skipif(not hasattr(os, "setuid"), reason="permissions of files are those of POSIX")
def test_folders_that_are_read_only(people):
    with tempfile.TemporaryDirectory() as name:  # tmp_path is closed to others as a whole
        place = Path(name)
        copied = shutil.copytree(people, place / "people")
        for path in (place, copied, *copied.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        arguments = [sys.executable, "-c", AS_NOBODY, copied, place]
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert f"{place}/locked/out: can't be written: Permission denied" in done.stdout


def test_invalid_arguments_are_rejected(people, tmp_path):
    with pytest.raises(FairHumanError, match="/proc/out: can't be written"):
        export_dataset(people, Path("/proc/out"), "webdataset")
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file", tmp_path / "file/out"):
        with pytest.raises(FairHumanError, match=r"file[^:]*: (isn't a folder|can't be written)"):
            export_dataset(people, out, "webdataset")
    with pytest.raises(RecipeError, match="did you mean 'webdataset'"):
        export_dataset(people, tmp_path / "out", "webdatasets")
    with pytest.raises(ValueError, match="shard_rows must be at least 1, not 0"):
        export_dataset(people, tmp_path / "out", "parquet", shard_rows=0)


def test_progress_counts_what_was_written(people, tmp_path):
    told = []
    export_dataset(people, tmp_path / "out", "webdataset", progress=lambda *what: told.append(what))
    assert told == [("export", number, None) for number in (1, 2, 3, 4)]
