"""Figures: smoothing is exact where it can be, colours are stable, and holes in the data break nothing."""

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from matplotlib.figure import Figure

from fairhuman.errors import DataError
from fairhuman.report import plots
from fairhuman.report.changes import changes_figure
from fairhuman.report.plots import smooth, strategies_figure, to_svg
from fairhuman.report.run_folder import Metrics, read_metrics
from fairhuman.stats.estimate import Estimate


def metrics(steps: int = 50) -> Metrics:
    hand = np.where(np.arange(steps) % 3 == 0, np.nan, 1.0)
    columns = {"loss/global": np.ones(steps), "loss/hand": hand, "weight/global": np.ones(steps)}
    columns |= {"cos/global-hand": np.zeros(steps), "coverage/hand": np.ones(steps), "lr": np.ones(steps)}
    return Metrics(np.arange(1.0, steps + 1), columns)


def test_smoothing_keeps_constants_and_lines_and_skips_holes() -> None:
    with_holes = np.where(np.arange(40) % 3 == 0, np.nan, 2.0)
    np.testing.assert_allclose(smooth(with_holes, 5), 2.0)
    np.testing.assert_allclose(smooth(np.arange(40.0), 5)[2:-2], np.arange(2.0, 38.0))
    assert np.isnan(smooth(np.full(10, np.nan), 3)).all()
    np.testing.assert_array_equal(smooth(np.array([1.0, np.nan, 3.0]), 1), [1.0, np.nan, 3.0])
    assert len(smooth(np.arange(3.0), 500)) == 3
    assert len(smooth(np.array([]), 5)) == 0


@pytest.mark.parametrize(
    "draw",
    [
        plots.losses_figure,
        plots.weights_figure,
        plots.direction_figure,
        plots.cosines_figure,
        plots.coverage_figure,
        plots.floor_figure,
        plots.optimiser_figure,
    ],
)
@pytest.mark.parametrize("steps", [0, 1, 50])
def test_every_figure_draws_any_number_of_steps_the_same_way_twice(draw, steps: int) -> None:
    if steps == 0:
        assert b"<svg" in to_svg(draw(Metrics(np.array([]), {})))
    else:
        assert to_svg(draw(metrics(steps))) == to_svg(draw(metrics(steps)))


@pytest.mark.parametrize(("name", "unit"), [("steer_change", "% of change"), ("floor_turn", "degrees")])
def test_the_figure_of_a_floor_shows_the_rate_and_what_sets_or_follows_from_it(name: str, unit: str) -> None:
    columns = {"floor": np.full(9, 0.5), "rate/global": np.full(9, 0.7), name: np.arange(9.0)}
    top, bottom = plots.floor_figure(Metrics(np.arange(1.0, 10.0), columns)).axes
    assert [line.get_label() for line in top.lines] == ["floor", "rate"]
    assert bottom.get_ylabel() == unit
    assert bottom.lines[0].get_ydata()[-1] == 8.0


def test_names_with_dollar_signs_are_no_mathematics(tmp_path: Path) -> None:
    name = r"$\x$"  # which matplotlib refuses as mathematics
    columns = {f"loss/{one}": np.ones(9) for one in (name, "global")}
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss/global": 1.0}\n')
    estimate = Estimate(0.1, 0.0, 0.2, 9)
    for figure in (
        plots.losses_figure(Metrics(np.arange(1.0, 10.0), columns)),
        plots.validation_figure([0, 1], {name: [estimate] * 2}),
        strategies_figure({name: tmp_path}),
        changes_figure({name: {"face": estimate}}),
        changes_figure({name: {"face": estimate}}, stacked=True),
        changes_figure({"mpd": {name: estimate}}),
    ):
        assert b"<svg" in to_svg(figure)


def test_a_legend_of_long_names_stays_within_the_figure() -> None:
    names = ("global_1", "global_2", "global_3", "face", "hand")
    pairs = {f"cos/{a}-{b}": np.zeros(9) for i, a in enumerate(names) for b in names[i + 1 :]}
    figure = plots.cosines_figure(Metrics(np.arange(1.0, 10.0), pairs))
    figure.canvas.draw()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 10
    assert legend.get_window_extent().x1 <= figure.bbox.x1


def test_long_runs_stay_small() -> None:
    assert len(to_svg(plots.losses_figure(metrics(50_000)))) < 600_000


def test_held_out_figure_draws_the_intervals_in_percent() -> None:
    estimates = [Estimate(0.0, 0.0, 0.0, 9), Estimate(-0.2, -0.3, -0.1, 9)]
    figure = plots.validation_figure([0, 100], {"global": estimates})
    (bars,) = figure.axes[0].containers
    low, high = bars[2][0].get_segments()[1][:, 1]
    assert (low, high) == (pytest.approx(-30), pytest.approx(-10))


def test_strategies_share_axes_and_come_in_order(tmp_path: Path) -> None:
    runs = {}
    for name, level in (("mpd", 2.0), ("ls", 0.5)):
        runs[name] = tmp_path / name
        runs[name].mkdir()
        cosine = 0.1 if name == "mpd" else None
        rows = [{"step": s, "weight/face": level, "cos/global-face": cosine, "loss/face": 1.0} for s in range(9)]
        (runs[name] / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    figure = strategies_figure(runs)
    first, second = figure.axes[0], figure.axes[3]
    assert first.get_ylabel().startswith("Linear")
    assert second.get_ylabel().startswith("Minimum")
    assert first.get_ylim() == second.get_ylim()
    assert first.get_ylim()[0] == 0
    assert first.get_ylim()[1] > 2.0
    assert "not computed" in figure.axes[1].texts[0].get_text()


def test_a_damaged_line_of_the_metrics_is_named(tmp_path: Path) -> None:
    for damaged in ('{"step": NaN}', '{"step": 2, "loss/ha'):
        (tmp_path / "metrics.jsonl").write_text(f'{{"step": 1}}\n{damaged}\n{{"step": 3}}\n')
        with pytest.raises(DataError, match=r"metrics.jsonl:2: is damaged: "):
            read_metrics(tmp_path)


def test_metrics_of_a_killed_and_resumed_run(tmp_path: Path) -> None:
    lines = [{"step": 1, "loss/hand": 1.0}, {"step": 2, "loss/hand": 9.0}, {"step": 2, "loss/hand": None, "lr": 1}]
    text = "\n".join(map(json.dumps, lines)) + '\n{"step": 3, "loss/ha'
    (tmp_path / "metrics.jsonl").write_text(text)
    read = read_metrics(tmp_path)
    np.testing.assert_array_equal(read.steps_n, [1, 2])
    np.testing.assert_array_equal(read.columns["loss/hand"], [1.0, np.nan])
    np.testing.assert_array_equal(read.columns["lr"], [np.nan, 1.0])


def test_control_characters_are_drawn_without_a_warning_and_in_sound_xml() -> None:
    figure = Figure()
    figure.text(0.5, 0.5, "a\x1b[2J")
    image = to_svg(figure)
    assert b"\x1b" not in image
    ElementTree.fromstring(image)
