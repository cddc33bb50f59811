"""Changes between runs: paired by key whatever the order, refused where they aren't paired, drawn."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fairhuman.errors import DataError
from fairhuman.report.changes import base_loss, change, changes_figure, read_series, seed_changes
from fairhuman.report.run_folder import read_validation

NAMES = ("global", "face")


def write_run(folder: Path, factor: float, order: list[int], noise: float = 0.0) -> Path:
    """A run whose held-out losses end at `factor` of the first ones; `noise` is that of another seed."""
    n = len(order)
    generator = np.random.default_rng(3)
    areas, difficulty = generator.random((2, n)) + 0.5
    errors = areas * difficulty * (1 + noise * np.random.default_rng(round(1000 * noise)).random(n))
    lines = []
    for step, scale in ((0, 1.0), (10, factor)):
        columns = {"error": (scale * errors)[order].tolist(), "area": areas[order].tolist()}
        line = {"step": step, "keys": [f"k{i:02}" for i in order], "objectives": dict.fromkeys(NAMES, columns)}
        lines.append(json.dumps(line))
    folder.mkdir()
    (folder / "validation.jsonl").write_text("\n".join(lines))
    return folder


def test_seeds_may_see_the_samples_in_orders_of_their_own(tmp_path: Path) -> None:
    forwards, backwards = list(range(12)), list(range(12))[::-1]
    runs = [write_run(tmp_path / "a", 0.9, forwards), write_run(tmp_path / "b", 0.8, backwards, noise=0.2)]
    series = read_series(runs)
    assert list(series.keys) == [f"k{i:02}" for i in forwards]
    found = change(series, "face")
    assert (found.value, found.n) == (pytest.approx(-0.15), 12)
    assert seed_changes(series, "face") == pytest.approx([-0.1, -0.2])
    errors_sn, areas_sn = series.first["face"]
    assert base_loss(series, "face").value == pytest.approx(errors_sn.sum() / areas_sn.sum())
    one = read_series([write_run(tmp_path / "c", 0.9, backwards)])
    np.testing.assert_allclose(one.first["face"], read_series(runs[:1]).first["face"])


def test_a_difference_needs_the_same_base_on_the_same_noise(tmp_path: Path) -> None:
    order = list(range(8))
    ls, mpd = (
        read_series([write_run(tmp_path / name, factor, order)]) for name, factor in (("ls", 0.9), ("mpd", 0.85))
    )
    difference = change(mpd, "face", ls)
    assert (difference.value, difference.low, difference.high) == pytest.approx((-0.05, -0.05, -0.05))
    errors_sn, areas_sn = ls.first["face"]
    elsewhere = replace(ls, first={**ls.first, "face": (errors_sn * 1.004, areas_sn)})
    assert change(mpd, "face", elsewhere).value == pytest.approx(-0.05, abs=0.005), "another machine rounds otherwise"
    other = read_series([write_run(tmp_path / "other", 0.9, order, noise=0.5)])
    with pytest.raises(DataError, match="aren't paired"):
        change(mpd, "face", other)


def test_runs_that_cannot_be_compared_are_named(tmp_path: Path) -> None:
    whole, fewer = (
        write_run(tmp_path / "whole", 0.9, list(range(8))),
        write_run(tmp_path / "fewer", 0.9, list(range(7))),
    )
    with pytest.raises(DataError, match=r"fewer: other held-out samples than in .*whole"):
        read_series([whole, fewer])
    lines = (whole / "validation.jsonl").read_text().splitlines()
    (whole / "validation.jsonl").write_text(lines[0])
    with pytest.raises(DataError, match="found 1 evaluations"):
        read_series([whole])


def test_the_figure_has_a_panel_an_objective_and_a_line_a_method(tmp_path: Path) -> None:
    series = read_series([write_run(tmp_path / "a", 0.9, list(range(8)))])
    estimates = {method: {name: change(series, name) for name in NAMES} for method in ("LS", "MPD")}
    figure = changes_figure(estimates, {"LS": {"face": [-0.1, -0.2]}})
    assert [axes.get_title(loc="left") for axes in figure.axes] == list(NAMES)
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["LS", "MPD"]
    values = [line.get_xdata() for line in figure.axes[1].lines if line.get_marker() == "o"]
    assert [float(x[0]) for x in values] == pytest.approx([-10.0, -10.0])


def test_evaluations_of_other_records_are_left_out(tmp_path: Path) -> None:
    """Lines of earlier versions don't say of which records they are, and are compared."""
    for records, kept in (
        ([None, None], [0, 1]),
        ([None, "a"], [0, 1]),
        (["a", "a", "b"], [2]),
        ([None, "a", "b", "b"], [2, 3]),
        (["b", "a", "b"], [2]),
    ):
        rows = [
            {"step": step, "objectives": {}, **({} if one is None else {"records": one})}
            for step, one in enumerate(records)
        ]
        (tmp_path / "validation.jsonl").write_text("\n".join(map(json.dumps, rows)))
        assert [one.step for one in read_validation(tmp_path)] == kept
