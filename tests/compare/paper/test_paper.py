"""The published numbers are those of the supplement, and ours never stand in their column."""

import json
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from fairhuman.compare.paper.published import COLUMNS, PAPER_SETUPS, PUBLISHED, OurTable, paper_sheet
from fairhuman.compare.paper.settings import SetupSettings

SETUP = SetupSettings(
    model="the small SDXL", data="rendered people", scale="300 steps", metrics=PAPER_SETUPS["Table 2"].metrics
)


def test_published_numbers_are_those_of_the_supplement(shared: Path) -> None:
    text = (shared / "paper" / "supplement.md").read_text(encoding="utf-8")
    for table, columns in COLUMNS.items():
        rows = dict.fromkeys(cell.row for cell in PUBLISHED if cell.table == table)
        for row in rows:
            [line] = re.findall(rf"^{re.escape(row)}\t(.*)$", text, re.MULTILINE)
            told = [float(number) for number in re.findall(r"[\d.]+", line)]
            assert told == [PUBLISHED[table, row, column] for column in columns]
    assert len(PUBLISHED) == 2 * 2 + 7 * 5


def test_ours_stand_apart_and_nothing_is_copied() -> None:
    sheet = paper_sheet({"Table 2": OurTable(SETUP, {("LS", "FID"): 12.5, ("SI", "HPS"): 0.0})})
    ours = {(row.row, row.column): row.ours for row in sheet.rows if row.ours is not None}
    assert ours == {("LS", "FID"): 12.5, ("SI", "HPS"): 0.0}
    assert {(row.table, row.row, row.column): row.published for row in sheet.rows} == PUBLISHED
    assert all(row.ours is None for row in paper_sheet({}).rows)
    [fid] = [row for row in sheet.rows if (row.row, row.column) == ("LS", "FID")]
    assert (fid.better, fid.published) == ("lower", 47.22)
    assert json.loads(json.dumps(asdict(sheet)))["rows"][0]["ours"] is None


def test_every_aspect_of_the_setup_is_spelled_out() -> None:
    sheet = paper_sheet({"Table 2": OurTable(SETUP, {})})
    found = {(each.table, each.aspect): each for each in sheet.differences}
    assert set(found) == {(table, aspect) for table in COLUMNS for aspect in ("model", "data", "scale", "metrics")}
    assert found["Table 2", "model"].ours == "the small SDXL"
    assert not found["Table 2", "model"].same
    assert found["Table 2", "metrics"].same
    assert found["Table 1", "model"].ours is None
    assert not found["Table 1", "model"].same


@pytest.mark.parametrize(
    ("table", "row", "column", "value", "message"),
    [
        ("Table 3", "LS", "FID", 1.0, r"unknown published table: 'Table 3'; the nearest is 'Table"),
        ("Table 2", "MPD", "FID", 1.0, r"unknown published row of Table 2: 'MPD'; .* nearest is 'MPD-FairGrad'"),
        ("Table 2", "LS", "Fid", 1.0, r"unknown published column of Table 2: 'Fid'; .* nearest is 'FID'"),
        ("Table 1", "LS", "Inference Time", 1.0, r"unknown published row of Table 1: 'LS'"),
        ("Table 2", "LS", "FID", float("nan"), r"Table 2, LS, FID: our value must be finite, got nan"),
    ],
)
def test_what_was_not_published_is_refused(table: str, row: str, column: str, value: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        paper_sheet({table: OurTable(SETUP, {(row, column): value})})
