"""The report of a reproduction: published numbers and ours in columns of their own, figures, and what is missing."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from fairhuman.compare.analysis import Contrasts, document
from fairhuman.compare.paper.cost_page import read_costs
from fairhuman.compare.paper.drawing import PromptSet, TableSetting
from fairhuman.compare.paper.figures import TITLES, FigurePage
from fairhuman.compare.paper.measurements import Measurement
from fairhuman.compare.paper.published import ABSENT, COLUMNS, PAPER_SETUPS, PUBLISHED, SOURCE, PublishedCell
from fairhuman.compare.paper.recipe import FIGURES, ReproduceRecipe, Table
from fairhuman.compare.paper.settings import SetupSettings
from fairhuman.compare.paper.sheet import ALIASES, METRICS, cost_note, cost_rows
from fairhuman.compare.runs import ComparisonRuns
from fairhuman.compare.settings import BASE
from fairhuman.config import to_yaml
from fairhuman.detect.scale import SMALL_SIDE
from fairhuman.models.locations import name_of
from fairhuman.report.changes import change
from fairhuman.report.html import picture_uri, render_to
from fairhuman.report.outcome import verdict
from fairhuman.report.text import estimate_text, listed, plural
from fairhuman.utils.files import write_json
from fairhuman.utils.provenance import origin

SURE = 0.05  # p-values below it are named
OURS = {column: (metric, factor) for metric, (column, factor) in METRICS.items()}


class Count(NamedTuple):
    """How many of all `what` are finished; `rates`: at which learning rates, empty for all."""

    what: str
    rates: str
    finished: int
    of: int

    def __str__(self) -> str:
        return f"{self.finished:,} of {self.of:,} {self.what}" + (f" at {self.rates}" if self.rates else "")


@dataclass(frozen=True)
class Losses:
    """Held-out losses of one rule for learning rates, and their own report."""

    rates: str
    outcome: ComparisonRuns
    differences: Contrasts
    page: Path


@dataclass(frozen=True)
class TableNumbers:
    """Measurements of one table's cells in one setting."""

    table: Table
    setting: TableSetting
    found: Sequence[Measurement]


@dataclass(frozen=True)
class Results:
    """All results: measurements, figures, held-out losses, and how much is finished."""

    measured: Sequence[TableNumbers]
    figures: Sequence[FigurePage]
    losses: Sequence[Losses]
    finished: Sequence[Count]


def write_report(recipe: ReproduceRecipe, asked: PromptSet, results: Results, failed: Mapping[str, str]) -> Path:
    """Write `results.json` and `report.html` into the results folder; return the page's path."""
    folder = recipe.results_folder
    costs = read_costs(recipe.cost, folder / "costs") if recipe.cost is not None else None
    write_json(folder / "results.json", {**origin(), **_document(recipe, results, failed)})
    return render_to(
        folder / "report.html",
        "reproduce.html",
        title="The paper's tables and figures",
        source=SOURCE,
        failed=sorted(failed.items()),
        finished=list(results.finished),
        partial=any(one.finished < one.of for one in results.finished),
        cost_rows=cost_rows(costs) if costs is not None else [],
        cost_note=cost_note(costs) if costs is not None else "",
        cost_missing="the recipe has no section cost" if recipe.cost is None else "this comes after the pictures",
        tables=[_table(recipe, name, results) for name in recipe.rows],
        setups=_setups(recipe, asked),
        figures=[_figure(recipe, figure, results) for figure in TITLES],
        losses=[_loss_table(recipe, one) for one in results.losses],
        settings_text=to_yaml(recipe),
    )


def _table(recipe: ReproduceRecipe, table: Table, results: Results) -> dict[str, Any]:
    columns = COLUMNS.get(table, COLUMNS["Table 2"])  # those of Table 3 aren't in the supplement
    return {
        "name": table,
        "absent": ABSENT if table not in COLUMNS else "",
        "columns": [(name, column.unit) for name, column in columns.items()],
        "reference": recipe.reference_cell(table),
        "parts": [_part(recipe, list(columns), one) for one in results.measured if one.table == table],
        "unmeasured": _rows(recipe, table, list(columns), None),
    }


def _part(recipe: ReproduceRecipe, columns: Sequence[str], part: TableNumbers) -> dict[str, Any]:
    """One setting's numbers: the published columns with ours beside them, then all metrics with differences."""
    reference = recipe.reference_cell(part.table)
    interim = _interim(recipe, part)
    found = _numbers(recipe, part)
    numbers = {(one.metric, one.method): one for one in found}
    metrics = {one.metric: one for one in found}
    over_seeds = {one.metric for one in part.found if one.over_seeds}
    shown = list(part.setting.drawn)
    others = [name for name in shown if name != reference]
    return {
        "title": part.setting.title,
        "rows": _rows(recipe, part.table, columns, part),
        "methods": [(name, "" if name == BASE else _seeds(recipe, part.setting.drawn[name].runs)) for name in shown],
        "others": others,
        "values": [
            (one, name in over_seeds, [_text(numbers.get((name, method))) for method in shown])
            for name, one in metrics.items()
        ],
        "differences": [(name, [_difference(numbers.get((name, method))) for method in others]) for name in metrics],
        "sentence": interim or _sentence(reference, part.found),
    }


def _numbers(recipe: ReproduceRecipe, part: TableNumbers) -> Sequence[Measurement]:
    """The measurements, without p-values before all are there.

    Looking again and again until a p-value is small would find differences that aren't there.
    """
    return [replace(one, p=None) for one in part.found] if _interim(recipe, part) else part.found


def _interim(recipe: ReproduceRecipe, part: TableNumbers) -> str:
    """A sentence on what is missing of a setting's trained cells and seeds; empty if nothing is."""
    cells = [cell for cell in recipe.rows[part.table] if cell != BASE]
    done = sum(len(part.setting.drawn[cell].runs) for cell in cells if cell in part.setting.drawn)
    all_of_them = len(cells) * len(recipe.seeds)
    if done == all_of_them:
        return ""
    return f"interim, {done} of {all_of_them} sets of pictures; differences are tested when all are measured."


def _rows(
    recipe: ReproduceRecipe, table: Table, columns: Sequence[str], part: TableNumbers | None
) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Each cell with the number of its seeds unless it has all, and its published numbers with ours."""
    numbers = {(one.metric, one.method): one for one in part.found} if part else {}
    seeds = {cell: _seeds(recipe, one.runs) for cell, one in part.setting.drawn.items()} if part else {}
    return [
        (cell, seeds.get(cell, _seeds(recipe, ())), [_pair(table, cell, column, numbers) for column in columns])
        for cell in recipe.rows[table]
    ]


def _seeds(recipe: ReproduceRecipe, found: Collection[int]) -> str:
    """How many seeds of a cell there are; empty if all are."""
    return "" if len(found) == len(recipe.seeds) else f"{len(found)} of {plural(len(recipe.seeds), 'seed')}"


def _pair(table: str, cell: str, column: str, numbers: Mapping[tuple[str, str], Measurement]) -> tuple[str, str]:
    """The published number and ours."""
    published = PUBLISHED.get(PublishedCell(table, ALIASES.get(cell, cell), column))
    metric, factor = OURS[column]
    one = numbers.get((metric, cell))
    ours = "-" if one is None else estimate_text(one.value.scaled(factor))
    return "-" if published is None else f"{published:.2f}", ours


def _text(one: Measurement | None) -> str:
    return "-" if one is None else estimate_text(one.value)


def _difference(one: Measurement | None) -> tuple[str, str, bool]:
    """Difference, corrected p-value, and whether the metric is sure to differ."""
    if one is None or one.difference is None:
        return "-", "", False
    p = "" if one.p is None else f"{one.p:.2g}" if one.p >= 0.0001 else "< 0.0001"
    return estimate_text(one.difference, "{:+.3g}", signed=True), p, one.p is not None and one.p < SURE


def _sentence(reference: str, found: Sequence[Measurement]) -> str:
    """How many differences between trained cells are sure, and which."""
    tested = [one for one in found if one.p is not None and one.method != BASE]
    texts = []
    for one in tested:
        if one.p is not None and one.p < SURE and one.difference is not None:
            better = (one.difference.value > 0) == (one.better == "higher")
            texts.append(f"{one.method} {'better' if better else 'worse'} in {one.metric}")
    which = f": {listed(texts)}" if texts else ""
    return f"{len(texts)} of {len(tested)} differences to {reference} have p < {SURE} after Holm's correction{which}."


def _setups(recipe: ReproduceRecipe, asked: PromptSet) -> list[tuple[str, str, str]]:
    """Both set-ups of the tables of pictures, aspect by aspect."""
    ours = setup(recipe, asked)
    return [(name, getattr(PAPER_SETUPS["Table 2"], name), getattr(ours, name)) for name in SetupSettings.model_fields]


def setup(recipe: ReproduceRecipe, asked: PromptSet) -> SetupSettings:
    """Our set-up in words."""
    run = recipe.run(next(iter(recipe.cells)), recipe.seeds[0], None, "test")
    sampling = recipe.sampling.of_base(name_of(run.model))
    what = f"LoRA of rank {run.lora.rank}" if run.kind == "lora" else run.kind
    rates = "; also each method's own, tuned on other data" if recipe.tuning is not None else ""
    added = f", suffix {sampling.prompt_suffix!r}" if sampling.prompt_suffix else ""
    added += f", negative prompt {sampling.negative_prompt!r}" if sampling.negative_prompt else ""
    drawn = f"{len(asked.records):,} prompts, {sampling.steps} steps, guidance {sampling.scale:g}{added}"
    factor = recipe.evaluate.upscale
    larger = f"; pictures of up to {SMALL_SIDE} px enlarged {factor} times before detection" if factor > 1 else ""
    return SetupSettings(
        model=f"{run.model} with a {what}, {run.optimizer.name}, learning rate {run.learning_rate:g}{rates}",
        data=f"trained on {run.data_name}; prompts and real pictures of {asked.data}",
        scale=f"{run.steps:,} steps of {run.samples(1)} pictures at {run.size[0]} x {run.size[1]}, "
        f"{len(recipe.seeds)} training seeds; {drawn}",
        metrics=f"{', '.join(recipe.evaluate.metrics)}; means of pictures with 95 % intervals over training seeds and "
        f"prompts, distances between sets over prompts alone; p-values swap two methods within prompts{larger}",
    )


def _figure(recipe: ReproduceRecipe, figure: str, results: Results) -> dict[str, Any]:
    pages = []
    for one in results.figures:
        if one.figure == figure:
            with Image.open(one.page.with_suffix(".png")) as picture:
                uri = picture_uri(picture, longest=1600)
            pages.append((one.title, one.page.relative_to(recipe.results_folder).as_posix(), uri))
    closed = next((name for name, its in FIGURES.items() if its == figure), None)
    slot = (
        f"No pictures given. {closed} is closed: save pictures of it with their captions in a folder, and give "
        f"closed.{closed}=FOLDER."
    )
    return {"name": figure, "title": TITLES[figure], "pages": pages, "slot": slot if closed else ""}


def _loss_table(recipe: ReproduceRecipe, losses: Losses) -> dict[str, Any]:
    outcome = losses.outcome
    names = list(next(iter(outcome.series.values())).first)
    estimates = {cell: [change(series, name) for name in names] for cell, series in outcome.series.items()}
    rows = [
        (
            cell,
            _seeds(recipe, outcome.seeds[cell]),
            "" if outcome.picked[cell] is None else f"{outcome.picked[cell]:g}",
            [(verdict(one)[0], estimate_text(one, "{:+.2f}", signed=True, percent=True)) for one in found],
        )
        for cell, found in estimates.items()
    ]
    link = losses.page.relative_to(recipe.results_folder).as_posix()
    return {"rates": losses.rates, "names": names, "rows": rows, "link": link}


def _document(recipe: ReproduceRecipe, results: Results, failed: Mapping[str, str]) -> dict[str, Any]:
    return {
        "tables": [
            {
                "table": part.table,
                "rates": part.setting.rates,
                "lora weight": part.setting.weight,
                "reference": recipe.reference_cell(part.table),
                "interim": bool(_interim(recipe, part)),
                "numbers": [one.plain() for one in _numbers(recipe, part)],
            }
            for part in results.measured
        ],
        "published": [{**cell._asdict(), "value": value} for cell, value in PUBLISHED.items()],
        "held-out losses": {
            one.rates: document(recipe.comparisons[one.rates], one.outcome, one.differences) for one in results.losses
        },
        "figures": {
            f"{one.figure}, {one.title}": one.page.relative_to(recipe.results_folder).as_posix()
            for one in results.figures
        },
        "finished": [one._asdict() for one in results.finished],
        "failed": dict(failed),
    }
