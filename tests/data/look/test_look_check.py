"""`data check`: every bad file and line is counted and named, and the verdict follows from what was lost."""

import json
import re

import pyarrow
import pyarrow.parquet
import pytest

from fairhuman.data.look.check import check_dataset
from fairhuman.data.look.columns import read_columns
from fairhuman.data.look.reading import open_dataset
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError, FairHumanError, RecipeError
from helpers.colour_profiles import P3, rgb_profile
from helpers.tiny_pictures import encoded, picture


def test_every_bad_file_is_reported(shared, tmp_path):
    """One line of the report for each reason, each with file and line; nothing ends the check."""
    summary = check_dataset(shared / "data" / "bad")
    assert (summary.found, summary.usable, summary.kind, summary.good) == (33, 21, "imagefolder", False)
    counts = {action: sum(reasons.values()) for action, reasons in summary.report.counts().items()}
    assert counts == {"skipped": 12, "dropped": 8, "converted": 10, "warned": 14}
    text = "\n".join(summary.lines())
    for number, name in (
        (2, "01_truncated.jpg"),
        (3, "02_zero_byte.jpg"),
        (4, "03_text_named.jpg"),
        (10, "09_one_pixel.png"),
        (11, "10_extreme_aspect_20000x10.png"),
        (14, "13_bomb_30000x30000_1bit.png"),
        (27, "no_such_file.jpg"),
        (28, "../../etc/passwd"),
    ):
        assert re.search(rf"metadata\.jsonl:{number}  .*{re.escape(name)}", text), name
    for number in (29, 30, 32, 34):
        assert f"metadata.jsonl:{number}  " in text
    summary.save(tmp_path / "check.json")
    saved = json.loads((tmp_path / "check.json").read_text())
    assert saved["counts"] == summary.report.counts()
    assert [note["line"] for note in saved["notes"]] == sorted(note["line"] for note in saved["notes"])
    assert len(saved["notes"]) == 44


def test_good_means_complete(folder, built):
    """What is converted or odd is used; a dropped box is lost, though its record is not."""
    root = folder([{"file_name": f"{i}.png", "caption": "x", "faces": [[1, 1, 20, 20]]} for i in range(3)])
    assert check_dataset(root).good
    assert check_dataset(built).lines() == [f"{built}: 6 of 6 records are usable, read as parquet"]
    (root / "1.png").write_bytes(encoded(picture(40, 30).convert("RGBA")))
    odd = check_dataset(root)
    assert odd.good
    assert odd.report.counts() == {"converted": {"transparent pixels laid on the background": 1}}
    (root / "2.png").write_bytes(encoded(picture(40, 30), icc_profile=rgb_profile(P3)))
    assert "  1 x colours converted to sRGB by their profile" in check_dataset(root).lines()
    lines = (root / "metadata.jsonl").read_text().replace("[[1, 1, 20, 20]]", "[[1, 1, 20, 20], [5, 5, 2, 2]]", 1)
    (root / "metadata.jsonl").write_text(lines)
    lost = check_dataset(root)
    assert (lost.good, lost.usable) == (False, 3)


def test_duplicates_and_missing_captions_are_noted(folder):
    root = folder([{"file_name": f"{i}.png"} for i in range(3)])
    (root / "2.png").write_bytes((root / "0.png").read_bytes())
    report = check_dataset(root).report
    assert [(note.file, note.line, note.value) for note in report.notes if note.reason.startswith("same")] == [
        ("metadata.jsonl", 3, "that of metadata.jsonl:1")
    ]
    assert report.counts()["warned"]["no record has a caption"] == 1


def test_a_record_that_is_left_out_is_noted_once(folder):
    root = folder([{"file_name": f"{i}.png", "caption": caption} for i, caption in enumerate(["", "x", ""])])
    whole = (root / "0.png").read_bytes()
    (root / "0.png").write_bytes(whole[: len(whole) // 2])  # its header can be read
    summary = check_dataset(root)
    assert [(note.line, note.action) for note in summary.report.notes] == [(1, "skipped"), (3, "warned")]
    assert "  1 x caption is empty" in summary.lines()


def test_boxes_of_any_region_that_is_named(folder):
    root = folder([{"file_name": "a.png", "caption": "x", "foot": [[9, 2, 1, 12]]}])
    assert check_dataset(root).good
    assert not check_dataset(root, regions=["foot"]).good


def test_nothing_usable_is_reported_not_raised(folder):
    root = folder([{"file_name": "a.png"}, {"file_name": "b.png"}])
    for path in root.glob("*.png"):
        path.write_bytes(b"x")
    summary = check_dataset(root)
    assert (summary.found, summary.usable, summary.good) == (2, 0, False)


def test_what_can_not_be_read_at_all_is_an_error(tmp_path, folder):
    with pytest.raises(DataError, match="nowhere: there is no such file or folder"):
        check_dataset(tmp_path / "nowhere")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but no table")
    with pytest.raises(DataError, match=r"a\.parquet: not a readable Parquet file"):
        check_dataset(tmp_path / "a.parquet", SourceSettings(format="parquet"))
    with pytest.raises(RecipeError, match="did you mean 'parquet'"):
        check_dataset(tmp_path, SourceSettings(format="parket"))
    summary = check_dataset(folder([{"file_name": "a.png"}]))
    with pytest.raises(FairHumanError, match=r"/proc/x\.json: can't be written"):
        summary.save(summary.path.__class__("/proc/x.json"))


def test_terminal_escapes_in_names_are_escaped(folder):
    root = folder([{"file_name": "a.png", "caption": "x"}])
    (root / "metadata.jsonl").write_text(json.dumps({"file_name": "\x1b[2J\nno.png"}))
    text = check_dataset(root).lines()
    assert all(line.isprintable() for line in text)
    assert any("\\x1b[2J\\nno.png" in line for line in text)


def test_a_caption_may_be_called_text_as_in_data_sets_of_hugging_face(folder):
    root = folder([{"file_name": "0.png", "text": "a hat"}, {"file_name": "1.png", "text": "x", "caption": "a shoe"}])
    records = read_source(root, (), SourceSettings(), LoadReport())
    assert [record.caption for record in records] == ["a hat", "a shoe"]
    (root / "metadata.jsonl").write_text('{"file_name": "0.png", "text": "a hat"}\n')
    assert "no record has a caption" not in check_dataset(root).report.counts().get("warned", {})


def test_statistics_of_a_table_with_text(tmp_path):
    sizes = {"width": [64, 64], "height": [64, 64]}
    pictures = [{"bytes": encoded(picture(64, 64)), "path": None}] * 2
    table = pyarrow.table({"image": pictures, "text": ["a hat", "a red hat"], **sizes})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    found = next(read_columns(open_dataset(tmp_path), LoadReport())).table
    assert found.column("caption").to_pylist() == ["a hat", "a red hat"]
