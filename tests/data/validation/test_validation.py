"""Validation sets are written atomically and deterministically, whatever the source holds."""

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image, ImageFilter

from fairhuman.config import build
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.validation.build import build_validation
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.errors import DataError, FairHumanError, RecipeError
from helpers.figures import write_figures
from helpers.runs import read_lines
from helpers.tiny_pictures import noise

SMALL = {"min_side": 64, "min_clarity_percentile": None, "unknown": "keep"}


def settings(**values: Any) -> ValidationSetSettings:
    """Settings of sets of what the source knows; `test_detected.py` is about what it doesn't."""
    return build(ValidationSetSettings, {"count": 6, "filters": SMALL, "detect": None, **values})


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def edit(source: Path, change: Any) -> None:
    """Rewrite the rows of a source: `change` gets each row's number and the row."""
    rows = read_lines(source / "metadata.jsonl")
    for number, row in enumerate(rows):
        change(number, row)
    (source / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    write_figures(tmp_path / "source", 12)
    return tmp_path / "source"


def test_the_set_is_an_imagefolder_with_brief_prompts_and_the_source_s_own_bytes(source: Path, tmp_path: Path) -> None:
    summary = build_validation(source, tmp_path / "out", settings())
    assert (summary.pictures, summary.usable, summary.reasons) == (6, 12, {})
    rows = read_lines(tmp_path / "out" / "metadata.jsonl")
    given = {row["file_name"]: row for row in read_lines(source / "metadata.jsonl")}
    for row in rows:
        original = given[row["key"]]
        assert (tmp_path / "out" / row["file_name"]).read_bytes() == (source / row["key"]).read_bytes()
        assert row["caption"] == "A" + original["caption"].removeprefix("a")
        assert row["source_caption"] == original["caption"]
        assert (row["faces"], row["hands"], row["persons"]) == (original["faces"], original["hands"], None)
        assert row["stratum"] == {"scene": "unknown", "persons": "1", "gender": "unknown", "age": "unknown"}
    read = read_source(tmp_path / "out", ("face", "hand"), SourceSettings(), LoadReport())
    assert [(record.key, record.caption, record.width) for record in read] == [
        (row["key"], row["caption"], row["width"]) for row in rows
    ]
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    digests = {row["key"]: hashlib.sha256((source / row["key"]).read_bytes()).hexdigest() for row in rows}
    assert list(manifest["pictures"].items()) == list(digests.items())
    assert manifest["unknown"]["number of persons"] == 12
    assert {path.name for path in tmp_path.iterdir()} == {"source", "out"}  # no work folder is left


@pytest.mark.parametrize("sampling", ["random", "stratified"])
def test_the_same_source_and_settings_give_the_same_bytes(source: Path, tmp_path: Path, sampling: str) -> None:
    chosen = settings(sampling=sampling, draws=3)
    for name in ("a", "b"):
        build_validation(source, tmp_path / name, chosen)
    (tmp_path / "elsewhere").mkdir()
    shutil.copytree(source, tmp_path / "elsewhere" / "source")
    build_validation(tmp_path / "elsewhere" / "source", tmp_path / "c", chosen)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    build_validation(source, tmp_path / "d", settings(sampling=sampling, draws=3, seed=1))
    assert contents(tmp_path / "d")["metadata.jsonl"] != contents(tmp_path / "a")["metadata.jsonl"]


def test_draw_k_equals_the_draw_of_seed_plus_k(source: Path, tmp_path: Path) -> None:
    """So every test batch whose spread is reported can be built."""
    edit(source, lambda number, row: row.update(attributes={"kind": "even" if number % 2 else "odd"}))
    shares = []
    for seed in range(3):
        build_validation(source, tmp_path / str(seed), settings(seed=seed, strata=["kind"]))
        manifest = json.loads((tmp_path / str(seed) / "manifest.json").read_text(encoding="utf-8"))
        shares.append(manifest["mix"]["kind"]["even"]["chosen"])
    build_validation(source, tmp_path / "all", settings(strata=["kind"], draws=3))
    spread = json.loads((tmp_path / "all" / "manifest.json").read_text(encoding="utf-8"))["mix"]["kind"]["even"]
    assert spread["mean"] == pytest.approx(sum(shares) / 3)
    assert (spread["low"], spread["high"], spread["candidates"]) == (min(shares), max(shares), 0.5)


def test_every_record_is_in_the_set_drawable_or_rejected_with_its_reason(source: Path, tmp_path: Path) -> None:
    names = [row["file_name"] for row in read_lines(source / "metadata.jsonl")]
    (source / names[0]).write_bytes((source / names[0]).read_bytes()[:600])  # header whole, pixels cut off
    (source / names[1]).write_bytes(b"no picture")
    shutil.copy(source / names[3], source / names[2])
    Image.new("RGB", (50, 128)).save(source / names[4])
    with Image.open(source / names[5]) as picture:
        picture.filter(ImageFilter.GaussianBlur(12)).save(source / names[5])
    captions = {6: "", 7: "a dog in a red coat"}
    regions = {8: {"faces": [], "hands": []}, 9: {"faces": None, "hands": None}, 10: {"persons": []}}

    def change(number: int, row: dict[str, Any]) -> None:
        row["caption"] = captions.get(number, row["caption"])
        row.update(regions.get(number, {}))

    edit(source, change)
    chosen = settings(count=3, filters={**SMALL, "min_clarity": 1})
    summary = build_validation(source, tmp_path / "out", chosen)
    rejected = {
        row["key"] or row["where"]: (row["stage"], row["reason"]) for row in read_lines(tmp_path / "out/rejected.jsonl")
    }
    assert rejected == {
        "metadata.jsonl:2": ("read", "not a picture"),
        names[0]: ("look", "picture is cut off or damaged"),
        names[3]: ("look", "same picture as another record"),
        names[4]: ("filter", "shorter side below 64 pixels"),
        names[5]: ("filter", "clarity below 1 grey levels²"),
        names[6]: ("prompt", "no caption to make a prompt of"),
        names[7]: ("prompt", "prompt names no person"),
        names[8]: ("filter", "number of faces and hands below 1"),
        names[10]: ("filter", "number of persons below 1"),
    }
    assert summary.usable + len(rejected) == 12
    assert list(summary.stages.values()) == [12, 11, 10, 9, 8, 6, 5, 3]


def test_pictures_that_browsers_show_differently_are_reencoded_without_loss(source: Path, tmp_path: Path) -> None:
    names = [row["file_name"] for row in read_lines(source / "metadata.jsonl")]
    with Image.open(source / names[0]) as picture:
        turned = Image.Exif()
        turned[0x0112] = 6
        picture.save(source / "turned.jpg", exif=turned, quality=90)
        picture.save(source / "scan.tif")
        picture.save(source / "moving.gif", save_all=True, append_images=[picture.rotate(90)])
        picture.save(source / "turned.png", exif=turned)
    changed = {0: "turned.jpg", 1: "scan.tif", 2: "moving.gif", 3: "turned.png"}
    edit(source, lambda number, row: row.update(file_name=changed.get(number, row["file_name"])))
    build_validation(source, tmp_path / "out", settings(count=12))
    files = {row["key"]: tmp_path / "out" / row["file_name"] for row in read_lines(tmp_path / "out" / "metadata.jsonl")}
    endings = {name: files[name].suffix for name in changed.values()}
    assert endings == {"turned.jpg": ".jpg", "scan.tif": ".png", "moving.gif": ".png", "turned.png": ".png"}
    assert files["turned.jpg"].read_bytes() == (source / "turned.jpg").read_bytes()
    with Image.open(files["scan.tif"]) as written, Image.open(source / "scan.tif") as original:
        assert written.tobytes() == original.tobytes()
    with Image.open(files["moving.gif"]) as written:
        assert not getattr(written, "is_animated", False)


def test_own_regions_and_painted_masks_come_along(source: Path, tmp_path: Path) -> None:
    with Image.open(source / "images/00000.png") as figure:
        size = figure.size

    def add(number: int, row: dict[str, Any]) -> None:
        row["shoes"] = [[1, 2, 9, 12]] if number else None
        row["masks"] = {"ignore": "ignore.png"} if number == 1 else {"ignore": "bad.png"} if number == 2 else None
        if number == 1:
            Image.new("L", size, 200).save(source / "ignore.png")
        if number == 2:
            noise(*size, 90).save(source / "bad.png")
            (source / "bad.png").write_bytes((source / "bad.png").read_bytes()[:-900])

    edit(source, add)
    build_validation(source, tmp_path / "out", settings(count=12))
    names = [row["file_name"] for row in read_lines(source / "metadata.jsonl")]
    rows = {names.index(row["key"]): row for row in read_lines(tmp_path / "out" / "metadata.jsonl")}
    assert [rows[number]["shoes"] for number in range(3)] == [None, [[1, 2, 9, 12]], [[1, 2, 9, 12]]]
    with Image.open(tmp_path / "out" / rows[1]["masks"]["ignore"]) as mask:
        assert mask.getextrema() == (200, 200)
    assert [number for number, row in rows.items() if "masks" in row] == [1]
    dropped = json.loads((tmp_path / "out" / "manifest.json").read_text())["dropped_masks"]
    assert list(dropped) == [f"{names[2]}, mask of ignore"]


def test_too_few_usable_pictures_are_an_error_that_says_why(source: Path, tmp_path: Path) -> None:
    chosen = {"count": 13, "filters": {**SMALL, "min_side": 64}}
    with pytest.raises(DataError, match="count = 13, but only 12 of 12 records are usable"):
        build_validation(source, tmp_path / "out", settings(**chosen))
    assert not (tmp_path / "out").exists()
    # nothing expensive was done: other settings may go on there
    assert build_validation(source, tmp_path / "out", settings(**chosen, allow_fewer=True)).pictures == 12
    with pytest.raises(DataError, match=r"0 of 12 records are usable(?s:.*)shorter side below 1024 pixels: 12"):
        build_validation(source, tmp_path / "none", settings(filters={}, allow_fewer=True))
    with pytest.raises(DataError) as caught:
        build_validation(source, tmp_path / "none", settings(filters={}, allow_fewer=True))
    assert "lower filters.min_side: filters.min_side=" in str(caught.value)
    assert "allow_fewer" not in str(caught.value)


def test_the_same_command_does_nothing_and_other_settings_are_rejected(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = build_validation(source, out, settings())
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    said: list[str] = []
    assert build_validation(source, out, settings(), say=said.append) == first
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before
    assert "nothing to do" in said[0]
    with pytest.raises(DataError, match="count was 6, now 5; seed was 0, now 1"):
        build_validation(source, out, settings(count=5, seed=1))
    edit(source, lambda number, row: row.update(caption=f"a man {number}"))
    with pytest.raises(DataError, match="the source has changed"):
        build_validation(source, out, settings())


@pytest.mark.parametrize("holds", ["file", "notes.txt", "manifest.json"])
def test_a_folder_with_something_else_is_left_alone(source: Path, tmp_path: Path, holds: str) -> None:
    out = tmp_path / "out"
    if holds == "file":
        out.write_text("mine")
    else:
        out.mkdir()
        (out / holds).write_text("mine")
    with pytest.raises(DataError, match=r"(must be a new or empty folder|not a file of `fairhuman data validation`)"):
        build_validation(source, out, settings())
    assert (out if holds == "file" else out / holds).read_text() == "mine"


def test_two_at_once_into_one_folder(source: Path, tmp_path: Path) -> None:
    (tmp_path / ".out.work").mkdir()
    with FileLock(tmp_path / ".out.work" / "lock"), pytest.raises(DataError, match="another process"):
        build_validation(source, tmp_path / "out", settings())


def test_an_output_that_cannot_be_written_is_named(source: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FairHumanError, match="can't be written"):
        build_validation(source, tmp_path / "file" / "out", settings())


def test_equal_strata_even_the_mix_out_and_name_those_too_small(source: Path, tmp_path: Path) -> None:
    edit(source, lambda number, row: row.update(attributes={"gender": "man" if number else "woman"}))
    chosen = settings(sampling="stratified", allocation="equal", strata=["gender"])
    build_validation(source, tmp_path / "out", chosen)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["strata"] == [
        {"stratum": ["female"], "usable": 1, "taken": 1, "small": True},
        {"stratum": ["male"], "usable": 11, "taken": 5, "small": False},
    ]


def test_a_source_without_captions_gets_prompts_from_attributes(source: Path, tmp_path: Path) -> None:
    def change(_: int, row: dict[str, Any]) -> None:
        row["caption"] = ""
        row["attributes"] = {"gender": "woman", "age": "young", "top": "t-shirt", "top_colour": "red"}

    edit(source, change)
    build_validation(source, tmp_path / "out", settings())
    row = read_lines(tmp_path / "out" / "metadata.jsonl")[0]
    assert row["caption"].startswith("A young woman")
    assert "t-shirt" in row["caption"]
    assert row["source_caption"] == ""


def test_a_source_of_bare_photos_is_refused_before_anything_is_detected(source: Path, tmp_path: Path) -> None:
    edit(source, lambda _, row: row.update(caption="", attributes=None))
    said: list[str] = []
    with pytest.raises(DataError, match=r"no picture has a caption or attributes .*fairhuman data build.*prompts.kind"):
        build_validation(source, tmp_path / "out", settings(), lambda *found: said.append(str(found)))
    assert said == []


def test_prompts_that_are_all_alike_are_told(source: Path, tmp_path: Path) -> None:
    edit(source, lambda _, row: row.update(caption="a person"))
    said: list[str] = []
    build_validation(source, tmp_path / "out", settings(), say=said.append)
    assert any("prompts: 1 different text, 'A person'" in text for text in said), said


def test_text_of_the_source_cannot_break_out_of_the_page(source: Path, tmp_path: Path) -> None:
    evil = "a man with $x_1$ <script>alert(1)</script> & \ud800"
    edit(source, lambda _, row: row.update(caption=evil, attributes={"gender": "<b>$\\frac$ \ud800"}))
    build_validation(source, tmp_path / "out", settings())
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>$" not in page
    assert "default-src 'none'" in page


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "count"),
        ({"strata": ["scene", "scene"]}, "names must be distinct"),
        ({"sampling": "stratifed"}, "sampling"),
        ({"prompts": {"kind": "endpoint"}}, r"kind endpoint needs endpoint\.model"),
        ({"prompt": {}}, "did you mean 'prompts'"),
        ({"draws": 0}, "draws"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        build(ValidationSetSettings, values)


@pytest.mark.slow
def test_hugging_face_reads_the_set(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    import datasets

    build_validation(source, tmp_path / "out", settings())
    loaded = datasets.load_dataset("imagefolder", data_dir=str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))
    rows = read_lines(tmp_path / "out" / "metadata.jsonl")
    assert [row["caption"] for row in loaded["train"]] == [row["caption"] for row in rows]
    assert loaded["train"][0]["image"].size == (128, 128)
