"""Change in held-out loss that fine-tuning made: runs of several methods against their common base, over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from fairhuman.errors import DataError
from fairhuman.report.colours import colours
from fairhuman.report.plots import INK, dress, literal
from fairhuman.report.run_folder import HeldOutEvaluation, read_validation
from fairhuman.stats.bootstrap import Array, change_over_seeds, pooled_ratio
from fairhuman.stats.estimate import Estimate

Sums = Mapping[str, tuple[Array, Array]]
Pair = tuple[HeldOutEvaluation, HeldOutEvaluation]
SAME_NOISE = 1e-2  # relative tolerance of a sample's loss: another machine differs by up to 0.5 %, other noise by 20 %


@dataclass(frozen=True)
class Series:
    """Held-out error and area sums of one method's runs, before and after training.

    Attributes:
        keys: the N held-out samples, sorted.
        first, last: errors and areas by objective, [S, N] each; one row per run (seed).
    """

    keys: tuple[str, ...]
    first: Sums
    last: Sums


def read_pair(run: Path) -> Pair:
    """Read the first and last held-out evaluation of a run.

    Raises:
        DataError: the run has fewer than two evaluations, or the first is not of the weights before training.
    """
    evaluations = read_validation(run)
    if len(evaluations) < 2:
        raise DataError(f"{run}: expected held-out losses before and after, found {len(evaluations)} evaluations")
    if evaluations[0].step > 0:
        raise DataError(
            f"{run}: boxes, captions or sizes of its held-out pictures were changed before step {evaluations[0].step}, "
            "so nothing was measured before training; train it again in another folder"
        )
    return evaluations[0], evaluations[-1]


def read_series(runs: Sequence[Path]) -> Series:
    """Read the runs of one method; raises the errors of `read_pair` and `series_of`."""
    return series_of({str(run): read_pair(run) for run in runs})


def series_of(pairs: Mapping[str, Pair]) -> Series:
    """Stack the evaluations of one method's runs, given by run name.

    Raises:
        DataError: a run was evaluated on other samples than the first run.
    """
    first_run = next(iter(pairs))
    keys = tuple(sorted(pairs[first_run][0].keys))
    for run, pair in pairs.items():
        if any(tuple(sorted(evaluation.keys)) != keys for evaluation in pair):
            raise DataError(f"{run}: other held-out samples than in {first_run}; the runs can't be compared")
    return Series(keys, _stack([first for first, _ in pairs.values()]), _stack([last for _, last in pairs.values()]))


def change(series: Series, objective: str, against: Series | None = None, level: float = 0.95) -> Estimate:
    """Relative change of a held-out loss, or the difference of two methods' changes; see `change_over_seeds`.

    Raises:
        DataError: the methods weren't evaluated on the same samples and noise (they may run on different machines).
    """
    first, last = series.first[objective], series.last[objective]
    if against is None:
        return change_over_seeds(first, last, level=level)
    check_paired(series, against, objective)
    return change_over_seeds(first, last, against.last[objective], level=level)


def check_paired(series: Series, against: Series, objective: str) -> None:
    """Check that two methods were evaluated on the same samples and noise; they may have run on different machines.

    Raises:
        DataError: they weren't.
    """
    first, other = series.first[objective], against.first[objective]
    if (
        series.keys != against.keys
        or first[0].shape != other[0].shape
        or not np.allclose(first, other, rtol=SAME_NOISE)
    ):
        raise DataError(f"{objective}: the base's losses differ between the two methods' runs, so they aren't paired")


def base_loss(series: Series, objective: str) -> Estimate:
    """Held-out loss before fine-tuning, averaged over seeds."""
    errors_sn, areas_sn = series.first[objective]
    return pooled_ratio(errors_sn.mean(axis=0), areas_sn.mean(axis=0))


def seed_changes(series: Series, objective: str) -> list[float]:
    """Relative change of the held-out loss for each seed."""
    (errors0, areas0), (errors1, areas1) = series.first[objective], series.last[objective]
    losses0, losses1 = errors0.sum(axis=1) / areas0.sum(axis=1), errors1.sum(axis=1) / areas1.sum(axis=1)
    return [float(value) for value in losses1 / losses0 - 1]


def changes_figure(
    estimates: Mapping[str, Mapping[str, Estimate]],
    seeds: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    stacked: bool = False,
) -> Figure:
    """Change in held-out loss in percent with its interval: one panel per objective, one line per method.

    Changes of individual seeds are small dots. The panels are side by side, or `stacked` for a phone.
    """
    names = list(next(iter(estimates.values())))
    height = 1.3 + 0.42 * len(estimates)
    size = (3.6, 0.85 * height * len(names)) if stacked else (9.6, height)
    figure = Figure(figsize=size, dpi=100, layout="constrained")
    shape = (len(names), 1) if stacked else (1, len(names))
    panels = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
    for axes, (name, colour) in zip(panels, colours(names).items(), strict=True):
        axes.axvline(0.0, color="#888888", linewidth=1.0)
        for row, (method, found) in enumerate(estimates.items()):
            value, low, high = (100 * number for number in (found[name].value, found[name].low, found[name].high))
            axes.plot([low, high], [row, row], color=colour, linewidth=2.0)
            axes.plot(value, row, marker="o", color=colour, markersize=6)
            each = (seeds or {}).get(method, {}).get(name, ())
            axes.plot(
                100 * np.asarray(each), np.full(len(each), row + 0.25), ".", color=colour, alpha=0.5, markersize=4
            )
        axes.set_title(literal(name), fontsize=11, color=INK, loc="left", fontweight="bold")
        axes.set_xlabel("change in held-out loss, %", fontsize=9, color=INK)
        dress(axes, "x")
        axes.spines["left"].set_visible(False)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
        axes.tick_params(left=False)
    panels[0].set_ylim(len(estimates) - 0.4, -0.6)
    if not stacked:
        panels[0].set_yticks(range(len(estimates)), [literal(name) for name in estimates])
        return figure
    panels[0].set_yticks([])
    for axes in panels:  # names above the lines leave these the whole width
        for row, method in enumerate(estimates):
            place = (0.01, row - 0.14)
            axes.text(*place, literal(method), transform=axes.get_yaxis_transform(), va="bottom", fontsize=9, color=INK)
    return figure


def _stack(evaluations: Sequence[HeldOutEvaluation]) -> Sums:
    """Sums by objective with samples sorted by key, since each seed lists them in a different order."""
    orders = [np.argsort(np.array(evaluation.keys)) for evaluation in evaluations]

    def rows(columns: Sequence[Array]) -> Array:
        return np.stack([column[order] for column, order in zip(columns, orders, strict=True)])

    return {
        name: (rows([e.errors[name] for e in evaluations]), rows([e.areas[name] for e in evaluations]))
        for name in evaluations[0].errors
    }
