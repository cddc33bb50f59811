"""The report of an evaluation: metrics with intervals, their limits, and the best and worst pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import yaml

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.evaluate.pace import PLANNED
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.evaluate.results import Contrast, EvaluationResults, Methods, Metric
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.report.html import picture_uri, render
from fairhuman.report.text import duration
from fairhuman.stats.paired import Measured
from fairhuman.utils.files import write_text

SHOWN = 6  # pictures with the lowest and with the highest scores
SIDE = 220  # longer side of a picture in pixels
SIGNIFICANCE = 0.05  # significance level


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
    contrasts = {(one.metric, one.method): one for one in found.corrected()}
    others = [method for method in methods if method != baseline] if baseline is not None else []
    page = render(
        "evaluate.html",
        title="Evaluation",
        methods=[(name, len(pictures)) for name, pictures in methods.items()],
        reference=len(reference) if reference is not None else None,
        baseline=baseline,
        others=others,
        numbers=[
            (metric, [number_text(metric, numbers.get((metric, name))) for name in methods]) for metric in metrics
        ],
        differences=[(metric, [_difference(contrasts.get((metric, name))) for name in others]) for metric in metrics],
        warnings=found.warnings,
        left_out=[
            (name, note.file, note.reason, note.value) for name, report in reports.items() for note in report.skipped()
        ],
        ends=[_ends(metric, methods, found) for metric in metrics if _shown(metric, found)],
        seconds=[
            (what, pictures, f"{seconds:.3g}", duration(PLANNED * seconds))
            for what, (pictures, seconds) in found.seconds.items()
        ],
        planned=PLANNED,
        peak=f"{found.peak_mb / 1000:.1f} GB",
        settings_text=yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False),
    )
    path = out / "report.html"
    write_text(path, page)
    return path


def number_text(metric: Metric, measured: Measured | None) -> str:
    """`value [low, high]`; a dash if there is no value."""
    if measured is None or np.isnan(measured.value):
        return "-"
    value, low, high = (metric.form.format(number) for number in (measured.value, measured.low, measured.high))
    return f"{value} [{low}, {high}]"


def _difference(contrast: Contrast | None) -> tuple[str, str, str]:
    """CSS class, text and p-value of a difference."""
    if contrast is None or np.isnan(contrast.difference.measured.value):
        return "", "-", "-"
    measured = contrast.difference.measured
    text = f"{measured.value:+.3g} [{measured.low:+.3g}, {measured.high:+.3g}]"
    return contrast_mark(contrast), text, f"{contrast.corrected:.2g}"


def contrast_mark(contrast: Contrast) -> str:
    """CSS class of a cell: whether a method is significantly better or worse after Holm's correction."""
    gained = (contrast.difference.measured.value > 0) == (contrast.metric.better == "higher")
    return ("down" if gained else "up") if contrast.corrected < SIGNIFICANCE else ""


def _shown(metric: Metric, found: EvaluationResults) -> bool:
    return metric.by_picture and any(metric.name in columns for columns in found.columns.values())


def _ends(
    metric: Metric, methods: Methods, found: EvaluationResults
) -> tuple[str, list[tuple[str, list[tuple[str, str]]]]]:
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
        (title, [(f"{text} {value:.3g}", picture_uri(picture.image(), SIDE)) for value, text, picture in row])
        for title, row in rows.items()
    ]
