"""The report of a training run: settings, before/after pictures, held-out losses and training curves."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.config import flatten
from fairhuman.record import region_column
from fairhuman.report import plots
from fairhuman.report.colours import colours
from fairhuman.report.html import figure_uri, picture_uri, render_to
from fairhuman.report.outcome import Outcome, hold_out_more, joined, moves_of, outcomes, paired_change
from fairhuman.report.previews import open_picture, read_previews
from fairhuman.report.run_folder import HeldOutEvaluation, Metrics, read_json, read_metrics, read_validation
from fairhuman.report.text import duration, estimate_text, percent, whole_percent
from fairhuman.utils.parse import parse_yaml

SHEET = 2200  # longest side of the overlay sheet in pixels
HEAD = ("model", "data", "strategy", "resolution", "learning_rate", "seed")
OPEN = 3  # preview rows that are shown at once; the others are folded
FEW_WHOLE = 0.8  # share of whole regions below which the page warns
LABELS = {"pictures": "training pictures", "cropped_share": "area cropped away", "peak_memory_mib": "peak memory"}


def write_training_report(run: Path) -> Path:
    """Write `report.html` into the run's folder and return its path.

    The page is self-contained, without scripts or requests. It states which of the run's files are missing.
    """
    metrics, evaluations = read_metrics(run), read_validation(run)
    recipe_text = _text(run / "recipe.yaml")
    recipe, notes = _recipe(recipe_text)
    previews, (before, after) = read_previews(run)
    moves = moves_of(previews)
    whole = before == 0 and all(one.step == 0 for one in evaluations[:1])
    found = outcomes(evaluations, moves if whole else {})  # otherwise they lack what came before
    sentences = joined([sentence for one in found if (sentence := one.sentence())])
    overlay = open_picture(run, "overlay.png")
    summary = read_json(run / "summary.json")
    return render_to(
        run / "report.html",
        "training.html",
        title=f"Training report: {recipe.get('strategy', '?')} on {recipe.get('model', 'an unknown model')}",
        subtitle=f"Run {run.resolve().name}" + _stopped(recipe, metrics),
        facts=_facts(recipe, metrics, evaluations, summary),
        notes=notes + _too_few(found, evaluations, summary) + _cut_off(_whole(metrics, summary)),
        sentences=sentences,
        sign=next((sign for sign in ("bad", "good") if sign in dict(sentences)), ""),
        previews=previews,
        no_previews=_no_previews(recipe),
        open=OPEN,
        moves={name: one.row() for name, one in moves.items()},
        before=before,
        after=after,
        has_drawn=any(row.drawn for row in previews),
        heldout=_heldout_lines(found),
        heldout_steps=(evaluations[0].step, evaluations[-1].step) if evaluations else None,
        heldout_plot=_heldout_plot(evaluations),
        plots=_training_plots(metrics),
        window=plots.smoothing_window(len(metrics.steps_n)),
        overlay=picture_uri(overlay, SHEET, quality=80) if overlay else None,
        data_lines=[str(line) for line in summary.get("data_lines", ())],
        left_out=_left_out(run / "data_report.json"),
        recipe=recipe_text,
        starts=_starts(summary),
        machine=[
            (name.rpartition(".")[2], _plain(value))
            for name, value in flatten(summary).items()
            if "." in name and value != {}
        ],
    )


def _facts(
    recipe: Mapping[str, Any], metrics: Metrics, evaluations: Sequence[HeldOutEvaluation], summary: Mapping[str, Any]
) -> list[tuple[str, str]]:
    facts = [(name.replace("_", " "), _with_unit(name, recipe[name])) for name in HEAD if name in recipe]
    facts += _fixed_weights(recipe)
    if len(metrics.steps_n):
        facts += _progress(recipe, metrics)
    facts += [(name, whole_percent(share)) for name, share in _whole(metrics, {}).items() if _key(name) not in summary]
    if evaluations:
        facts.append(("held-out pictures", f"{len(evaluations[0].keys):,}"))
    # Scalar values of the summary, such as the device; the full summary is further down the page.
    alone = {name: value for name, value in summary.items() if not isinstance(value, dict | list)}
    # The summary is written at each start and once more at the end.
    labels = LABELS | {"date": "last started (UTC)" if _stopped(recipe, metrics) else "finished (UTC)"}
    return facts + [(labels.get(name, name.replace("_", " ")), _with_unit(name, v)) for name, v in alone.items()]


def _too_few(
    found: Sequence[Outcome], evaluations: Sequence[HeldOutEvaluation], summary: Mapping[str, Any]
) -> list[str]:
    pictures = summary.get("pictures")
    held_out = len(evaluations[0].keys) if evaluations else 0
    return hold_out_more(found, held_out, pictures if isinstance(pictures, int) else None)


def _stopped(recipe: Mapping[str, Any], metrics: Metrics) -> str:
    """Where the run stopped; empty if it took all its steps, or if that isn't known."""
    done, wanted = int(metrics.steps_n[-1]) if len(metrics.steps_n) else 0, recipe.get("steps")
    return f", stopped at step {done:,} of {wanted:,}" if isinstance(wanted, int) and done < wanted else ""


def _no_previews(recipe: Mapping[str, Any]) -> str:
    """Why the page has no previews."""
    preview = recipe.get("preview")
    if isinstance(preview, dict) and preview.get("count") == 0 and not preview.get("prompts"):
        return "No previews: the run was told to draw none, by preview.count=0."
    return "No previews: previews/index.json is missing or lists no picture."


def _fixed_weights(recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The weights that a recipe fixes, where it names any."""
    fairness = recipe.get("fairness")
    weights = fairness.get("weights") if isinstance(fairness, dict) and recipe.get("strategy") == "ls" else None
    if not (isinstance(weights, dict) and weights):
        return []
    return [("fixed weights", ", ".join(f"{name} {_plain(value)}" for name, value in weights.items()))]


def _progress(recipe: Mapping[str, Any], metrics: Metrics) -> list[tuple[str, str]]:
    """Steps, pictures, speed and time of the steps in `metrics.jsonl`; previews and evaluations aren't timed there."""
    steps_n, none_n = metrics.steps_n, np.full(len(metrics.steps_n), np.nan)
    images_n, speed_n = metrics.columns.get("images", none_n), metrics.columns.get("images_per_s", none_n)
    done, wanted = int(steps_n[-1]), recipe.get("steps")
    facts = [("steps", f"{done:,}" + (f" of {wanted:,}" if isinstance(wanted, int) else ""))]
    if np.isfinite(images_n[-1]):
        facts.append(("training pictures seen", f"{images_n[-1]:,.0f}, {images_n[-1] / done:g} a step"))
    if np.isfinite(speed_n).any():
        seconds_n = images_n / steps_n / speed_n
        facts.append(("speed (median)", f"{np.nanmedian(speed_n):.3g} pictures/s"))
        facts.append(("time in steps", duration(float(np.nansum(seconds_n)))))
        if isinstance(wanted, int) and wanted > done:
            facts.append(("time left", f"about {duration((wanted - done) * float(np.nanmedian(seconds_n)))}"))
    skipped = np.nansum(metrics.columns.get("skipped", np.zeros(1)))
    return [*facts, ("steps skipped (inf or NaN)", f"{skipped:.0f}")]


def _whole(metrics: Metrics, summary: Mapping[str, Any]) -> dict[str, float]:
    """Share of boxes that are whole in view, by `whole REGIONS in view`: of the data set, else of the steps."""
    found = {
        f"whole {region_column(name)} in view": float(np.nanmean(values))
        for name, values in metrics.group("whole").items()
        if np.isfinite(values).any()
    }
    known = {name.replace("_", " "): value for name, value in summary.items() if name.startswith("whole_")}
    return {**found, **known}


def _key(name: str) -> str:
    return name.replace(" ", "_")


def _cut_off(whole: Mapping[str, float]) -> list[str]:
    return [
        f"{name[0].upper()}{name[1:]}: {whole_percent(share)}, the crop cuts the others off. See the overlay sheet, "
        "view.bucket_aspect and view.keep_region."
        for name, share in whole.items()
        if share < FEW_WHOLE
    ]


def _starts(summary: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """(step, date, settings that changed) of each start of the run; empty for runs that didn't note them."""
    return [
        (
            _plain(start.get("step")),
            _with_unit("date", start.get("date", "")),
            ", ".join(f"{name}: {old} → {new}" for name, (old, new) in start.get("changed", {}).items()) or "none",
        )
        for start in summary.get("starts", ())
    ]


def _recipe(text: str) -> tuple[dict[str, Any], list[str]]:
    try:
        recipe = parse_yaml(text) or {}
    except ValueError as error:
        return {}, [f"recipe.yaml can't be read: {error}"]
    return (recipe, []) if isinstance(recipe, dict) else ({}, ["recipe.yaml holds no settings"])


def _heldout_lines(found: Sequence[Outcome]) -> list[dict[str, str]]:
    """One table row per objective: first and last loss, and their paired change if the samples are the same."""
    palette = colours(one.name for one in found)
    lines = []
    for one in found:
        sign, words = one.verdict
        lines.append(
            {
                "name": one.name,
                "colour": palette[one.name],
                "n": str(one.before.n),
                "first": estimate_text(one.before),
                "last": estimate_text(one.after),
                "change": estimate_text(one.change, "{:.1f}", signed=True, percent=True) if one.change else "-",
                "sign": sign,
                "words": words,
            }
        )
    return lines


def _heldout_plot(evaluations: Sequence[HeldOutEvaluation]) -> str | None:
    if len(evaluations) < 2:
        return None
    first = evaluations[0]
    comparable = [e for e in evaluations if e.keys == first.keys]
    series = {}
    for name in first.errors:
        changes = [paired_change(first, e, name) for e in comparable if name in e.errors]
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
    if metrics.group("share"):  # older runs don't have it
        figures["Who decides the direction"] = plots.direction_figure
    if "floor" in metrics.columns:
        figures["Floor for the whole picture"] = plots.floor_figure
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


def _plain(value: object) -> str:
    if isinstance(value, bool | str) or value is None:
        return "none" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}" if isinstance(value, float) else json.dumps(value)


def _with_unit(name: str, value: object) -> str:
    """A setting or a value of `summary.json` with its unit."""
    if name == "resolution":
        sides = value if isinstance(value, list) else [value]
        return " x ".join(str(side) for side in sides) + (" px (height x width)" if len(sides) > 1 else " px")
    if name == "data" and isinstance(value, list):
        return ", ".join(str(source.get("path", source)) for source in value)
    if name == "cropped_share" and isinstance(value, float):
        return percent(value, 1)
    if name.startswith("whole_") and isinstance(value, float):
        return whole_percent(value)
    if name == "date":
        return str(value).replace("T", " ")[:16]
    if name == "peak_memory_mib" and isinstance(value, int):
        return f"{value:,} MiB"
    return _plain(value)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
