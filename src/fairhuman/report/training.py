"""The report of a training run: settings, before/after pictures, held-out losses and training curves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fairhuman.report import plots
from fairhuman.report.colours import colours
from fairhuman.report.html import figure_uri, picture_uri, render
from fairhuman.report.previews import open_picture, read_previews
from fairhuman.report.run_folder import HeldOutEvaluation, Metrics, read_json, read_metrics, read_validation
from fairhuman.stats.bootstrap import pooled_ratio, relative_change
from fairhuman.stats.estimate import Estimate
from fairhuman.utils.files import write_text

SHEET = 2200  # longest side of the overlay sheet in pixels
HEAD = ("model", "strategy", "steps", "data", "batch_size", "resolution", "learning_rate", "seed")


def write_training_report(run: Path) -> Path:
    """Write `report.html` into the run's folder and return its path.

    The page is self-contained, without scripts or requests. It states which of the run's files are missing.
    """
    metrics, evaluations = read_metrics(run), read_validation(run)
    recipe_text = _text(run / "recipe.yaml")
    recipe, notes = _recipe(recipe_text)
    previews, (before, after) = read_previews(run)
    overlay = open_picture(run, "overlay.png")
    summary = read_json(run / "summary.json")
    page = render(
        "training.html",
        title=f"Training report: {recipe.get('strategy', '?')} on {recipe.get('model', 'an unknown model')}",
        subtitle=f"Run {run.resolve().name}",
        facts=_facts(recipe, metrics, evaluations, summary),
        notes=notes,
        previews=previews,
        before=before,
        after=after,
        has_drawn=any(row.drawn for row in previews),
        heldout=_heldout_lines(evaluations),
        heldout_steps=(evaluations[0].step, evaluations[-1].step) if evaluations else None,
        heldout_plot=_heldout_plot(evaluations),
        plots=_training_plots(metrics),
        window=plots.smoothing_window(len(metrics.steps_n)),
        overlay=picture_uri(overlay, SHEET, quality=80) if overlay else None,
        left_out=_left_out(run / "data_report.json"),
        recipe=recipe_text,
        machine=[(name, _plain(value)) for name, value in _flat(summary)],
    )
    path = run / "report.html"
    write_text(path, page)
    return path


def _facts(
    recipe: Mapping[str, Any], metrics: Metrics, evaluations: Sequence[HeldOutEvaluation], summary: Mapping[str, Any]
) -> list[tuple[str, str]]:
    facts = [(name.replace("_", " "), _plain(recipe[name])) for name in HEAD if name in recipe]
    if len(metrics.steps_n):
        facts.append(("steps done", f"{int(metrics.steps_n[-1]):,}"))
        if "images" in metrics.columns:
            facts.append(("training pictures seen", f"{np.nanmax(metrics.columns['images']):,.0f}"))
        if "images_per_s" in metrics.columns and np.isfinite(metrics.columns["images_per_s"]).any():
            facts.append(("pictures per second (median)", f"{np.nanmedian(metrics.columns['images_per_s']):.3g}"))
        facts.append(("steps skipped (inf or NaN)", f"{np.nansum(metrics.columns.get('skipped', np.zeros(1))):.0f}"))
    if evaluations:
        facts.append(("held-out samples", f"{len(evaluations[0].keys):,}"))
    # Scalar values of the summary, such as wall time; the full summary is further down the page.
    alone = {name: value for name, value in summary.items() if not isinstance(value, dict | list)}
    return facts + [(name.replace("_", " "), _plain(value)) for name, value in alone.items()]


def _recipe(text: str) -> tuple[dict[str, Any], list[str]]:
    try:
        recipe = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        return {}, [f"recipe.yaml can't be read: {error}"]
    return (recipe, []) if isinstance(recipe, dict) else ({}, ["recipe.yaml holds no settings"])


def _heldout_lines(evaluations: Sequence[HeldOutEvaluation]) -> list[dict[str, str]]:
    """One table row per objective: first and last loss, and their paired change if the samples are the same."""
    if not evaluations:
        return []
    first, last = evaluations[0], evaluations[-1]
    names = [name for name in first.errors if name in last.errors]
    palette = colours(names)
    lines = []
    for name in names:
        before = pooled_ratio(first.errors[name], first.areas[name])
        after = pooled_ratio(last.errors[name], last.areas[name])
        change = _change(first, last, name) if last is not first else None
        sign, words = verdict(change)
        lines.append(
            {
                "name": name,
                "colour": palette[name],
                "n": str(before.n),
                "first": interval(before, "{:.4g}"),
                "last": interval(after, "{:.4g}"),
                "change": interval(change, "{:+.1%}") if change else "-",
                "sign": sign,
                "words": words,
            }
        )
    return lines


def _change(first: HeldOutEvaluation, last: HeldOutEvaluation, name: str) -> Estimate | None:
    """Paired change of one objective; None if the samples differ."""
    if first.keys != last.keys or len(first.errors[name]) != len(last.errors[name]):
        return None
    return relative_change((first.errors[name], first.areas[name]), (last.errors[name], last.areas[name]))


def verdict(change: Estimate | None) -> tuple[str, str]:
    """CSS class (`down`, `up` or none) and wording of a change, by whether its interval excludes 0."""
    if change is None:
        return "", "no second evaluation of the same samples"
    if change.n == 0:
        return "", "no held-out sample has the region"
    if not np.isfinite(change.value):
        return "", "not finite"
    if change.high < 0:
        return "down", "lower"
    return ("up", "higher") if change.low > 0 else ("", "no clear change")


def _heldout_plot(evaluations: Sequence[HeldOutEvaluation]) -> str | None:
    if len(evaluations) < 2:
        return None
    first = evaluations[0]
    comparable = [e for e in evaluations if e.keys == first.keys]
    series = {}
    for name in first.errors:
        changes = [_change(first, e, name) for e in comparable if name in e.errors]
        if len(changes) == len(comparable) and all(change and np.isfinite(change.value) for change in changes):
            series[name] = [change for change in changes if change]
    return figure_uri(plots.validation_figure([e.step for e in comparable], series)) if series else None


def _training_plots(metrics: Metrics) -> list[tuple[str, str]]:
    if not len(metrics.steps_n):
        return []
    figures = {
        "Training losses": plots.losses_figure,
        "Weights of the objectives": plots.weights_figure,
        "Cosines between gradients": plots.cosines_figure,
        "Coverage and area of the regions": plots.coverage_figure,
        "Learning rate and norm of the update direction": plots.optimiser_figure,
    }
    return [(name, figure_uri(draw(metrics))) for name, draw in figures.items()]


def _left_out(path: Path) -> list[tuple[str, str, int]] | None:
    """(action, reason, count) from the notes on the data, most frequent first; None if the file is missing."""
    if not path.is_file():
        return None
    counts = read_json(path).get("counts", {})
    lines = [
        (str(action), str(reason), int(count))
        for action, reasons in counts.items()
        if isinstance(reasons, dict)
        for reason, count in reasons.items()
    ]
    return sorted(lines, key=lambda line: -line[2])


def _flat(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested settings as (name, value) pairs with dotted names, such as `versions.torch`."""
    lines = []
    for name, value in values.items():
        lines += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(f"{prefix}{name}", value)]
    return lines


def interval(estimate: Estimate, form: str) -> str:
    """`value [low, high]`, each formatted with `form`; a dash if the value isn't finite."""
    if not np.isfinite(estimate.value):
        return "-"
    value, low, high = (form.format(number) for number in (estimate.value, estimate.low, estimate.high))
    return f"{value} [{low}, {high}]"


def _plain(value: object) -> str:
    if isinstance(value, bool | str) or value is None:
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
