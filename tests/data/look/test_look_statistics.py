"""`data stats`: reference numbers on small tables, the same ones by either way of reading, and a page of them."""

import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairhuman.data.caption.settings import TokenSettings
from fairhuman.data.caption.tokens import TokenBudget
from fairhuman.data.export.run import export_dataset
from fairhuman.data.look.columns import RecordColumns
from fairhuman.data.look.figures import percent, write_statistics
from fairhuman.data.look.reading import read_report
from fairhuman.data.look.statistics import dataset_statistics, describe
from fairhuman.data.look.tally import CAPTIONS, Tally
from fairhuman.data.pipeline.rows import BOXES
from fairhuman.data.pipeline.write import PICTURE
from fairhuman.errors import DataError, FairHumanError
from helpers.tiny_pictures import encoded, picture

ROWS = [
    {"faces": [[0, 0, 10, 10, 0.5]], "hands": None, "caption": "one two  three"},
    {"faces": [], "hands": [[0, 0, 4, 3], [1, 1, 5, 5]], "caption": ""},
    {"faces": None, "hands": [[2, 2, 10, 12]], "caption": "word", "split": "val"},
]


@pytest.fixture
def three(folder) -> Path:
    """Three pictures of 40x30."""
    return folder([{"file_name": f"{i}.png", **row} for i, row in enumerate(ROWS)])


def test_reference_numbers(three):
    found = dataset_statistics(three)
    face, hand, person = (found.regions[name] for name in ("face", "hand", "person"))
    assert (found.records, found.empty, found.splits) == (3, 1, {"val": 1})
    assert found.words.tolist() == [3, 1]
    assert (face.has, face.none, face.unknown) == (1, 1, 1)
    assert (hand.has, hand.none, hand.unknown) == (2, 0, 1)
    assert (person.has, person.none, person.unknown) == (0, 0, 3)
    assert +face.boxes == {1: 1, 0: 1}
    assert +hand.boxes == {2: 1, 1: 1}
    assert face.area_shares.tolist() == pytest.approx([100 / 1200])
    assert hand.area_shares.tolist() == pytest.approx([12 / 1200, 16 / 1200, 80 / 1200])
    assert {by: values.tolist() for by, values in face.scores.items()} == {"source": [0.5]}
    assert found.sides.tolist() == [30, 30, 30]
    assert found.aspects.tolist() == pytest.approx([4 / 3] * 3)


def test_columns_and_records_give_the_same(three, tmp_path):
    """A Parquet set is read by its columns, any other record by record."""
    mask = encoded(picture(40, 30).convert("L"))
    (three / "mask.png").write_bytes(mask)
    lines = [json.loads(line) for line in (three / "metadata.jsonl").read_text().splitlines()]
    lines[2]["masks"] = {"face": "mask.png", "tail": "mask.png"}
    (three / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)))
    export_dataset(three, tmp_path / "table", "parquet")
    one, other = (dataset_statistics(path).summary() for path in (three, tmp_path / "table"))
    assert one["regions"]["face"]["has"] == 2
    assert (one["regions"]["tail"]["has"], one["regions"]["tail"]["unknown"]) == (1, 2)
    for name in one:
        if name not in ("path", "format"):
            assert one[name] == other[name], name


def test_boxes_of_any_region(folder):
    """A column is one of boxes if it holds one; otherwise it counts if it is named."""
    root = folder([{"file_name": "a.png", "foot": [[1, 2, 11, 12]], "shoe": [], "rgba": [[9, 9, 9, 1]]}])
    assert set(dataset_statistics(root).regions) == {"face", "hand", "person", "foot"}
    found = dataset_statistics(root, regions=["shoe"]).regions
    assert (found["foot"].has, found["shoe"].none) == (1, 1)


def test_a_build_brings_its_funnel(built, tmp_path):
    found = dataset_statistics(built)
    summary = found.summary()
    assert [step["rows"] for step in summary["funnel"]][:2] == [9, 8]
    assert summary["filters"][0]["name"] == "shorter side"
    assert {by: len(values) for by, values in found.regions["face"].scores.items()} == {"source": 6}
    assert summary["clarity"]["n"] == 6
    write_statistics(found, tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "shorter side below 41 pixels" in page
    assert ">shorter side of at least 41 pixels<" in page
    assert page.count("data:image/svg+xml") == 9
    found.save(tmp_path / "stats.json")
    assert json.loads((tmp_path / "stats.json").read_text()) == json.loads(json.dumps(summary))


def test_a_region_with_dollar_signs_in_its_name_is_drawn(folder, tmp_path):
    rows = [{"file_name": f"{i}.png", r"$\x$": [[1, 1, 9, 9, 0.5]], "caption": "one"} for i in range(2)]
    statistics = dataset_statistics(folder(rows))
    assert statistics.regions[r"$\x$"].has == 2
    write_statistics(statistics, tmp_path / "page.html")
    assert r"$\x$" in (tmp_path / "page.html").read_text()


def test_scores_are_separated_by_detector(tmp_path):
    """Scores of the column beside the boxes, by who found them; of pictures without boxes there are none."""
    rows = {
        "width": [100, 100, 100],
        "height": [100, 100, 100],
        "faces": [[[0, 0, 10, 10], [0, 0, 20, 20]], [[0, 0, 5, 5]], None],
        "face_scores": [[0.9, 0.8], [0.7], None],
        "face_by": ["one", "two", "two"],
        "image": [{"bytes": b"", "path": None}] * 3,
    }
    schema = {"faces": BOXES, "face_scores": pyarrow.list_(pyarrow.float32()), "image": PICTURE}
    arrays = {name: pyarrow.array(values, schema.get(name)) for name, values in rows.items()}
    pyarrow.parquet.write_table(pyarrow.table(arrays), tmp_path / "t.parquet")
    scores = dataset_statistics(tmp_path).regions["face"].scores
    assert {by: values.tolist() for by, values in scores.items()} == {
        "one": pytest.approx([0.9, 0.8]),
        "two": pytest.approx([0.7]),
    }


@pytest.mark.parametrize("box", [[0, 0, 0, 5], [5, 5, 1, 1], [0, 0, float("nan"), 5], [1, 2, 3], [], None])
def test_boxes_that_can_not_be_used_are_counted_apart(tmp_path, box):
    faces = pyarrow.array([[[0, 0, 10, 10], box], [[1, 1, 11, 11]]], BOXES)
    sizes = pyarrow.array([20, 20])
    table = pyarrow.table({"width": sizes, "height": sizes, "faces": faces, "image": [{"bytes": b""}] * 2})
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    face = dataset_statistics(tmp_path).regions["face"]
    assert face.unusable == 1
    assert face.area_shares.tolist() == pytest.approx([0.25, 0.25])


def test_columns_of_other_types_count_as_missing(tmp_path):
    """Somebody else's table: sizes as text are read from the pictures then."""
    data = encoded(picture(40, 30))
    table = pyarrow.table(
        {"width": ["a"], "height": ["b"], "faces": ["no"], "caption": [7], "image": [{"bytes": data, "path": None}]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    found = dataset_statistics(tmp_path)
    assert (found.sides.tolist(), found.empty, found.regions["face"].unknown) == ([30], 1, 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 700), min_size=1, max_size=8), st.integers(1, 5))
def test_the_chunk_size_changes_nothing(sizes, scale):
    """Captions stay evenly spread, whatever batches they come in."""
    total = sum(sizes) * scale
    whole, parts = Tally(("face",)), Tally(("face",))
    captions = [f"caption {i}" for i in range(total)]
    for tally, cuts in ((whole, [total]), (parts, [size * scale for size in sizes])):
        first = 0
        for size in cuts:
            ones = pyarrow.array([1] * size, pyarrow.int32())
            text = pyarrow.array(captions[first : first + size], pyarrow.string())
            tally.add(RecordColumns(pyarrow.table({"width": ones, "height": ones, "caption": text}), {}))
            first += size
    assert parts.captions == whole.captions
    steps = np.diff([int(caption.split()[1]) for caption in whole.captions])
    assert len(set(steps.tolist())) <= 1
    assert min(total, CAPTIONS // 2) <= len(whole.captions) <= CAPTIONS


def test_tokens_are_counted_when_asked_for(three):
    assert len(dataset_statistics(three).tokens) == 0
    budget = TokenBudget.load(TokenSettings(model="small"))
    expected = [max(budget.count(row["caption"])) for row in ROWS if row["caption"]]
    assert dataset_statistics(three, tokenizer="small").tokens.tolist() == expected


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=30))
def test_quantiles_are_in_order(values):
    found = describe(np.array([*values, np.nan], dtype=np.float32))
    assert found is not None
    ordered = [found[name] for name in ("min", "p5", "p25", "p50", "p75", "p95", "max")]
    assert ordered == sorted(ordered)
    assert found["n"] == len(values)
    assert describe(np.array([np.nan], dtype=np.float32)) is None


def test_pages_of_bare_folders_and_hostile_names(tmp_path):
    root = tmp_path / "<b>photos"
    root.mkdir()
    (root / "a.png").write_bytes(encoded(picture(40, 30)))
    write_statistics(dataset_statistics(root), tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "No region is annotated" in page
    assert "&lt;b&gt;photos" in page
    assert "<b>photos" not in page


def test_what_is_refused(tmp_path, three):
    pyarrow.parquet.write_table(pyarrow.table({"width": [], "height": []}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match="no usable record"):
        dataset_statistics(tmp_path / "t.parquet")
    with pytest.raises(FairHumanError, match=r"/proc/p\.html: can't be written"):
        write_statistics(dataset_statistics(three), Path("/proc/p.html"))


@pytest.mark.parametrize(("share", "text"), [(0.0103, "1.03 %"), (0.5, "50 %"), (1.0, "100 %"), (1e-5, "0.001 %")])
def test_percent(share, text):
    assert percent(share) == text


GOOD = {"funnel": [{"stage": "read", "rows": 1}], "recipe": {"source": {}, "regions": ["face"]}, "filters": []}


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("funnel", [], "funnel is empty"),
        ("funnel", [{"stage": 1, "rows": 1}], "type str, found 1"),
        ("regions", [["x"]], "type str"),
        ("regions", [5, None], "type str, found 5"),
        ("rejected", {"read": 3}, "type dict, found 3"),
        ("filters", [{"name": "f", "unit": "", "low": "x", "high": 1, "unknown": "keep"}], "None, found 'x'"),
    ],
)
def test_a_report_of_a_build_is_checked(tmp_path, key, value, said):
    (tmp_path / "report.json").write_text(json.dumps(GOOD), encoding="utf-8")
    assert read_report(tmp_path) == GOOD
    (tmp_path / "report.json").write_text(json.dumps({**GOOD, key: value}), encoding="utf-8")
    with pytest.raises(DataError, match=rf"report\.json: expected the report of a build, .*{said}"):
        read_report(tmp_path)


def test_a_report_of_any_length_is_not_read(tmp_path):
    with (tmp_path / "report.json").open("wb") as file:
        file.truncate(3 * 2**30)
    with pytest.raises(DataError, match=r"report\.json: must have at most 16,777,216 bytes"):
        read_report(tmp_path)
