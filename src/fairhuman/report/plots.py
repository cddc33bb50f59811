"""Figures of a training run, drawn with matplotlib's object-oriented interface: no windows, no global state.

Each objective has the same colour in all figures, that of `fairhuman.report.colours`.
"""

import io
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fairhuman.report.colours import colours
from fairhuman.report.run_folder import Metrics, read_metrics
from fairhuman.stats.bootstrap import Array
from fairhuman.stats.estimate import Estimate

_CONTROL = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # characters that no XML may hold
STRATEGIES = {
    "ls": "Linear\nscalarization",
    "dwa": "Dynamic weight\naverage",
    "uw": "Uncertainty\nweighting",
    "rlw": "Random loss\nweighting",
    "si": "Scale\ninvariant",
    "nash": "Nash-MTL",
    "mpd": "Minimum\npotential delay",
}
INK, GRID = "#222222", "#DDDDDD"
# Matplotlib leaves black unsaid in fills.
DARK = f"""<style>@media (prefers-color-scheme: dark) {{
  svg {{ fill: #e6e9ec; }}
  [style*="fill: {INK}"] {{ fill: #e6e9ec !important; }}
  [style*="stroke: {INK}"], [style*="stroke: #000000"] {{ stroke: #e6e9ec !important; }}
  [style*="stroke: {GRID.lower()}"] {{ stroke: #363e46 !important; }}
  [id^="legend"] [style*="fill: #ffffff"] {{ fill: #14181b !important; }}
}}</style>
"""
ALONE = {
    "lr": INK,
    "grad_norm": INK,
    "steer_change": INK,
    "floor_turn": INK,
}  # series that are the only one in their axes
SIZE = (4.8, 3.1)  # inches at 100 dpi: two figures side by side fill a page of 1100 px, and one is read on a phone
POINTS = 600  # points of a smoothed line; more can't be distinguished on a screen


def smooth(values_n: Array, window: int) -> Array:
    """Centred moving mean of the finite values over `window` steps; NaN where the window has none."""
    finite_n = np.isfinite(values_n)
    kernel = np.ones(max(1, min(window, len(values_n))))
    if not len(values_n):
        return values_n
    sums_n = np.convolve(np.where(finite_n, values_n, 0.0), kernel, mode="same")
    counts_n = np.convolve(finite_n.astype(np.float64), kernel, mode="same")
    return np.where(counts_n > 0.5, sums_n / np.maximum(counts_n, 1.0), np.nan)


def smoothing_window(steps: int) -> int:
    """Steps of the moving mean: 1/40 of the run, clipped to 1..500."""
    return int(np.clip(steps // 40, 1, 500))


def losses_figure(metrics: Metrics) -> Figure:
    """Training loss of each objective."""
    figure, axes = _panel("Training losses", "loss")
    draw_series(axes, metrics, metrics.group("loss"), log=True)
    return figure


def weights_figure(metrics: Metrics) -> Figure:
    """Weight of each objective, normalised to sum to the number of objectives K."""
    figure, axes = _panel("Weights of the objectives", "weight (sum = K)")
    axes.axhline(1.0, color="#999999", linewidth=0.8, linestyle=":")
    draw_series(axes, metrics, metrics.group("weight"), floor=0.0)
    return figure


def cosines_figure(metrics: Metrics) -> Figure:
    """Cosine between the gradients of each pair of objectives; a negative cosine is a conflict."""
    figure, axes = _panel("Cosines between gradients", "cosine")
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    draw_series(axes, metrics, metrics.group("cos"))
    return figure


def direction_figure(metrics: Metrics) -> Figure:
    """Each objective's share ‖w g‖ / Σ ‖w g‖ of the direction, and the cosine of its gradient and the direction."""
    figure, (top, bottom) = _two_panels()
    _dress(top, "Share of the direction", "share (sum = 1)")
    _dress(bottom, "Gradient along the direction", "cosine")
    bottom.axhline(0.0, color="#999999", linewidth=0.8)
    draw_series(top, metrics, metrics.group("share"), floor=0.0)
    draw_series(bottom, metrics, metrics.group("rate"))
    bottom.set_xlabel("step")
    return figure


def floor_figure(metrics: Metrics) -> Figure:
    """The whole picture's rate with its floor, and the held-out change that sets the floor of a steered run.

    A run that isn't steered has the degrees by which its directions were turned instead.
    """
    figure, (top, bottom) = _two_panels()
    _dress(top, "Rate of the whole picture", "cosine")
    found, steered = metrics.columns, "steer_change" in metrics.columns
    rates = {"floor": "floor", "rate": "rate/global"}
    draw_series(top, metrics, {name: found[one] for name, one in rates.items() if one in found})
    _dress(bottom, "Its held-out loss" if steered else "Turn of the direction", "% of change" if steered else "degrees")
    name = "steer_change" if steered else "floor_turn"
    draw_series(bottom, metrics, {name: found[name]} if name in found else {}, legend=False, raw=not steered)
    bottom.set_xlabel("step")
    return figure


def coverage_figure(metrics: Metrics) -> Figure:
    """Share of samples that contain a region, and its mean share of the picture's area, in percent."""
    figure, (top, bottom) = _two_panels()
    _dress(top, "Samples with the region", "%")
    _dress(bottom, "Mean area of the region", "%")
    for axes, prefix in ((top, "coverage"), (bottom, "area")):
        shares = {name: 100 * v for name, v in metrics.group(prefix).items() if name != "global"}
        draw_series(axes, metrics, shares, floor=0.0)
    bottom.set_xlabel("step")
    return figure


def optimiser_figure(metrics: Metrics) -> Figure:
    """Learning rate, and norm of the update direction passed to the optimiser."""
    figure, (top, bottom) = _two_panels()
    _dress(top, "Learning rate", "")
    _dress(bottom, "Norm of the update direction", "")
    for axes, name in ((top, "lr"), (bottom, "grad_norm")):
        if name in metrics.columns:
            draw_series(axes, metrics, {name: metrics.columns[name]}, legend=False, raw=name != "lr", floor=0.0)
    bottom.set_xlabel("step")
    return figure


def validation_figure(steps: Sequence[int], estimates: Mapping[str, Sequence[Estimate]]) -> Figure:
    """Paired change of each held-out loss since the first evaluation in percent, with 95 % intervals."""
    figure, axes = _panel("Change in held-out loss", "% since the first")
    axes.axhline(0.0, color="#999999", linewidth=0.8)
    palette = colours(estimates)
    # Objectives are offset horizontally so that their error bars don't overlap.
    nudge = 0.012 * (max(steps) - min(steps)) if len(steps) > 1 else 0.0
    for place, (name, series) in enumerate(estimates.items()):
        value_n, low_n, high_n = (100 * np.array([getattr(e, k) for e in series]) for k in ("value", "low", "high"))
        axes.errorbar(
            np.array(steps) + nudge * (place - (len(estimates) - 1) / 2),
            value_n,
            yerr=np.abs(np.stack([value_n - low_n, high_n - value_n])),
            color=palette[name],
            label=literal(name),
            marker="o",
            markersize=4,
            linewidth=1.6,
            elinewidth=1.2,
            capsize=2.5,
        )
    if estimates:
        _legend(axes)
    return figure


def strategies_figure(runs: Mapping[str, Path], stacked: bool = False) -> Figure:
    """Weights, cosines and losses of several strategies' runs: one row per strategy, with shared axes.

    `runs` maps a strategy's name to the run's folder; the seven strategies of the ablation come in their usual order.
    The panels of a strategy are side by side, or `stacked` for a phone.
    """
    names = [name for name in STRATEGIES if name in runs] + [name for name in runs if name not in STRATEGIES]
    rows = max(1, len(names))
    size, shape = ((4.2, 1.0 + 5.1 * rows), (3 * rows, 1)) if stacked else ((11, 1.0 + 1.65 * rows), (rows, 3))
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    grid = figure.subplots(*shape, sharex=True, sharey=False if stacked else "col", squeeze=False).reshape(rows, 3)
    for row, name in enumerate(names):
        metrics = read_metrics(runs[name])
        weights, cosines, losses = grid[row]
        for axes, title in zip(grid[row], ("weights (sum = K)", "cosines between gradients", "losses"), strict=True):
            _dress(axes, title if stacked or row == 0 else "", "")
        weights.set_ylabel(literal(STRATEGIES.get(name, name)), fontsize=10, color=INK, fontweight="bold")
        weights.axhline(1.0, color="#999999", linewidth=0.8, linestyle=":")
        cosines.axhline(0.0, color="#999999", linewidth=0.8)
        draw_series(weights, metrics, metrics.group("weight"), legend=False)
        draw_series(
            cosines, metrics, metrics.group("cos"), legend=False, empty="not computed:\none ordinary backward pass"
        )
        draw_series(losses, metrics, metrics.group("loss"), log=True, legend=False)
    grid[0, 0].set_ylim(bottom=0.0)  # last, because a limit stops shared axes from growing with later rows
    for axes in grid[-1]:
        axes.set_xlabel("step")
    for column in range(3):
        _shared_legend(grid[:, column])
    return figure


def draw_series(
    axes: Axes,
    metrics: Metrics,
    series: Mapping[str, Array],
    *,
    log: bool = False,
    floor: float | None = None,
    raw: bool = True,
    legend: bool = True,
    empty: str = "no values",
) -> None:
    """Draw each series as a smoothed line over its faint raw values; write `empty` if no series has a value."""
    window = smoothing_window(len(metrics.steps_n))
    palette = colours(series) | {name: colour for name, colour in ALONE.items() if name in series}
    drawn = {name: v for name, v in series.items() if np.isfinite(v).any()}
    if not drawn:
        style: dict[str, Any] = {
            "ha": "center",
            "va": "center",
            "color": "#555555",
            "fontsize": 9,
            "backgroundcolor": "white",
        }
        axes.text(0.5, 0.5, empty, transform=axes.transAxes, **style)
        return
    keep = np.unique(np.linspace(0, len(metrics.steps_n) - 1, POINTS).astype(int))
    for name, values_n in drawn.items():
        smooth_n = smooth(values_n, window) if raw else values_n
        single = len(metrics.steps_n) == 1
        if raw and window > 1:
            faint: dict[str, Any] = {"alpha": 0.22, "linewidth": 0.7, "rasterized": True, "zorder": 1}
            axes.plot(metrics.steps_n, values_n, color=palette[name], **faint)
        axes.plot(
            metrics.steps_n[keep],
            smooth_n[keep],
            color=palette[name],
            linewidth=1.8,
            label=literal(name),
            marker="o" if single else None,
        )
    if log and all((v[np.isfinite(v)] > 0).all() for v in drawn.values()):
        axes.set_yscale("log")
    elif floor is not None:
        axes.set_ylim(bottom=floor)
    if legend and len(series) > 1:
        _legend(axes)


def literal(name: str) -> str:
    """A name for a figure, in which matplotlib would take what is between two `$` for mathematics."""
    return name.replace("$", r"\$")


@contextmanager
def without_glyph_warnings() -> Iterator[None]:
    """Save a figure without a warning for each character that the font lacks, which is drawn as a box.

    matplotlib's warning holds the character itself, and that may be one that a terminal obeys.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="(?s)Glyph .* missing from font")
        yield


def to_svg(figure: Figure) -> bytes:
    """The figure as SVG without a ground, reproducible byte for byte; the faint raw lines are rasterised.

    Its ink and grid follow the reader's light or dark scheme; all other colours serve both.
    """
    buffer = io.BytesIO()
    with without_glyph_warnings(), mpl.rc_context({"svg.hashsalt": "fairhuman", "svg.fonttype": "path"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, dpi=110, transparent=True)
    head, mark, body = _CONTROL.sub(b"?", buffer.getvalue()).partition(b"<defs>")
    return head + DARK.encode() + mark + body


def _panel(title: str, unit: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    axes = figure.subplots()
    _dress(axes, title, unit)
    axes.set_xlabel("step")
    return figure, axes


def _two_panels() -> tuple[Figure, tuple[Axes, Axes]]:
    figure = Figure(figsize=SIZE, dpi=100, layout="constrained")
    top, bottom = figure.subplots(2, 1, sharex=True)
    return figure, (top, bottom)


def dress(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Axes with a grid behind what is drawn, small ticks and no frame above and to the right."""
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=9, colors=INK)


def _dress(axes: Axes, title: str, unit: str) -> None:
    axes.set_title(title, fontsize=11, color=INK, loc="left", fontweight="bold")
    axes.set_ylabel(unit, fontsize=10, color=INK)
    dress(axes)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _legend(axes: Axes) -> None:
    """A legend below the figure, where it covers no curve; axes of one figure share it."""
    figure = axes.get_figure(root=True)
    if figure is not None and not figure.legends:
        handles, labels = axes.get_legend_handles_labels()
        style: dict[str, Any] = {"fontsize": 9, "frameon": False, "handlelength": 1.4, "columnspacing": 1.2}
        column = 0.36 + 0.058 * max(map(len, map(str, labels)), default=0)  # inches of a handle, and of each letter
        columns = max(1, min(len(labels), 4, int(SIZE[0] / column)))
        figure.legend(handles, labels, loc="outside lower left", ncols=columns, **style)


def _shared_legend(column: Iterable[Axes]) -> None:
    """One legend below a column with every series that occurs in it."""
    found: dict[str, Artist] = {}
    axes_of_column = list(column)
    for axes in axes_of_column:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(str(label), handle)
    if found:
        axes_of_column[-1].legend(
            list(found.values()),
            list(found),
            fontsize=9,
            frameon=False,
            ncols=len(found),
            loc="upper center",
            bbox_to_anchor=(0.5, -0.42),
            handlelength=1.4,
            columnspacing=1.0,
        )
