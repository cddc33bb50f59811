"""The demo's report: the base and the three ways of training it, side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from fairhuman.config import to_yaml
from fairhuman.demo.settings import DemoSettings
from fairhuman.evaluate.page import number_text
from fairhuman.evaluate.results import EvaluationResults
from fairhuman.evaluate.run import Evaluation
from fairhuman.evaluate.verdict import contrast_mark, verdicts
from fairhuman.models.locations import name_of
from fairhuman.report import plots
from fairhuman.report.changes import Series, base_loss, change, changes_figure, read_series
from fairhuman.report.colours import colours
from fairhuman.report.html import figure_uri, picture_uri, render_to
from fairhuman.report.outcome import verdict
from fairhuman.report.previews import PictureWithZooms, open_picture, read_previews, shot
from fairhuman.report.run_folder import read_metrics
from fairhuman.report.text import estimate_text
from fairhuman.report.training import SHEET
from fairhuman.stats.estimate import Estimate
from fairhuman.utils.shipped import SHIPPED

# What differs between the runs, in the order of the page. Of the four fixed weightings on the leaderboard of
# docs/evidence.md, at this learning rate, FIXED's global loss ended next to MPD's.
FIXED = {"global": 1.0, "face": 0.15, "hand": 0.1}
METHODS: Mapping[str, Mapping[str, Any]] = {
    "ls": {"strategy": "ls"},
    "fixed": {"strategy": "ls", "fairness": {"weights": FIXED}},
    "mpd": {"strategy": "mpd"},
}
TITLES = {"base": "base", "ls": "LS", "fixed": "fixed weights", "mpd": "MPD"}
SHOWN = 8  # samples on the page
Stages = list[tuple[str, PictureWithZooms]]


@dataclass(frozen=True)
class Samples:
    """Samples of all models in `TITLES` for the same prompts: files by title, in the order of the prompts.

    `measured` is the evaluation of their faces and hands; where it wasn't run, it is None and `note` says why.
    """

    prompts: Sequence[str]
    pictures: Mapping[str, Sequence[Path]]
    measured: Evaluation | None
    note: str = ""


def write_demo_report(
    out: Path, runs: Mapping[str, Path], samples: Samples, settings: DemoSettings, facts: Sequence[tuple[str, str]]
) -> Path:
    """Write `report.html` into the demo's folder from its runs, by the names in `METHODS`, and return its path.

    Raises:
        DataError: the runs have no held-out losses, or were evaluated on different samples.
    """
    series = {name: read_series([run]) for name, run in runs.items()}
    names, model = list(series["ls"].first), settings.model
    palette = colours(names)
    changes = {TITLES[method]: {name: change(one, name) for name in names} for method, one in series.items()}
    overlay = open_picture(runs["mpd"], "overlay.png")
    titled = {method if method in plots.STRATEGIES else TITLES[method]: run for method, run in runs.items()}
    measured = samples.measured
    return render_to(
        out / "report.html",
        "demo.html",
        title=f"Fair fine-tuning of {'a small model' if model in SHIPPED else name_of(model).title}",
        settings=settings,
        settings_text=to_yaml(settings),
        facts=facts,
        changes=[_line(series, changes, name, palette[name]) for name in names],
        changes_plots=[figure_uri(changes_figure(changes, stacked=stacked)) for stacked in (False, True)],
        titles=list(TITLES.values()),
        weights=" : ".join(f"{weight:g}" for weight in FIXED.values()),
        methods=list(changes),
        numbers=_numbers(measured.found) if measured else [],
        verdicts=verdicts(measured.found) if measured else [],
        evaluation=measured.page.relative_to(out).as_posix() if measured else None,
        note=samples.note,
        rows=_held_out(runs),
        samples=[(samples.prompts[i], _drawn(samples, i)) for i in range(min(SHOWN, len(samples.prompts)))],
        samples_count=len(samples.prompts),
        strategies_plots=[figure_uri(plots.strategies_figure(titled, stacked)) for stacked in (False, True)],
        coverage_plot=figure_uri(plots.coverage_figure(read_metrics(runs["mpd"]))),
        overlay=picture_uri(overlay, SHEET, quality=80) if overlay else None,
        links=[(TITLES[name], (run / "report.html").relative_to(out).as_posix()) for name, run in runs.items()],
    )


def _line(
    series: Mapping[str, Series], changes: Mapping[str, Mapping[str, Estimate]], name: str, colour: str
) -> dict[str, Any]:
    """A table row: MPD's change minus that of fixed weights, each method's change, loss of the base."""
    shown = [change(series["mpd"], name, series["fixed"]), *(each[name] for each in changes.values())]
    return {
        "name": name,
        "colour": colour,
        "base": estimate_text(base_loss(series["ls"], name)),
        "cells": [_cell(estimate) for estimate in shown],
    }


def _cell(estimate: Estimate) -> tuple[str, str]:
    return verdict(estimate)[0], estimate_text(estimate, "{:+.1f}", signed=True, percent=True)


def _numbers(found: EvaluationResults) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Name and description of each metric and its value per method, with the CSS class of a significant difference."""
    marks = {(one.metric, one.method): contrast_mark(one) for one in found.corrected()}
    metrics = dict.fromkeys(result.metric for result in found.results)
    numbers = {(result.metric, result.method): result.measured for result in found.results}
    return [
        (
            m.name,
            m.what,
            [(marks.get((m, title), ""), number_text(m, numbers.get((m, title)))) for title in TITLES.values()],
        )
        for m in metrics
    ]


def _held_out(runs: Mapping[str, Path]) -> list[tuple[str, Stages]]:
    """The preview rows of all runs side by side: the picture, then the base's result and each method's."""
    rows = []
    for each in zip(*(read_previews(runs[method])[0] for method in METHODS), strict=True):
        shots = {"held-out picture": each[0].photo, "base": each[0].before}
        shots |= {TITLES[method]: row.after for method, row in zip(METHODS, each, strict=True)}
        rows.append((each[0].caption, [(title, shown) for title, shown in shots.items() if shown is not None]))
    return rows


def _drawn(samples: Samples, number: int) -> Stages:
    stages = []
    for title in TITLES.values():
        with Image.open(samples.pictures[title][number], formats=("PNG",)) as file:
            picture = file.convert("RGB")
        shown = shot(picture, _boxes(samples.measured, title, number), picture.size)
        if shown is not None:
            stages.append((title, shown))
    return stages


def _boxes(measured: Evaluation | None, title: str, number: int) -> dict[str, list[tuple[float, ...]]] | None:
    """Boxes of one sample by region; None if the samples weren't evaluated."""
    if measured is None:
        return None
    found = measured.found.detections[title][number]
    parts = {"face": found.faces, "hand": found.hands}
    return {name: [(p.box.x0, p.box.y0, p.box.x1, p.box.y1) for p in each] for name, each in parts.items()}
