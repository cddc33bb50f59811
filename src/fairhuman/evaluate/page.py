"""The report of an evaluation: a verdict in words, differences and values with intervals, best and worst pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.config import to_yaml
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.evaluate.pace import PLANNED, task_words
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.results import Contrast, EvaluationResults, Methods, Metric
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.evaluate.verdict import FEW, MARGIN, Verdict, contrast_mark, verdicts
from fairhuman.report.html import picture_uri, render_to
from fairhuman.report.text import duration, estimate_text, percent, plural
from fairhuman.stats.paired import Measured

SHOWN = 6  # pictures with the lowest and with the highest scores
LEAST_P = 0.0001  # smaller ones are printed as less than it
SIDE = 220  # longer side of a picture in pixels


def write_page(
    baseline: str | None,
    settings: EvaluateSettings,
    out: Path,
    methods: Methods,
    reference: Sequence[EvalImage] | None,
    reports: Mapping[str, LoadReport],
    found: EvaluationResults,
) -> Path:
    """Write `report.html` and return its path."""
    metrics = list(dict.fromkeys(result.metric for result in found.results))
    numbers = {(result.metric, result.method): result.measured for result in found.results}
    contrasts = found.corrected()
    return render_to(
        out / "report.html",
        "evaluate.html",
        title="Evaluation",
        methods=[(name, len(pictures)) for name, pictures in methods.items()],
        reference=len(reference) if reference is not None else None,
        baseline=baseline,
        alone=alone_text(methods),
        comparisons=[_comparison(verdict, contrasts, numbers) for verdict in verdicts(found)],
        differences=len(contrasts),
        margin=percent(MARGIN),
        few=FEW,
        numbers=[
            (metric, [number_text(metric, numbers.get((metric, name))) for name in methods]) for metric in metrics
        ],
        warnings=found.warnings,
        left_out=[
            (name, note.file, note.reason, note.value) for name, report in reports.items() for note in report.skipped()
        ],
        ends=[_ends(metric, methods, found) for metric in metrics if _shown(metric, found)],
        seconds=[
            (task_words(what), pictures, f"{seconds:.3g}", duration(PLANNED * seconds))
            for what, (pictures, seconds) in found.seconds.items()
        ],
        planned=PLANNED,
        peak=f"{found.peak_mb / 1000:.1f} GB",
        settings_text=to_yaml(settings),
    )


def alone_text(methods: Methods) -> str:
    """What stands in place of a verdict where there is only one method."""
    name, pictures = next(iter(methods.items()))
    return (
        f"{name}: {plural(len(pictures), 'picture')}. One set has numbers and no verdict; add a second one to compare "
        "with, as --method NAME=FOLDER."
    )


def number_text(metric: Metric, measured: Measured | None) -> str:
    """`value [low, high]` with the digits that the interval allows; a dash if it wasn't measured."""
    return "-" if measured is None else _single(measured) or estimate_text(measured, metric.form)


def difference_text(contrast: Contrast) -> str:
    """A difference with its interval, or that all pairs are equal."""
    measured = contrast.difference.measured
    if contrast.difference.equal:
        return f"{plural(measured.n, 'pair')}, all equal"
    return _single(measured, "+") or estimate_text(measured, "{:+.3g}", signed=True)


def _single(measured: Measured, sign: str = "") -> str:
    """A number that rests on a single prompt, which has no interval; empty for others."""
    return f"{measured.value:{sign}.2f}, 1 prompt" if measured.informing == 1 else ""


def _comparison(
    verdict: Verdict, contrasts: Sequence[Contrast], numbers: Mapping[tuple[Metric, str], Measured]
) -> tuple[Verdict, list[dict[str, Any]]]:
    """A verdict and a row for each difference behind it."""
    rows = [
        {
            "name": one.metric.name,
            "mark": contrast_mark(one),
            "text": difference_text(one),
            "plot": forest(one),
            "p": _p_text(one.corrected),
            "values": [number_text(one.metric, numbers.get((one.metric, name))) for name in (one.method, one.against)],
        }
        for one in contrasts
        if one.method == verdict.method
    ]
    return verdict, rows


def _p_text(p: float) -> str:
    return "" if np.isnan(p) else f"{p:.2g}" if p >= LEAST_P else f"< {LEAST_P}"


def forest(contrast: Contrast) -> tuple[float, float, float] | None:
    """Low end, value and high end of a difference as places in -1..1, positive is better; None without an interval."""
    measured = contrast.difference.measured
    ends = np.array([measured.low, measured.value, measured.high])
    reach = np.abs(ends).max()
    if contrast.difference.equal or not np.isfinite(reach) or reach == 0 or measured.informing == 1:
        return None
    places = ends / reach if contrast.metric.better == "higher" else -ends[::-1] / reach
    return tuple(round(float(place), 3) for place in places)  # type: ignore[return-value]


def _shown(metric: Metric, found: EvaluationResults) -> bool:
    return metric.by_picture and any(metric.name in columns for columns in found.columns.values())


def _ends(
    metric: Metric, methods: Methods, found: EvaluationResults
) -> tuple[str, list[tuple[str, list[tuple[str, str, str]]]]]:
    """The pictures of all methods with the lowest and highest values of a metric."""
    rated = [
        (float(value), f"{name}: {picture.name}", picture)
        for name, pictures in methods.items()
        for picture, value in zip(pictures, found.columns.get(name, {}).get(metric.name, ()), strict=False)
        if np.isfinite(value)
    ]
    rated.sort(key=lambda one: one[:2])
    rows = {"lowest": rated[:SHOWN], "highest": rated[::-1][:SHOWN]}
    return metric.name, [
        (
            title,
            [
                (text, f"{value:.3f}" if abs(value) < 100 else f"{value:.0f}", picture_uri(picture.image(), SIDE))
                for value, text, picture in row
            ],
        )
        for title, row in rows.items()
    ]
