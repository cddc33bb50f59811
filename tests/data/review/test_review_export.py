"""The exported files of a review: rows for training, a report, deterministic."""

import datetime
import json

import pyarrow
import pyarrow.parquet
import pytest

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review import ReviewSettings, apply_review
from fairhuman.data.review.events import EVENTS, FILE, TABLES
from fairhuman.data.review.pictures import load_pictures
from fairhuman.data.review.store import ReviewStore
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError, FairHumanError
from fairhuman.record import Box
from fairhuman.web.database import open_database
from helpers.tiny_pictures import encoded, picture


@pytest.fixture
def reviewing():
    engines = []

    def make(folder, **settings) -> ReviewStore:
        engines.append(open_database(folder / FILE, TABLES))
        pictures = load_pictures(folder, SourceSettings(), LoadReport())
        prompts = {key: each.prompt for key, each in pictures.items()}
        return ReviewStore(engines[-1], prompts, ReviewSettings(**settings), lambda: 1_700_000_000.25)

    yield make
    for engine in engines:
        engine.dispose()


def reviewed(folder):
    return [json.loads(line) for line in (folder / "reviewed.jsonl").read_text().splitlines()]


def test_kept_rows_keep_all_they_had_with_the_final_prompt(review_folder, reviewing):
    folder = review_folder(5, prompt="the old one")
    store = reviewing(folder)
    store.decide("Ada", "p0", "keep", None, None)
    store.decide("Ada", "p1", "keep", 'two "people" 👩‍🔬', None)
    store.decide("Ada", "p2", "drop", None, "unclear")
    store.decide("Ada", "p3", "keep", "undone", None)
    store.undo("Ada")
    counts = apply_review(folder)
    assert (counts.kept, counts.edited, counts.dropped, counts.left) == (2, 1, 1, 2)
    rows = reviewed(folder)
    assert [row["caption"] for row in rows] == ["a person, number 0", 'two "people" 👩‍🔬']
    assert rows[1] == {
        "file_name": "images/1.png",
        "caption": 'two "people" 👩‍🔬',
        "prompt": 'two "people" 👩‍🔬',
        "key": "p1",
        "faces": [[4, 5, 20, 25, 0.9]],
        "hands": [[30, 30, 40, 44]],
        "scene": "park",
        "reviewer": "Ada",
        "reviewed_at": "2023-11-14T22:13:20.250+00:00",
    }
    report = json.loads((folder / "review.json").read_text())
    assert report["counts"]["reasons"] == {"unclear": 1}
    assert report["dropped"] == [
        {"key": "p2", "reason": "unclear", "reviewer": "Ada", "reviewed_at": "2023-11-14T22:13:20.250+00:00"}
    ]


def test_again_writes_the_same_and_later_decisions_replace_it(review_folder, reviewing):
    folder = review_folder(3)
    store = reviewing(folder)
    store.decide("Ada", "p0", "keep", None, None)
    names = ("reviewed.jsonl", "review.json")
    apply_review(folder)
    first = [(folder / name).read_bytes() for name in names]
    apply_review(folder)
    assert [(folder / name).read_bytes() for name in names] == first
    store.decide("Ada", "p1", "keep", None, None)
    assert apply_review(folder).kept == 2
    assert len(reviewed(folder)) == 2


def test_the_rows_are_metadata_again(review_folder, reviewing):
    folder = review_folder(2)
    reviewing(folder).decide("Ada", "p1", "keep", "a new prompt", None)
    apply_review(folder)
    (folder / "reviewed.jsonl").replace(folder / "metadata.jsonl")
    (record,) = read_source(folder, ["face", "hand"], SourceSettings(), LoadReport())
    assert (record.key, record.caption) == ("p1", "a new prompt")
    assert record.boxes == {"face": (Box(4, 5, 20, 25, 0.9),), "hand": (Box(30, 30, 40, 44),)}


def test_pictures_without_metadata_get_rows(review_folder, reviewing):
    folder = review_folder(2)
    (folder / "metadata.jsonl").unlink()
    reviewing(folder).decide("Ada", "images/1.png", "keep", "somebody", None)
    apply_review(folder)
    assert [(row["file_name"], row["caption"]) for row in reviewed(folder)] == [("images/1.png", "somebody")]


def test_masks_in_folders_of_photos_are_no_pictures_after_the_review_either(tmp_path, reviewing):
    for i, name in enumerate(("shoot/0.png", "shoot/1.png", "shoot/masks/0.png")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(encoded(picture(64, 48, i).convert("L" if "masks" in name else "RGB")))
    store = reviewing(tmp_path)
    for key in ("shoot/0.png", "shoot/1.png"):
        store.decide("Ada", key, "keep", "somebody", None)
    apply_review(tmp_path)
    report = LoadReport()
    records = read_source(tmp_path, (), SourceSettings(), report)
    assert [(record.key, *record.masks) for record in records] == [("shoot/0.png", "ignore"), ("shoot/1.png",)]
    assert "decision" not in str(report.notes)
    assert list(load_pictures(tmp_path, SourceSettings(), LoadReport())) == ["shoot/0.png", "shoot/1.png"]


def test_a_picture_as_often_kept_as_dropped_is_left_out_and_named(review_folder, reviewing):
    folder = review_folder(2)
    store = reviewing(folder, reviews_per_picture=2)
    for key in ("p0", "p1"):
        store.decide("Ada", key, "keep", None, None)
    store.decide("Bo", "p0", "drop", None, "anatomy")
    counts = apply_review(folder, ReviewSettings(reviews_per_picture=2))
    assert (counts.done, counts.disputed, counts.kept, counts.several, counts.agreed) == (1, 1, 1, 1, 0)
    assert json.loads((folder / "review.json").read_text())["disputed"] == ["p0"]
    assert [row["key"] for row in reviewed(folder)] == ["p1"]


def test_a_folder_without_a_review_is_refused_and_gets_no_files(review_folder):
    folder = review_folder(1)
    with pytest.raises(DataError, match="nothing has been reviewed"):
        apply_review(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["images", "metadata.jsonl"]


def test_an_invalid_database_is_named(review_folder):
    folder = review_folder(1)
    (folder / FILE).write_bytes(b"something else" * 100)
    with pytest.raises(FairHumanError, match=r"review\.sqlite: the database can't be used"):
        apply_review(folder)


def test_a_strangers_time_that_cannot_be_is_named(review_folder, reviewing):
    folder = review_folder(1)
    store = reviewing(folder)
    store.decide("Ada", "p0", "keep", None, None)
    with store.engine.begin() as connection:
        connection.execute(EVENTS.update().values(at=1e300))
    with pytest.raises(DataError, match=r"review\.sqlite: decision 1 has an impossible timestamp: 1e\+300"):
        apply_review(folder)


def test_embedded_masks_are_read_as_before_the_review(review_folder, reviewing):
    folder = review_folder(3)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for number, row in enumerate(rows):
        row["masks"] = {"face": {"bytes": encoded(picture(64, 48, number).convert("L")), "path": None}}
        row["taken"] = datetime.date(2026, 1, 1 + number)
    (folder / "metadata.jsonl").unlink()
    table = folder / "metadata.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)

    def masks() -> dict[str, object]:
        return {each.key: each.masks for each in read_source(folder, ("face",), SourceSettings(), LoadReport())}

    before = masks()
    store = reviewing(folder)
    for key in ("p0", "p2"):
        store.decide("Ada", key, "keep", "another", None)
    apply_review(folder)
    assert masks() == {key: before[key] for key in ("p0", "p2")}
    assert before["p2"].keys() == {"face"}
    older = [{name: row[name] for name in row if name != "metadata_file"} for row in reviewed(folder)]
    (folder / "reviewed.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in older))
    assert masks() == {key: before[key] for key in ("p0", "p2")}  # as earlier versions stored it
    assert [(row["metadata_row"], row["caption"], "taken" in row) for row in reviewed(folder)] == [
        (1, "another", False),
        (3, "another", False),
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows[1:]), table)
    with pytest.raises(
        DataError,
        match=r"reviewed\.jsonl:1: metadata_row must be .* which has changed since then; run again: .* --apply",
    ):
        masks()


def test_tables_of_split_folders_are_read_as_before_the_review(tmp_path, reviewing):
    for number, split in enumerate(("train", "val")):
        (tmp_path / split).mkdir()
        rows = []
        for i in range(2):
            (tmp_path / split / f"{i}.png").write_bytes(encoded(picture(64, 48, 2 * number + i)))
            mask = encoded(picture(64, 48, 2 * number + i).convert("L"))
            masks = {"face": {"bytes": mask, "path": None}}
            rows.append({"file_name": f"{i}.png", "caption": f"{split} {i}", "faces": [[4, 5, 20, 25]], "masks": masks})
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / split / "metadata.parquet")

    def masks() -> dict[str, object]:
        records = read_source(tmp_path, ("face",), SourceSettings(), LoadReport())
        return {each.key: (each.split, each.masks) for each in records}

    before = masks()
    store = reviewing(tmp_path)
    for key in ("train/1.png", "val/0.png"):
        store.decide("Ada", key, "keep", None, None)
    apply_review(tmp_path)
    assert masks() == {key: before[key] for key in ("train/1.png", "val/0.png")}
    assert before["val/0.png"][1].keys() == {"face"}
    rows = reviewed(tmp_path)
    assert [(row["metadata_file"], row["metadata_row"]) for row in rows] == [
        ("train/metadata.parquet", 2),
        ("val/metadata.parquet", 1),
    ]
    for elsewhere in ("../metadata.parquet", "val/0.png", ["x"]):
        text = "".join(json.dumps({**row, "metadata_file": elsewhere}) + "\n" for row in rows)
        (tmp_path / "reviewed.jsonl").write_text(text)
        with pytest.raises(DataError, match=r"reviewed\.jsonl:1: metadata_row must be .* which has changed since then"):
            masks()
