"""Metrics as a page gets them: thinned, as they are written, whatever is in the file."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from fairhuman.studio import series as module
from fairhuman.studio.series import Series, read_tail


def line(step: int, **values: object) -> str:
    return json.dumps({"step": step, **values}) + "\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "metrics.jsonl"


def test_few_steps_are_shown_as_they_are(file: Path) -> None:
    file.write_text(line(1, a=0.5, flag=True, name="x") + line(2, a=None, flag=False) + line(3, a=2, b=7))
    series = Series(file)
    series.refresh()
    assert series.thinned(100) == {
        "steps": [1.0, 2.0, 3.0],
        "every": 1,
        "columns": {
            "a": {"mean": [0.5, None, 2.0]},
            "flag": {"mean": [1.0, 0.0, None]},
            "b": {"mean": [None, None, 7.0]},
        },
    }
    assert (series.last_step, series.latest["a"], series.damaged) == (3, 2.0, 0)


def test_many_steps_are_means_with_their_extremes(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BINS", 16)
    values = np.random.default_rng(0).normal(size=1001)
    monkeypatch.setattr(module, "CHUNK", 1000)  # in many pieces
    file.write_text("".join(line(step, a=values[step]) for step in range(1001)))
    series = Series(file)
    series.refresh()
    found = series.thinned(8)
    assert len(found["steps"]) <= 8
    each = found["every"]
    parts = [values[start : start + each] for start in range(0, 1001, each)]
    np.testing.assert_allclose(found["columns"]["a"]["mean"], [part.mean() for part in parts], rtol=1e-4)
    np.testing.assert_allclose(found["columns"]["a"]["low"], [part.min() for part in parts], rtol=1e-4)
    np.testing.assert_allclose(found["columns"]["a"]["high"], [part.max() for part in parts], rtol=1e-4)
    end = series.thinned(8, first=900)
    assert end["steps"][0] >= 900 - series.width
    assert end["every"] <= each


def test_what_is_written_later_is_read_later_and_half_a_line_waits(file: Path) -> None:
    series = Series(file)
    series.refresh()
    assert series.thinned(10) == {"steps": [], "every": 1, "columns": {}}
    whole = line(2, a=2.0)
    file.write_text(line(1, a=1.0) + whole[:9])
    series.refresh()
    before = series.version
    series.refresh()
    assert (series.thinned(10)["steps"], series.version) == ([1.0], before)
    with file.open("a") as opened:
        opened.write(whole[9:])
    series.refresh()
    assert series.thinned(10)["columns"]["a"]["mean"] == [1.0, 2.0]
    assert series.version > before


def test_a_step_that_comes_again_replaces_what_followed_it(file: Path) -> None:
    file.write_text("".join(line(step, a=float(step)) for step in range(1, 7)) + line(4, a=40.0) + line(5, a=50.0))
    series = Series(file)
    series.refresh()
    assert series.thinned(10)["columns"]["a"]["mean"] == [1.0, 2.0, 3.0, 40.0, 50.0]
    file.unlink()
    file.write_text(line(1, a=9.0))  # what a resumed run does: another file in its place
    series.refresh()
    assert series.thinned(10)["columns"]["a"]["mean"] == [9.0]
    file.unlink()
    series.refresh()
    assert series.thinned(10)["steps"] == []


@pytest.mark.parametrize(
    "damage", ["{nonsense}\n", "[1]\n", '{"a": 3}\n', '{"step": -1}\n', '{"step": 1.5}\n', "\xff\n"]
)
def test_a_damaged_line_is_left_out_and_counted(file: Path, damage: str) -> None:
    file.write_bytes((line(1, a=1) + damage + line(2, a=2.5)).encode("latin-1"))
    series = Series(file)
    series.refresh()
    assert (series.thinned(10)["columns"]["a"]["mean"], series.damaged) == ([1.0, 2.5], 1)


def test_numbers_that_json_does_not_have_are_no_values(file: Path) -> None:
    file.write_text('{"step": 1, "a": NaN, "b": 1}\n{"step": 2, "a": 1e999, "b": 2}\n')
    series = Series(file)
    series.refresh()
    found = json.dumps(series.thinned(10), allow_nan=False)
    assert "1.0, 2.0" in found
    assert not any(math.isinf(value) for value in series.latest.values())


def test_the_end_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    assert list(read_tail(log, 10)) == []
    log.write_text("first line\nsecond\nthird\n")
    assert list(read_tail(log, 100)) == ["first line", "second", "third"]
    assert list(read_tail(log, 15)) == ["second", "third"]
