"""The report of a comparison."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image

from fairhuman.compare.analysis import Contrasts, Judged, document
from fairhuman.compare.paper.cost_page import read_costs, variants
from fairhuman.compare.paper.settings import CostSettings
from fairhuman.compare.pictures import GridResult
from fairhuman.compare.runs import ComparisonRuns, edge_note
from fairhuman.compare.settings import CompareRecipe
from fairhuman.config import to_yaml
from fairhuman.report.changes import base_loss, change, changes_figure, seed_changes
from fairhuman.report.colours import colours
from fairhuman.report.html import figure_uri, picture_uri, render_to
from fairhuman.report.outcome import verdict
from fairhuman.report.text import estimate_text, listed, percent
from fairhuman.utils.files import write_json
from fairhuman.utils.provenance import origin

MARKS = {"lower": "down", "higher": "up", "same": "", "undecided": ""}


def write_comparison(
    recipe: CompareRecipe, outcome: ComparisonRuns, differences: Contrasts, shown: GridResult | None = None
) -> Path:
    """Write `results.json` and `report.html` into the comparison's results folder; return the page's path."""
    write_json(recipe.results_folder / "results.json", {**origin(), **document(recipe, outcome, differences)})
    return write_page(recipe, outcome, differences, shown)


def write_page(
    recipe: CompareRecipe, outcome: ComparisonRuns, differences: Contrasts, shown: GridResult | None = None
) -> Path:
    """Write `report.html` into the comparison's results folder and return its path.

    Costs, if the recipe asks for them, are read from that folder.
    """
    first = next(iter(outcome.series.values()))
    names = list(first.first)
    palette = colours(names)
    estimates = {cell: {name: change(series, name) for name in names} for cell, series in outcome.series.items()}
    seeds = {cell: {name: seed_changes(series, name) for name in names} for cell, series in outcome.series.items()}
    return render_to(
        recipe.results_folder / "report.html",
        "compare.html",
        title="Comparison",
        names=[(name, palette[name]) for name in names],
        base=[estimate_text(base_loss(first, name)) for name in names],
        pictures=len(first.keys),
        one_seed=all(len(ended) == 1 for ended in outcome.seeds.values()),
        changes=[
            (
                cell,
                outcome.seeds[cell],
                [(verdict(one)[0], estimate_text(one, "{:+.2f}", signed=True, percent=True)) for one in found.values()],
            )
            for cell, found in estimates.items()
        ],
        plots=[figure_uri(changes_figure(estimates, seeds, stacked=stacked)) for stacked in (False, True)],
        verdicts=[
            _sentence(cell, against, found) for against, cells in differences.items() for cell, found in cells.items()
        ],
        margin=percent(recipe.margin),
        global_margin=percent(recipe.global_margin, 2),
        differences=[
            (against, [(cell, [_difference(one) for one in found.values()]) for cell, found in cells.items()])
            for against, cells in differences.items()
        ],
        rates=[_rates(recipe, outcome, cell) for cell in outcome.tuned],
        grid=_grid(recipe, shown) if shown else None,
        costs=_costs(recipe, recipe.cost) if recipe.cost else None,
        runs=_reports(recipe, outcome),
        failed=sorted(outcome.failed.items()),
        settings_text=to_yaml(recipe),
    )


def _grid(recipe: CompareRecipe, shown: GridResult) -> dict[str, Any]:
    with Image.open(shown.page.with_suffix(".png"), formats=("PNG",)) as figure:
        picture = picture_uri(figure, longest=1600)
    link = shown.page.relative_to(recipe.results_folder).as_posix()
    return {"seed": shown.seed, "missing": shown.missing, "link": link, "picture": picture}


def _costs(recipe: CompareRecipe, settings: CostSettings) -> dict[str, Any] | None:
    document = read_costs(settings, recipe.results_folder / "costs")
    if document is None:
        return None
    lines = variants(document)
    return {"model": settings.model, "measured": document["measured"], "variants": lines, "link": "costs/report.html"}


def _reports(recipe: CompareRecipe, outcome: ComparisonRuns) -> list[tuple[str, str]]:
    """Titles and links of the runs' reports, if they lie in the results folder."""
    reports = []
    for cell, seeds in outcome.seeds.items():
        for seed in seeds:
            report = recipe.run(cell, seed, outcome.picked[cell], "test").out / "report.html"
            if report.is_file() and report.is_relative_to(recipe.results_folder):
                reports.append((f"{cell}, seed {seed}", report.relative_to(recipe.results_folder).as_posix()))
    return reports


def _difference(contrast: Judged) -> tuple[str, str, str]:
    text = estimate_text(contrast.estimate, "{:+.2f}", signed=True, percent=True)
    return MARKS[contrast.verdict], text, f"{contrast.verdict} (± {percent(contrast.margin, 2)})"


def _sentence(cell: str, against: str, found: Mapping[str, Judged]) -> str:
    """The verdicts on all losses of a cell, in words."""
    words = {
        "lower": "lower held-out loss of {}",
        "higher": "higher held-out loss of {}",
        "same": "the same of {} within the margin",
        "undecided": "undecided for {}",
    }
    clauses = []
    for outcome, text in words.items():
        names = [name for name, one in found.items() if one.verdict == outcome]
        if names:
            clauses.append(text.format(listed(names)))
    return f"{cell} compared with {against}: {'; '.join(clauses)}."


def _rates(recipe: CompareRecipe, outcome: ComparisonRuns, cell: str) -> dict[str, Any]:
    tuned, picked = outcome.tuned[cell], outcome.picked[cell]
    return {
        "cells": [cell, *(recipe.tuning.same.get(cell, []) if recipe.tuning else [])],
        "picked": f"{picked:g}{edge_note(tuned, picked)}",
        "lines": [
            (f"{rate:g}", [percent(found[name], 2, signed=True) for name in next(iter(outcome.series.values())).first])
            for rate, found in sorted(tuned.items())
        ],
    }
