"""The commands of `fairhuman data`, from build to export, as a user types them."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from fairhuman.cli.options import written_file
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review import ReviewSettings
from fairhuman.data.review.events import FILE, TABLES
from fairhuman.data.review.pictures import load_pictures
from fairhuman.data.review.store import ReviewStore
from fairhuman.data.sources import SourceSettings
from fairhuman.web.database import open_database

Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six pictures with faces and captions, and one that is cut off."""
    root = tmp_path / "photos"
    root.mkdir()
    lines = []
    for i in range(7):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        row = {"file_name": f"{i}.png", "caption": f"person {i}", "faces": [[4, 5, 20, 25]], "hands": []}
        lines.append(json.dumps(row))
    (root / "6.png").write_bytes((root / "6.png").read_bytes()[:900])
    (root / "metadata.jsonl").write_text("\n".join(lines))
    return root


@pytest.mark.parametrize(
    "words",
    [
        ("data", "show", "photos", "--out"),
        ("data", "stats", "photos", "--out"),
        ("data", "check", "photos", "--json"),
        ("study", "links", "photos", "--out"),
        ("study", "export", "photos"),
    ],
    ids=" ".join,
)
def test_a_folder_or_a_photo_is_never_replaced(words, photos, typed, monkeypatch):
    monkeypatch.chdir(photos.parent)
    before = sorted(photos.iterdir())
    code, _, errors = typed(*words, "photos")
    assert (code, "photos: is a folder; give the name of a file in it" in errors) == (2, True), errors
    code, _, errors = typed(*words, "photos/0.png")
    assert (code, "0.png: is there already, and isn't replaced" in errors) == (2, True), errors
    assert sorted(photos.iterdir()) == before
    assert written_file(photos / "new.page") == photos / "new.page"
    for page in (photos.parent / "a.html", photos.parent / "a.htm"):
        page.touch()
        assert written_file(page) == page, "a page replaces a page"
    with Image.open(photos / "0.png") as picture:
        assert picture.size == (48, 64)


OPTIONS = ("min_side=32", "detect=null", "--workers", 0)


def test_from_photos_to_every_other_command(photos: Path, tmp_path: Path, typed: Typed) -> None:
    out = tmp_path / "people"
    code, said, _ = typed("data", "build", photos, out, *OPTIONS)
    assert code == 0
    assert "7 rows: 7 new, 0 changed, 0 gone" in said
    assert "left out by check: picture is cut off or damaged (1)" in said
    assert f"6 kept; done: {out}" in said
    assert (out / "report.html").stat().st_size > 10_000

    assert typed("data", "check", out)[0] == 0
    code, said, _ = typed("data", "check", photos, "--json", tmp_path / "check.json")
    assert code == 1
    assert "picture is cut off or damaged" in said
    assert json.loads((tmp_path / "check.json").read_text())

    assert "6 pictures" in typed("data", "show", out, "--out", tmp_path / "show.html")[1]
    assert "person 3" in (tmp_path / "show.html").read_text(encoding="utf-8")
    typed("data", "stats", out, "--out", tmp_path / "stats.html", "--json", tmp_path / "stats.json")
    assert json.loads((tmp_path / "stats.json").read_text())
    for kind in ("webdataset", "imagefolder", "parquet"):
        code, said, _ = typed("data", "export", out, tmp_path / kind, "--format", kind)
        assert (code, "6 records" in said) == (0, True)
        assert typed("data", "check", tmp_path / kind)[0] == 0
    assert "1 tables" in typed("data", "cache", out)[1]


def test_how_a_data_set_is_read_is_a_setting(photos: Path, tmp_path: Path, typed: Typed) -> None:
    for command in ("check", "show", "stats"):
        out = () if command == "check" else ("--out", tmp_path / f"{command}.html")
        _, said, errors = typed("data", command, photos, "source.format=folder", *out)
        assert errors == ""
        assert command != "check" or "read as folder" in said
        code, _, errors = typed("data", command, photos, "source.fromat=folder", *out)
        assert (code, "did you mean 'source.format'?" in errors) == (2, True)
    said = typed("data", "show", photos, "source.format=folder", "--dry-run")[1]
    assert "read as folder: would write" in said


def test_a_validation_set_and_what_its_reviewers_decided(
    photos: Path, tmp_path: Path, typed: Typed, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("--count", 4, "filters.min_side=32", "filters.min_persons=null", "filters.min_clarity_percentile=null")
    code, said, error = typed("data", "validation", photos, tmp_path / "val", *options)
    assert code == 0, error
    assert "4 of 6 usable pictures" in said
    again = typed("data", "validation", photos, tmp_path / "val", *options, "--dry-run")[1]
    assert again.endswith(f"{tmp_path / 'val'}: already finished, nothing to do\n")
    monkeypatch.chdir(tmp_path)
    relative = typed("data", "validation", photos, "val", *options)[1]
    assert "val: already finished, nothing to do\n" in relative
    assert "look at val/report.html\n" in relative
    assert f"{tmp_path / 'val'}" not in relative
    assert len((tmp_path / "val/metadata.jsonl").read_text().splitlines()) == 4
    code, _, error = typed("data", "review", tmp_path / "val", "--apply")
    assert (code, "nothing has been reviewed yet" in error) == (1, True), error
    for decided, done in ((0, ""), (3, "written: "), (4, "done: ")):
        _decide(tmp_path / "val", decided)
        code, said, error = typed("data", "review", tmp_path / "val", "--apply")
        assert (code, "nothing has been reviewed yet" in error) == ((1, True) if not decided else (0, False)), error
        assert ("undecided: 1; left out until" in said) == (decided == 3)
        assert f"{done}{tmp_path / 'val/reviewed.jsonl'}" in said or not decided
        left_out = f"without 1 undecided picture; decide with fairhuman data review {tmp_path / 'val'}, then apply it"
        assert (left_out in said) == (decided == 3)


def _decide(folder: Path, count: int) -> None:
    """Keep the first pictures of a review."""
    pictures = load_pictures(folder, SourceSettings(), LoadReport())
    engine = open_database(folder / FILE, TABLES)
    store = ReviewStore(engine, {key: each.prompt for key, each in pictures.items()}, ReviewSettings())
    for key in list(pictures)[:count]:
        store.decide("Ada", key, "keep", None, None)
    engine.dispose()


def test_detectors_are_compared_with_true_boxes(shared: Path, tmp_path: Path, typed: Typed) -> None:
    """Two photos are enough to see the table."""
    rows = (shared / "data/ccp/metadata.jsonl").read_text().splitlines()
    chosen = [json.loads(row) for row in rows]
    chosen = [row for row in chosen if row["faces"] and row["hands"]][:2]
    for row in chosen:
        (tmp_path / row["file_name"]).parent.mkdir(exist_ok=True)
        (tmp_path / row["file_name"]).write_bytes((shared / "data/ccp" / row["file_name"]).read_bytes())
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, chosen)))
    code, said, error = typed(
        "data", "benchmark-detectors", tmp_path, "--workers", 1, "--json", tmp_path / "found.json"
    )
    assert code == 0, error
    assert "mediapipe-0.10.21" in said
    found = json.loads((tmp_path / "found.json").read_text())
    assert {score["part"] for score in found["scores"]} == {"face", "hand"}
    face = next(score for score in found["scores"] if score["part"] == "face")
    assert face["recall"]["n"] == sum(len(row["faces"]) for row in chosen)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("build", "PHOTOS", "OUT", "min_sid=3"), 2, "did you mean 'min_side'?"),
        (("build", "PHOTOS", "OUT", "detect=null", "detect.face=null"), 2, "detect"),
        (("build", "PHOTOS", "OUT", "--runner", "spark"), 2, "--runner must be one of native, ray, found 'spark'"),
        (("build", "PHOTOS", "OUT", "--address", "x:1"), 2, "needs --runner ray"),
        (("build", "PHOTOS", "OUT", "--recipe", "missing.yaml"), 2, "missing.yaml: no such recipe"),
        (
            ("build", "PHOTOS", "OUT"),
            1,
            "shorter side below 1024 pixels (7 of 7): lower min_side: min_side=48 would keep",
        ),
        (("build", "PHOTOS", "OUT", "min_side=512", "--dry-run"), 1, "min_side=48 would keep all"),
        (("build", "PHOTOS", "PHOTOS"), 1, "source and output are the same folder"),
        (("build", "PHOTOS/0.png", "OUT"), 1, "0.png: is a single picture; give the folder that it is in"),
        (
            ("validation", "PHOTOS", "OUT", "--allow-fewer"),
            1,
            "lower filters.min_side: filters.min_side=48 would keep all",
        ),
        (("build", "missing", "OUT"), 1, "missing: there is no such file or folder"),
        (("build", "PHOTOS", "OUT", "source.format=imagefoldr"), 2, "imagefolder"),
        (("export", "PHOTOS", "OUT", "--format", "zip"), 2, "known are webdataset, imagefolder, parquet"),
        (("show", "missing"), 1, "missing"),
        (("review", "missing"), 1, "missing"),
        (("validation", "PHOTOS", "OUT", "--sampling", "best"), 2, "sampling"),
        (("benchmark-detectors", "PHOTOS", "--part", "foot"), 2, "foot"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: tuple[str, ...], code: int, message: str, photos: Path, tmp_path: Path, typed: Typed
) -> None:
    places = {"PHOTOS": str(photos), "OUT": str(tmp_path / "out")}
    found, _, error = typed(
        "data", *(places.get(argument, argument.replace("PHOTOS", str(photos))) for argument in arguments)
    )
    assert (found, message in error) == (code, True), error
    assert "Traceback" not in error
    assert not (tmp_path / "out").exists()


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path, typed: Typed) -> None:
    before = sorted(tmp_path.rglob("*"))
    code, said, _ = typed("data", "build", photos, tmp_path / "out", *OPTIONS, "--dry-run")
    assert code == 0
    assert f"{photos}: 7 rows, format imagefolder" in said
    assert "min_side: 32" in said
    for command in ("show", "stats", "cache", "review"):
        assert typed("data", command, photos, "--dry-run")[0] == 0
    assert typed("data", "export", photos, tmp_path / "out", "--dry-run")[0] == 0
    code, said, _ = typed("data", "validation", photos, tmp_path / "out", "filters.min_side=32", "--dry-run")
    text, _, lines = said.partition("\n\n")
    assert (code, yaml.safe_load(text)["filters"]["min_side"]) == (0, 32)
    assert f"{photos}: 7 rows can be read, 7 pass what is known of the filters" in lines
    assert "would find person (mediapipe) in 7 pictures, if they aren't cached" in lines
    assert "would decode 7 pictures, and draw 5000 that are clear; fewer are an error without --allow-fewer" in lines
    assert sorted(tmp_path.rglob("*")) == before
