"""The statistics page of a data set and its figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

from fairhuman.data.look.statistics import Statistics, describe
from fairhuman.data.look.tally import Numbers, RegionStatistics
from fairhuman.data.pictures.filters import Relevance
from fairhuman.report.colours import REGION_COLOURS, colours
from fairhuman.report.html import figure_uri, render
from fairhuman.report.plots import INK, SIZE, dress, literal
from fairhuman.report.text import funnel_rows
from fairhuman.utils.files import write_text, writing
from fairhuman.utils.parse import escape_control

BLUE = REGION_COLOURS["global"]
BINS = 40
LOG_RATIO = 4.0  # ratio of largest to smallest value above which an axis is logarithmic
MAX_BOXES = 6  # this many or more boxes share a bar
MIN_SHARE = 1e-5  # lower end of the axis of area shares
TRAINING_SIDE = 1024  # pixels; SDXL's training resolution
LINES = ("solid", "dashed", "dotted", "dashdot")


def write_statistics(statistics: Statistics, page: Path) -> None:
    """Write the page.

    Raises:
        FairHumanError: the page can't be written.
    """
    report = statistics.report
    regions = {name: region for name, region in statistics.regions.items() if region.has or region.none}
    text = render(
        "data_statistics.html",
        title=f"{escape_control(statistics.path.resolve().name)}: {statistics.records:,} records",
        facts=_facts(statistics),
        funnel=None if report is None else funnel_rows([(step["stage"], step["rows"]) for step in report["funnel"]]),
        funnel_plot=None if report is None else figure_uri(funnel_figure(report["funnel"])),
        rejected=[]
        if report is None
        else [
            (stage, why, number)
            for stage, reasons in report.get("rejected", {}).items()
            for why, number in reasons.items()
        ],
        filters=[] if report is None else [(_wanted(rule), rule["unknown"]) for rule in report["filters"]],
        regions=[(name, colour, _region_line(statistics.regions[name])) for name, colour in colours(regions).items()],
        region_plots=[(name, figure_uri(figure)) for name, figure in _region_figures(regions)],
        plots=[(name, figure_uri(figure)) for name, figure in _picture_figures(statistics)],
        measures=[(name, _cells(values)) for name, values in _measures(statistics) if describe(values)],
        counts=[
            (name, counter.most_common(20), max(len(counter) - 20, 0))
            for name, counter in (("source", statistics.sources), ("split", statistics.splits))
            if counter
        ],
    )
    with writing(page):
        write_text(page, text)


def funnel_figure(funnel: Sequence[Mapping[str, object]]) -> Figure:
    """Records left after each stage, from top to bottom."""
    figure, axes = _axes("Records left after each stage", height=1.0 + 0.3 * len(funnel))
    rows = [int(str(step["rows"])) for step in funnel]
    axes.barh(range(len(funnel)), rows, color=BLUE)
    for place, left in enumerate(rows):
        share = f"  {percent(left / rows[0])}" if rows[0] else ""
        axes.text(left, place, f" {left:,}{share}", va="center", fontsize=9, color=INK)
    axes.set_yticks(range(len(funnel)), [str(step["stage"]) for step in funnel])
    axes.set_xticks([])
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(*rows, 1))
    axes.grid(visible=False)
    axes.spines["bottom"].set_visible(False)
    return figure


def known_figure(regions: Mapping[str, RegionStatistics]) -> Figure:
    """Shares of records that have, lack or don't annotate each region."""
    figure, axes = _axes("Annotated regions", "% of the records", height=1.1 + 0.42 * len(regions))
    palette = colours(regions)
    for place, (name, region) in enumerate(regions.items()):
        counts = np.array([region.has, region.none, region.unknown])
        left = 0.0
        for share, alpha, label in zip(100 * counts / counts.sum(), (1.0, 0.45, 0.12), ("", "none", "?"), strict=True):
            axes.barh(place, share, left=left, color=palette[name], alpha=alpha)
            text = f"{share:.0f} %{' ' + label if label else ''}"
            if share >= 9:
                ink = "white" if alpha == 1.0 else INK
                axes.text(left + share / 2, place, text, ha="center", va="center", fontsize=8, color=ink)
            left += share
    axes.set_yticks(range(len(regions)), [literal(name) for name in regions])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    return figure


def boxes_figure(regions: Mapping[str, RegionStatistics]) -> Figure:
    """Number of boxes per picture, over pictures with known boxes."""
    figure, axes = _axes("Boxes per picture", "number of boxes", "% of pictures with known boxes")
    drawn = {name: region for name, region in regions.items() if region.boxes.total()}
    palette = colours(regions)
    width = 0.8 / max(len(drawn), 1)
    for place, (name, region) in enumerate(drawn.items()):
        counts_n = np.zeros(MAX_BOXES + 1)
        for number, records in region.boxes.items():
            counts_n[min(number, MAX_BOXES)] += records
        shift = (place - (len(drawn) - 1) / 2) * width
        shares_n = 100 * counts_n / counts_n.sum()
        axes.bar(np.arange(MAX_BOXES + 1) + shift, shares_n, width, color=palette[name], label=literal(name))
    axes.set_xticks(range(MAX_BOXES + 1), [*map(str, range(MAX_BOXES)), f"{MAX_BOXES}+"])
    _legend(axes)
    return figure


def areas_figure(regions: Mapping[str, RegionStatistics]) -> Figure:
    """Share of the picture covered by a box; dashed: medians."""
    figure, axes = _axes("Area of a box", "share of the picture", "% of boxes")
    edges = np.geomspace(MIN_SHARE, 1.0, 61).tolist()
    for name, colour in colours(regions).items():
        shares = regions[name].area_shares
        if len(shares):
            weights = np.full(len(shares), 100 / len(shares))
            label = f"{literal(name)}, median {percent(float(np.median(shares)))}"
            shown = np.clip(shares, MIN_SHARE, 1.0)
            axes.hist(shown, edges, weights=weights, histtype="stepfilled", color=colour, alpha=0.45, label=label)
            axes.axvline(float(np.median(shares)), color=colour, linestyle="--", linewidth=1.3)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: percent(value)))
    _legend(axes)
    return figure


def scores_figure(regions: Mapping[str, RegionStatistics]) -> Figure:
    """Scores of boxes, by detector."""
    figure, axes = _axes("Scores of boxes", "score", "% of the boxes of one detector")
    for name, colour in colours(regions).items():
        for place, (by, scores) in enumerate(regions[name].scores.items()):
            if len(scores):
                style = LINES[place % len(LINES)]
                weights = np.full(len(scores), 100 / len(scores))
                shown = np.clip(scores, 0, 1)
                label = literal(f"{name}, {by}")
                axes.hist(
                    shown,
                    np.linspace(0, 1, 26).tolist(),
                    weights=weights,
                    histtype="step",
                    color=colour,
                    linestyle=style,
                    linewidth=1.6,
                    label=label,
                )
    _legend(axes)
    return figure


def histogram(title: str, unit: str, values: Numbers, whole: bool = False, mark: float | None = None) -> Figure:
    """Histogram of a measure of the records; dashed: its median, dotted: the reference value `mark`.

    A wide range of values gets a logarithmic axis; with `whole`, every bar covers the same number of integers.
    """
    figure, axes = _axes(title, unit, "% of the records")
    values = values[np.isfinite(values)]
    low, high = float(values.min()), float(values.max())
    wide = not whole and low > 0 and high > LOG_RATIO * low
    if whole:
        step = np.ceil((high - low + 1) / BINS)
        edges = np.arange(low - 0.5, high + step, step)
    else:
        edges = np.geomspace(low, high, BINS + 1) if wide else np.histogram_bin_edges(values, BINS)
    axes.hist(values, edges.tolist(), weights=np.full(len(values), 100 / len(values)), color=BLUE, alpha=0.75)
    median = float(np.median(values))
    axes.axvline(median, color=INK, linestyle="--", linewidth=1.2, label=f"median {median:.4g}")
    if mark is not None and low <= mark <= high:
        axes.axvline(mark, color=INK, linestyle=":", linewidth=1.2, label=f"{mark:g}")
    if wide:
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.4g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    _legend(axes)
    return figure


def percent(share: float) -> str:
    """Format a share in 0..1 as a percentage with three significant digits."""
    return f"{100 * share:.3g} %"


def _picture_figures(statistics: Statistics) -> list[tuple[str, Figure]]:
    measured = [
        ("Shorter side", "pixels", statistics.sides, False, TRAINING_SIDE),
        ("Width / height", "1 is square", statistics.aspects, False, 1.0),
        ("Words per caption", "words", statistics.words, True, None),
        ("Tokens per caption", "tokens, start and end included", statistics.tokens, True, 77),
        ("Clarity", "variance of the Laplacian, grey levels²", statistics.clarity, False, None),
    ]
    return [
        (title, histogram(title, unit, values, whole, mark))
        for title, unit, values, whole, mark in measured
        if np.isfinite(values).any()
    ]


def _region_figures(regions: Mapping[str, RegionStatistics]) -> list[tuple[str, Figure]]:
    if not regions:
        return []
    figures = [("annotated regions", known_figure(regions))]
    if any(region.boxes.total() for region in regions.values()):
        figures += [("boxes per picture", boxes_figure(regions)), ("areas of boxes", areas_figure(regions))]
    if any(region.scores for region in regions.values()):
        figures.append(("scores of boxes", scores_figure(regions)))
    return figures


def _facts(statistics: Statistics) -> list[tuple[str, str]]:
    report = statistics.report
    facts = [
        ("records", f"{statistics.records:,}"),
        ("format", statistics.kind if report is None else f"built from {report.get('format')}"),
        ("unreadable", f"{statistics.skipped:,}"),
        ("without a caption", f"{statistics.empty:,}"),
    ]
    if report is not None and report["funnel"]:
        facts.append(("records of the source", f"{report['funnel'][0]['rows']:,}"))
    return facts


def _wanted(rule: Mapping[str, Any]) -> str:
    """What a filter of a build asks for, such as `shorter side of at least 512 pixels`."""
    if rule["name"] == Relevance.name:
        return "a person, a face or a hand"
    ends = (("at least", rule["low"]), ("at most", rule["high"]))
    bounds = " and ".join(f"{word} {bound:.4g}" for word, bound in ends if bound is not None)
    return f"{rule['name']} of {bounds} {rule['unit']}".rstrip()


def _measures(statistics: Statistics) -> list[tuple[str, Numbers]]:
    areas = [(f"area of a box, {name}, %", 100 * region.area_shares) for name, region in statistics.regions.items()]
    return [
        ("shorter side, pixels", statistics.sides),
        ("width / height", statistics.aspects),
        ("words per caption", statistics.words),
        ("tokens per caption", statistics.tokens),
        ("clarity, grey levels²", statistics.clarity),
        *areas,
    ]


def _cells(values: Numbers) -> list[str]:
    found = describe(values) or {}
    return [
        f"{found['n']:,}",
        *(f"{found[name]:.4g}" for name in ("min", "p5", "p25", "p50", "p75", "p95", "max", "mean")),
    ]


def _region_line(region: RegionStatistics) -> list[str]:
    boxes = sum(number * records for number, records in region.boxes.items())
    median = percent(float(np.median(region.area_shares))) if len(region.area_shares) else ""
    numbers = (region.has, region.none, region.unknown, region.painted, boxes)
    return [*(f"{number:,}" for number in numbers), median, f"{region.unusable:,}" if region.unusable else ""]


def _axes(title: str, unit: str = "", share: str = "", height: float = SIZE[1]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(SIZE[0], height), dpi=100, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=11, color=INK, loc="left", fontweight="bold")
    axes.set_xlabel(unit, fontsize=9, color=INK)
    axes.set_ylabel(share, fontsize=9, color=INK)
    dress(axes)
    return figure, axes


def _legend(axes: Axes) -> None:
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=8, frameon=True, framealpha=0.85, edgecolor="none", borderpad=0.2, handlelength=1.4)
