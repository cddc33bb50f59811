"""Whole builds of small sources: what is in the data set, what is left out and why, and what a second build does."""

import io
import json
import os
import shutil
from contextlib import nullcontext
from dataclasses import replace
from itertools import islice

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from fairhuman.data.export.run import export_dataset
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import DAMAGED, read_bytes
from fairhuman.data.pipeline import write
from fairhuman.data.pipeline.detect import DetectTier
from fairhuman.data.pipeline.engine import run_tasks
from fairhuman.data.pipeline.run import Workers, build_dataset, plan_build
from fairhuman.data.pipeline.tier import TierResult
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.check import check_records
from fairhuman.errors import DataError
from fairhuman.record import Box, region_column
from helpers.damage import flip_in
from helpers.formats import FORMATS
from helpers.small_builds import build, contents, rejected, rows, settings
from helpers.tiny_pictures import encoded, picture


@pytest.fixture
def photos(tmp_path):
    """Fourteen pictures; number 3 is cut off, 5 is the same as 4, the others have a caption, a face or both."""
    root = tmp_path / "photos"
    root.mkdir()
    lines = []
    for i in range(14):
        data = encoded(picture(40 + i, 64, 4 if i == 5 else i))
        if i == 5:
            data = (root / "04.png").read_bytes()
        (root / f"{i:02}.png").write_bytes(data[: len(data) // 2] if i == 3 else data)
        row = {"file_name": f"{i:02}.png", "caption": f"person {i}", "faces": [[4, 5, 20, 25, 0.5]] if i % 2 else None}
        lines.append(json.dumps(row))
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n{half")
    return root


def test_kept_rows_hold_the_source_s_annotations(photos, tmp_path):
    built = build(photos, tmp_path / "out")
    found = rows(tmp_path / "out")
    assert [row["key"] for row in found] == [f"{i:02}.png" for i in range(14) if i not in (3, 5)]
    for row in found:
        i = int(row["key"][:2])
        assert row["image"]["bytes"] == (photos / row["key"]).read_bytes()
        assert (row["width"], row["height"], row["source"]) == (40 + i, 64, "photos")
        assert (row["caption"], row["caption_by"], row["source_caption"]) == (f"person {i}", "text", f"person {i}")
        assert row["faces"] == ([[4, 5, 20, 25]] if i % 2 else None)
        assert row["face_scores"] == ([0.5] if i % 2 else None)
        assert row["face_by"] == ("source" if i % 2 else None)
        assert (row["hands"], row["hand_by"], row["pose"], row["depth"]) == (None, None, None, None)
    assert [len(pyarrow.parquet.read_table(p)) for p in sorted((tmp_path / "out/data").iterdir())] == [6, 6]
    assert (built.report["kept"], built.before) == (12, None)
    assert json.loads((tmp_path / "out/report.json").read_text()) == json.loads(json.dumps(built.report))


def test_rejected_rows_have_a_reason_and_a_value(photos, tmp_path):
    built = build(photos, tmp_path / "out", "min_aspect=0.68")
    assert [tuple(row.values()) for row in rejected(tmp_path / "out")][:3] == [
        (
            "",
            "metadata.jsonl:15",
            "read",
            "line is not JSON",
            "Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
        ),
        ("00.png", "metadata.jsonl:1", "filter", "width through height below 0.68", "0.625"),
        ("01.png", "metadata.jsonl:2", "filter", "width through height below 0.68", "0.640625"),
    ]
    assert built.report["rejected"] == {
        "check": {"picture is cut off or damaged": 1},
        "duplicate": {"same picture as another": 1},
        "filter": {"width through height below 0.68": 3},
        "read": {"line is not JSON": 1},
    }
    assert [step["rows"] for step in built.report["funnel"]] == [15, 14, 13, 13, 10, 9, 9, 9]
    assert sum(map(sum, (reasons.values() for reasons in built.report["rejected"].values()))) + 9 == 15


def test_the_product_does_not_depend_on_workers_or_blocks(photos, tmp_path):
    build(photos, tmp_path / "one")
    build_dataset(photos, tmp_path / "two", settings("block_rows=3"), Workers(2))
    for name in ("data", "rejected"):
        one, two = (sorted((tmp_path / n / name).iterdir()) for n in ("one", "two"))
        tables = [pyarrow.concat_tables([pyarrow.parquet.read_table(p) for p in paths]) for paths in (one, two)]
        assert tables[0].equals(tables[1])


def test_a_second_build_does_nothing(photos, tmp_path):
    build(photos, tmp_path / "out")
    before = {
        path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.parquet") if "rejected" not in path.parts
    }
    built = build(photos, tmp_path / "out")
    assert (built.listing.new, built.listing.changed, built.listing.gone) == (0, 0, 0)
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_another_threshold_reads_no_picture_again(photos, tmp_path):
    build(photos, tmp_path / "out")
    tiers = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/tiers").rglob("*.parquet")}
    fewer = build(photos, tmp_path / "out", "min_aspect=0.68")
    assert (fewer.report["kept"], fewer.before) == (9, 12)
    assert build(photos, tmp_path / "out").report["kept"] == 12
    checks = [path for path in tiers if path.parent.name.startswith("check")]
    assert checks
    assert all(path.stat().st_mtime_ns == tiers[path] for path in checks)
    build(photos, tmp_path / "fresh")
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_percentile_is_of_the_pictures_that_passed_the_check(photos, tmp_path):
    built = build(photos, tmp_path / "out", "min_clarity_percentile=50")
    (rule,) = built.report["filters"]
    clarities = sorted(row["clarity"] for row in rows(tmp_path / "out"))
    assert rule["name"] == "clarity"
    assert clarities[0] >= rule["low"] - 1e-3
    assert len(clarities) in (6, 7)


def test_sources_that_change_are_noticed(photos, tmp_path):
    out = tmp_path / "out"
    build(photos, out)
    (photos / "00.png").write_bytes(encoded(picture(50, 64, 99)))
    (photos / "01.png").unlink()
    (photos / "20.png").write_bytes(encoded(picture(40, 64, 20)))
    with (photos / "metadata.jsonl").open("a") as file:
        file.write("\n" + json.dumps({"file_name": "20.png", "caption": "new"}))
    listing = build(photos, out).listing
    assert (listing.new, listing.changed, listing.gone) == (1, 2, 0)
    found = {row["key"]: row for row in rows(out)}
    assert found["00.png"]["width"] == 50
    assert found["20.png"]["caption"] == "new"
    assert "01.png" not in found
    assert rejected(out)[1]["reason"] == "file does not exist"


@pytest.fixture
def plain(tmp_path):
    """Pictures whose files keep their size when the pixels change."""
    root = tmp_path / "plain"
    root.mkdir()
    for i in range(5):
        picture(20 + i, 20, i).save(root / f"{i}.bmp")
        (root / f"{i}.txt").write_text("x")
    return root


def spoil(path):
    """Turn a BMP's pixels around, with its size and time as they were."""
    stat, data = path.stat(), path.read_bytes()
    path.write_bytes(data[:54] + data[54:][::-1])
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def test_a_picture_changed_with_equal_size_and_time_is_noticed_by_its_hash(plain, tmp_path):
    out = tmp_path / "out"
    build(plain, out)
    spoil(plain / "3.bmp")
    shutil.rmtree(out / "data")
    assert build(plain, out).listing.changed == 0, "size and time say nothing"
    build(plain, tmp_path / "fresh")
    assert contents(out) == contents(tmp_path / "fresh")


def test_a_picture_that_keeps_changing_is_rejected(plain, tmp_path, monkeypatch):
    read = write.read_checked_bytes

    def restless(record, sha256):
        if record.key == "3.bmp":
            spoil(record.image)
        return read(record, sha256)

    monkeypatch.setattr(write, "read_checked_bytes", restless)
    with pytest.raises(DataError, match=r"plain: 1 picture changed during the build; run the same command again"):
        build(plain, tmp_path / "out", "block_rows=1", "shard_rows=1")
    monkeypatch.setattr(write, "read_checked_bytes", read)
    assert build(plain, tmp_path / "out", "block_rows=1", "shard_rows=1").report["kept"] == 5


def test_pictures_are_stored_upright_and_plain(tmp_path):
    """Every reader then sees the same pixels in the frame of the boxes."""
    root = tmp_path / "odd"
    root.mkdir()
    turned = Image.new("RGB", (40, 20), "red")
    exif = Image.Exif()
    exif[0x0112] = 6
    turned.save(root / "turned.jpg", exif=exif)
    Image.new("RGBA", (20, 20), (0, 0, 255, 0)).save(root / "clear.png")
    Image.new("CMYK", (20, 20), (0, 255, 255, 0)).save(root / "cmyk.jpg")
    Image.fromarray(np.full((20, 20), 33668, np.uint16)).save(root / "grey16.png")
    Image.new("L", (20, 20), 77).save(root / "grey.png")
    for path in sorted(root.iterdir()):
        path.with_suffix(".txt").write_text("x")
    build(root, tmp_path / "out")
    stored = {row["key"]: row for row in rows(tmp_path / "out")}
    opened = {key: Image.open(io.BytesIO(row["image"]["bytes"])) for key, row in stored.items()}
    assert {key: (image.format, image.mode, image.size) for key, image in opened.items()} == {
        "clear.png": ("PNG", "RGB", (20, 20)),
        "cmyk.jpg": ("JPEG", "RGB", (20, 20)),
        "grey.png": ("PNG", "L", (20, 20)),
        "grey16.png": ("PNG", "RGB", (20, 20)),
        "turned.jpg": ("JPEG", "RGB", (20, 40)),
    }
    assert 0x0112 not in opened["turned.jpg"].getexif()
    assert opened["clear.png"].getpixel((5, 5)) == (255, 255, 255)
    assert opened["grey16.png"].getpixel((5, 5)) == (131, 131, 131)
    assert stored["grey.png"]["image"]["bytes"] == (root / "grey.png").read_bytes()


def test_a_painted_mask_counts_as_one_face_hand_or_person(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    (root / "mask.png").write_bytes(encoded(Image.new("L", (40, 40), 255)))
    lines = []
    for i, region in enumerate(("face", "hand", "person", "shoes")):
        (root / f"{i}.png").write_bytes(encoded(picture(40, 40, i)))
        lines.append({"file_name": f"{i}.png", "caption": region, "masks": {region: "mask.png"}})
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    build(root, tmp_path / "out", "needs=[people]")
    assert [row["caption"] for row in rows(tmp_path / "out")] == ["face", "hand", "person"]
    build(root, tmp_path / "out", "min_persons=1", "max_persons=1")
    assert [row["caption"] for row in rows(tmp_path / "out")] == ["person"]


def test_painted_masks_keep_their_names(tmp_path):
    """Masks are in columns that the trainer reads, and masks with the same stem don't overwrite each other."""
    root = tmp_path / "set"
    lines = []
    for i, folder in enumerate(("a", "b")):
        (root / folder).mkdir(parents=True)
        (root / folder / "p.png").write_bytes(encoded(picture(40, 30, i)))
        (root / folder / "p.jpg").write_bytes(encoded(picture(40, 30, i + 2), "JPEG"))
        for suffix in ("png", "jpg"):
            mask = f"{folder}/p.{suffix}.face.png"
            Image.new("L", (40, 30), 50 * len(lines) + 50).save(root / mask)
            lines.append(
                json.dumps(
                    {"file_name": f"{folder}/p.{suffix}", "caption": "x", "masks": {"face": mask, "left_hand": mask}}
                )
            )
    (root / "metadata.jsonl").write_text("\n".join(lines))
    build(root, tmp_path / "out")
    records = read_source(tmp_path / "out", ("face",), SourceSettings(), LoadReport())
    assert [record.key for record in records] == ["a/p.png", "a/p.jpg", "b/p.png", "b/p.jpg"]
    for number, record in enumerate(records):
        assert Image.open(io.BytesIO(read_bytes(record.masks["face"]))).getpixel((0, 0)) == 50 * number + 50
    assert set(rows(tmp_path / "out")[0]["masks"]) == {"face", "hand", "left_hand", "person"}


@pytest.mark.parametrize("format", ["imagefolder", "webdataset", "parquet"])
def test_own_regions_come_through_the_build_and_every_export(tmp_path, format):
    """Boxes that only the second row has, painted masks, and the region `ignore`."""
    root = tmp_path / "photos"
    root.mkdir()
    lines = [
        {"file_name": "a.png", "caption": "x", "shoes": None, "masks": {"ignore": "m.png"}, "tags": [[1, 2], [3, 4]]},
        {"file_name": "b.png", "caption": "y", "shoes": [[1, 2, 9, 12, 0.5]], "ignore": [[0, 0, 5, 5]], "faces": []},
    ]
    for number, line in enumerate(lines):
        (root / line["file_name"]).write_bytes(encoded(picture(40, 30, number)))
    Image.new("L", (40, 30), 200).save(root / "m.png")
    (root / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    built = build(root, tmp_path / "people")
    assert built.listing.own_regions == ("ignore", "shoes")
    assert built.report["regions"] == ["face", "hand", "person", "ignore", "shoes"]
    assert [row["shoes_by"] for row in rows(tmp_path / "people")] == [None, "source"]
    export_dataset(tmp_path / "people", tmp_path / "out", format)
    regions = ("ignore", "shoes")
    for path in (root, tmp_path / "people", tmp_path / "out"):
        a, b = read_source(path, regions, SourceSettings(), LoadReport())
        assert a.boxes == {"shoes": None, "ignore": None}
        assert Image.open(io.BytesIO(read_bytes(a.masks["ignore"]))).getpixel((0, 0)) == 200
        assert {name: [replace(box, score=None) for box in found] for name, found in b.boxes.items()} == {
            "shoes": [Box(1, 2, 9, 12)],
            "ignore": [Box(0, 0, 5, 5)],
        }


def test_the_trainer_reads_what_was_built(photos, tmp_path):
    build(photos, tmp_path / "out")
    report = LoadReport()
    records = check_records(read_source(tmp_path / "out", ("face",), SourceSettings(), report), report, full=True)
    assert len(records) == 12
    assert report.counts() == {}
    first = next(record for record in records if record.key == "01.png")
    assert (first.boxes["face"], first.caption) == ((Box(4, 5, 20, 25),), "person 1")


def test_hugging_face_shows_pictures_and_boxes(photos, tmp_path):
    import datasets

    build(photos, tmp_path / "out")
    files = [str(path) for path in sorted((tmp_path / "out/data").iterdir())]
    loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[1]["image"].size == (41, 64)
    assert loaded[1]["faces"] == [[4, 5, 20, 25]]
    assert loaded.features["masks"]["face"] == datasets.Image()


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_builds(name, tmp_path):
    """What the source annotates arrives; `test_formats` trains on the sources themselves."""
    FORMATS[name](tmp_path / "source", 6)
    build(tmp_path / "source", tmp_path / "out", "caption.kind=template", "duplicates=keep", "max_failed_share=1")
    given = {r.key: r for r in read_source(tmp_path / "source", (), SourceSettings(), LoadReport())}
    report = LoadReport()
    regions = [
        r
        for r in ("face", "hand", "person")
        if any(row[region_column(r)] is not None for row in rows(tmp_path / "out"))
    ]
    for record in read_source(tmp_path / "out", regions, SourceSettings(), report):
        assert record.caption
        assert (record.width, record.height) == (given[record.key].width, given[record.key].height)
        assert record.attributes == given[record.key].attributes
    assert report.skipped() == []


def test_captions_that_were_cut_are_counted(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    for i, words in enumerate((5, 200)):
        (root / f"{i}.png").write_bytes(encoded(picture(40, 40, i)))
        (root / f"{i}.txt").write_text("a man " * words)
    report = build(root, tmp_path / "out").report
    assert report["notes"]["converted"] == {"caption cut to the limit of tokens": 1}


def test_near_duplicates_are_left_out_when_asked_for(tmp_path):
    root = tmp_path / "set"
    root.mkdir()
    blocks = [np.random.default_rng(i).integers(0, 256, (8, 8, 3), dtype=np.uint8) for i in range(2)]
    image, other = (Image.fromarray(block).resize((64, 64), Image.Resampling.NEAREST) for block in blocks)
    image.save(root / "a.png")
    image.save(root / "b.jpg", quality=90)
    other.save(root / "c.png")
    image.resize((24, 24)).save(root / "0small.png")
    for path in sorted(root.iterdir()):
        path.with_suffix(".txt").write_text("x")
    options = ("min_side=32",)
    assert build(root, tmp_path / "exact", *options).report["kept"] == 3
    near = build(root, tmp_path / "near", *options, "duplicates=near")
    assert near.report["rejected"]["duplicate"] == {"nearly the same picture as another": 1}
    assert [row["key"] for row in rows(tmp_path / "near")] == ["a.png", "c.png"], (
        "a small copy displaces no good picture"
    )


@pytest.mark.parametrize("marker", ["", "5", '{"source": "x"}'])
def test_a_damaged_marker_is_named(photos, tmp_path, marker):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "source.json").write_text(marker)
    with pytest.raises(DataError, match=r"source.json: can't be read as this program wrote it .*; give another folder"):
        build(photos, tmp_path / "out")


@pytest.mark.parametrize("other", ["another source", "a stranger's folder", "itself", "a file", "nothing there"])
def test_refusals(photos, tmp_path, other):
    out = tmp_path / "out"
    if other == "another source":
        build(photos, out)
        shutil.copytree(photos, tmp_path / "copy")
        with pytest.raises(DataError, match=r"was built from .*photos.*, not from .*copy"):
            build(tmp_path / "copy", out)
    elif other == "a stranger's folder":
        out.mkdir()
        (out / "thesis.txt").write_text("x")
        with pytest.raises(DataError, match="must be a new or empty folder"):
            build(photos, out)
        assert sorted(path.name for path in out.iterdir()) == ["thesis.txt"]
    elif other == "itself":
        before = sorted(photos.iterdir())
        with pytest.raises(DataError, match="photos: source and output are the same folder; give a new folder"):
            build(photos, photos / ".." / "photos")
        assert sorted(photos.iterdir()) == before
    elif other == "a file":
        out.touch()
        with pytest.raises(DataError, match="out: is a file; give a new folder"):
            build(photos, out)
    else:
        with pytest.raises(DataError, match="there is no such file or folder"):
            build(tmp_path / "missing", out)
        assert not out.exists()


def test_a_size_that_no_picture_has_is_refused_before_anything_is_done(photos, tmp_path):
    """Thirteen pictures are 40 to 53 pixels wide; one of fourteen is cut off behind its header."""
    said = r"every record would be rejected: shorter side below 9999 pixels \(14 of 14\): lower min_side: "
    with pytest.raises(DataError, match=said + "min_side=40 would keep all$"):
        build(photos, tmp_path / "out", "min_side=9999")
    with pytest.raises(DataError, match="every record would be rejected"):
        plan_build(photos, tmp_path / "out", settings("min_side=9999"))
    assert not (tmp_path / "out").exists()


def test_a_size_that_nearly_no_picture_has_is_named_first(photos, tmp_path):
    said = []
    build(photos, tmp_path / "out", "min_side=53", say=said.append)
    line = "shorter side below 53 pixels (13 of 14): lower min_side: min_side=40 would keep all"
    assert said == [f"{photos}: {line}"]
    lines = plan_build(photos, tmp_path / "new", settings("min_side=53", "detect={}"))
    assert lines[0] == f"{photos}: 14 rows, format imagefolder; 1 lines can't be read"
    assert lines[1] == line
    assert lines[2].endswith(f"write captions (text) and write the data set to {tmp_path / 'new'}")
    assert plan_build(photos, tmp_path / "out", settings())[-1].endswith(f"resume the build in {tmp_path / 'out'}")


def test_what_is_too_small_is_not_looked_at_by_detectors(photos, tmp_path, monkeypatch):
    """Duplicates are: of near ones, the first may be left out for what is found in it. A lower bound adds the rest."""
    finding_nothing = nullcontext(lambda items: [TierResult() for _ in items])
    monkeypatch.setattr(DetectTier, "open", lambda _: finding_nothing)
    done, options = {}, ("needs=face", "detect={}", "caption.kind=template")
    for low in (45, 40):
        build(photos, tmp_path / "out", f"min_side={low}", *options)
        (folder,) = (tmp_path / "out/tiers").glob("detect-*")
        tables = [pyarrow.parquet.read_table(path) for path in sorted(folder.iterdir())]
        done[low] = sorted(key for table in tables for key in table["key"].to_pylist())
    assert done[45] == [f"{i:02}.png" for i in range(6, 14)]
    assert done[40] == [f"{i:02}.png" for i in range(14) if i != 3]


@pytest.mark.parametrize("stage", ["check", "caption"])
def test_a_stage_that_was_stopped_without_an_error_is_named(photos, tmp_path, monkeypatch, stage):
    """As Daft stops at a Ctrl-C that this process ignores; the same call resumes."""

    def stopped(start, tasks, *others):
        done = run_tasks(start, tasks, *others)
        return islice(done, 1) if tasks[0].target.parent.name.startswith(stage) else done

    with monkeypatch.context() as patched:
        patched.setattr("fairhuman.data.pipeline.run.run_tasks", stopped)
        with pytest.raises(
            DataError, match=f"out: the stage {stage} was stopped; run the same command again to resume"
        ):
            build(photos, tmp_path / "out")
    assert build(photos, tmp_path / "out").report["kept"] == 12


def test_a_filter_that_rejects_all_ends_the_build_before_detection(photos, tmp_path):
    with pytest.raises(
        DataError, match=r"every record was rejected: clarity below .*: lower min_clarity: min_clarity="
    ):
        build(photos, tmp_path / "out", "min_clarity=1e9", "detect={}")
    assert json.loads((tmp_path / "out/report.json").read_text())["kept"] == 0
    assert sorted(path.name.partition("-")[0] for path in (tmp_path / "out/tiers").iterdir()) == ["check"]


def test_a_caption_that_the_build_writes_is_missed_by_nobody(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(encoded(picture(40, 30, 1)))
    row = {"file_name": "a.png", "caption": "", "persons": [[1, 1, 30, 30]]}
    (tmp_path / "photos/metadata.jsonl").write_text(json.dumps(row))
    built = build(tmp_path / "photos", tmp_path / "out", "caption.kind=template")
    assert built.report["notes"] == {}
    assert rows(tmp_path / "out")[0]["caption"]


@pytest.mark.parametrize(
    ("second", "counted"), [([20, 2, 30, 12], "two people"), ([6, 3, 14, 11], "a person")], ids=["apart", "found twice"]
)
def test_a_caption_counts_no_fewer_people_than_faces(tmp_path, second, counted):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(encoded(picture(40, 30, 1)))
    faces = [[2, 2, 10, 10], second]
    row = {"file_name": "a.png", "caption": "", "persons": [[1, 1, 30, 30]], "faces": faces}
    (tmp_path / "photos/metadata.jsonl").write_text(json.dumps(row))
    build(tmp_path / "photos", tmp_path / "out", "caption.kind=template")
    assert rows(tmp_path / "out")[0]["caption"] == f"A picture of {counted}."


@pytest.mark.parametrize(
    ("found", "caption"),
    [
        ({"hands": [[2, 2, 10, 10], [20, 2, 28, 10]]}, "A picture of a person."),
        ({"persons": [], "hands": [[2, 2, 10, 10]]}, "A picture of a person."),
        ({"faces": [[2, 2, 10, 10], [20, 2, 28, 10]]}, "A picture of two people."),
        ({"persons": [], "faces": []}, "A picture without people."),
    ],
)
def test_what_was_found_of_people_is_captioned_without_persons(tmp_path, found, caption):
    """Close-ups of hands, faces without a detector of persons, and pictures that show nobody."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.png").write_bytes(encoded(picture(40, 30, 1)))
    (tmp_path / "photos/metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "caption": "", **found}))
    build(tmp_path / "photos", tmp_path / "out", "caption.kind=template")
    assert rows(tmp_path / "out")[0]["caption"] == caption


def test_conditions_of_the_source_that_do_not_come_along_are_named(tmp_path):
    root, told = tmp_path / "photos", "1 row with a pose or depth map, which isn't kept; to keep it, add condition.pose"
    root.mkdir()
    for number, depth in enumerate([{"depth": "depth.png"}, {}]):
        (root / f"{number}.png").write_bytes(encoded(picture(40, 30, number)))
        with (root / "metadata.jsonl").open("a") as file:
            file.write(json.dumps({"file_name": f"{number}.png", "caption": "x", **depth}) + "\n")
    (root / "depth.png").write_bytes(encoded(Image.new("I;16", (40, 30), 900)))
    said: list[str] = []
    build(root, tmp_path / "out", say=said.append)
    assert [told in line for line in said] == [True]
    assert rows(tmp_path / "out")[0]["depth"] is None
    build(root, tmp_path / "kept", "condition.pose=none", say=said.append)
    assert len(said) == 1
    assert [row["depth"] is None for row in rows(tmp_path / "kept")] == [False, True]
    assert any(told in line for line in plan_build(root, tmp_path / "new", settings()))


def test_damage_in_a_shard_or_a_table_of_a_build_is_named_with_its_file(photos, tmp_path):
    out = tmp_path / "out"
    build(photos, out)
    shard = min((out / "data").iterdir())
    flip_in(shard, (photos / "01.png").read_bytes())
    report = LoadReport()
    records = read_source(out, ("face",), SourceSettings(max_reject_share=0.5), report)
    assert len(records) == 6  # of the other shard: a row group is read as a whole
    assert {(note.file, note.reason) for note in report.skipped()} == {(shard.name, DAMAGED)}
    shard.unlink()
    whole = build(photos, tmp_path / "again").report["files"]
    table = min((out / "tiers").glob("check-*/*.parquet"))
    flip_in(table, b"person 1" if table.read_bytes().count(b"person 1") == 1 else table.read_bytes()[100:140])
    with pytest.raises(DataError, match=rf"^{table}: is damaged .*; delete it and run the same command again"):
        build(photos, out)
    table.unlink()
    assert build(photos, out).report["files"] == whole
    assert contents(out) == contents(tmp_path / "again")
