"""What the commands that measure and compare do."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table

from fairhuman import config
from fairhuman.cli.commands import run_synth
from fairhuman.cli.commands_data import settings_of, stages
from fairhuman.cli.console import say, say_counts
from fairhuman.compare.analysis import contrasts
from fairhuman.compare.drawing import draw_models, parse_models
from fairhuman.compare.grid.grid import write_grid
from fairhuman.compare.page import write_comparison
from fairhuman.compare.paper.cost_page import read_costs, write_costs
from fairhuman.compare.paper.settings import CostSettings, SheetSettings
from fairhuman.compare.paper.sheet import read_tables, write_sheet
from fairhuman.compare.pictures import draw_grid, expected_boxes
from fairhuman.compare.runs import run_comparison
from fairhuman.compare.settings import EXPECTED, CompareRecipe, DrawSettings
from fairhuman.data.sources import source_kind
from fairhuman.errors import DataError, RecipeError
from fairhuman.evaluate.metrics.held_out_losses import ModelSpec, loss_table, measure_losses
from fairhuman.evaluate.run import EvaluationInputs, evaluate
from fairhuman.evaluate.settings import EvaluateSettings, LossSettings
from fairhuman.report.training import interval
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.files import cache_folder, read_prompts, write_json, writing

Inputs = tuple[Path | None, Path | None, str | None, Path | None]


def run_evaluation(
    named: Sequence[str],
    inputs: Inputs,
    out: Path | None,
    recipe: Path | None,
    overrides: Sequence[str],
    dry_run: bool,
    console: Console,
) -> None:
    """Measure methods, and say where the page is; `inputs`: prompts, reference, against, cache."""
    prompts, reference, against, cache = inputs
    settings = settings_of(EvaluateSettings, recipe, overrides, "evaluate")
    methods = named_folders(named)
    job = EvaluationInputs(methods, prompts, reference, against, cache or cache_folder() / "features")
    first = next(iter(methods.values()))
    out = out or first.with_name(f"{first.name}-evaluation")
    if dry_run:
        console.print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
        if prompts is not None:
            say(console, f"prompts: {prompts}, {len(read_prompts(prompts))} of them")
        if reference is not None:
            say(console, f"reference: {reference}, read as {source_kind(reference)}")
        _would(methods, out, console)
        return
    with writing(out), stages(console) as progress:
        done = evaluate(job, settings, out, progress)
    if done is not None:
        for name, noted in done.reports.items():
            say_counts(console, noted.counts(), f"{name}: ")
        for warning in done.found.warnings:
            say(console, warning)
        say(console, f"features are kept in {job.cache}; report: {done.page}")


def run_losses(
    data: Path, named: Sequence[str], out: Path | None, overrides: Sequence[str], dry_run: bool, console: Console
) -> None:
    """Measure held-out losses and print them as a table."""
    settings = config.build(LossSettings, {}, overrides, origin="losses")
    models = {name: ModelSpec.parse(text) for name, text in named_places(named).items()}
    if not models:
        raise RecipeError("no model: give --model NAME=MODEL, once for each")
    if dry_run:
        console.print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
        say(console, f"would measure {', '.join(models)} on {data}")
        return
    found = measure_losses(models, data, settings)
    table = Table("model", "objective", "loss", f"change against {next(iter(models))}", "p", "p, corrected", "pictures")
    lines = loss_table(found)
    for line in lines:
        change = interval(line.change, "{:+.2%}") if line.change else ""
        tests = ("" if math.isnan(p) else f"{p:.2g}" for p in (line.p, line.p_holm))
        table.add_row(line.model, line.objective, interval(line.loss, "{:.4g}"), change, *tests, str(line.loss.n))
    console.print(table)
    if len(models) > 1:
        say(console, "brackets: 95 % over pictures; p: the models swapped in pictures, corrected by Holm for all lines")
    if out is not None:
        numbers = [line.plain() for line in lines]
        with writing(out):
            samples = {name: one.line() for name, one in found.items()}
            write_json(out, {"settings": settings.model_dump(mode="json"), "losses": numbers, "samples": samples})
        say(console, f"numbers: {out}")


def run_compare(path: Path, overrides: Sequence[str], dry_run: bool, console: Console) -> int:
    """Train all cells and seeds, write the page; the exit code, 128 + n after signal n, 1 if runs failed."""
    recipe = config.load(CompareRecipe, path, overrides)
    runs = [recipe.run(cell, seed, None, "test") for cell in recipe.cells for seed in recipe.seeds]
    if dry_run:
        console.print(yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
        tuning = recipe.tuning
        rates = len(tuning.learning_rates) * (len(recipe.cells) - len(tuning.rate_sources)) if tuning else 0
        for path in _missing(recipe, runs):
            say(console, f"data {path}: not there yet")
        say(console, f"{len(runs)} runs of {runs[0].steps} steps, and {rates} to find learning rates")
        return 0

    def render(out: Path, values: dict[str, Any]) -> None:
        run_synth(out, values, None, False, console)

    if recipe.grid is not None and recipe.grid.data not in recipe.people and not Path(recipe.grid.data).exists():
        raise DataError(f"{recipe.grid.data}: there is no such file or folder, grid.data asks for it")
    found = run_comparison(recipe, render, console)
    if isinstance(found, int):
        return _stopped(found, console)
    differences = contrasts(recipe, found)
    page = write_comparison(recipe, found, differences)
    shown = draw_grid(recipe, recipe.grid, found, console) if recipe.grid else None
    if isinstance(shown, int):
        return _stopped(shown, console)
    costs = recipe.results_folder / "costs"
    if recipe.cost is not None and read_costs(recipe.cost, costs) is None:
        write_costs(recipe.cost, costs)
    if recipe.grid is not None or recipe.cost is not None:
        page = write_comparison(recipe, found, differences, shown)
    say(console, f"report: {page}")
    return 1 if found.failed else 0


def _missing(recipe: CompareRecipe, runs: Sequence[TrainRecipe]) -> list[Path]:
    """Data sets of a comparison that aren't there, besides the people that it renders."""
    named = [
        recipe.test,
        *([recipe.tuning.data] if recipe.tuning else []),
        *([recipe.grid.data] if recipe.grid else []),
    ]
    paths = [*(source.path for run in runs for source in run.sources), *map(recipe.data, named)]
    rendered = {recipe.data(name) for name in recipe.people}
    return [path for path in dict.fromkeys(paths) if path not in rendered and not path.exists()]


def _stopped(signal: int, console: Console) -> int:
    say(console, "stopped; the same command goes on from there")
    return 128 + signal


@dataclass(frozen=True)
class GridJob:
    """The options of `fairhuman grid`, as they were typed."""

    methods: Sequence[str]
    prompts: Path | None = None
    control: Sequence[str] = ()
    zoom_on: str | None = None
    data: Path | None = None
    rows: Sequence[int] | None = None
    count: int | None = None
    seed: int = 0

    def check(self, places: Mapping[str, str]) -> None:
        """Check what can be checked before anything is drawn.

        Raises:
            RecipeError: no method, a zoom on none of them, or `data` and `zoom_on` that don't go together.
            DataError: no such data.

        """
        if not places:
            raise RecipeError("no method: give --method NAME=FOLDER or NAME=MODEL, once for each column")
        if self.zoom_on not in (None, EXPECTED, *places):
            raise RecipeError(f"--zoom-on must be {EXPECTED} or one of {', '.join(places)}, found {self.zoom_on!r}")
        if (self.zoom_on == EXPECTED) != (self.data is not None):
            raise RecipeError(f"--zoom-on {EXPECTED} and --data go together: close-ups are cut where its boxes are")
        if self.data is not None and not self.data.exists():
            raise DataError(f"{self.data}: there is no such file or folder")


def run_grid(job: GridJob, out: Path, overrides: Sequence[str], dry_run: bool, console: Console) -> int:
    """Draw what models have to, write the grid, and say where it is; the exit code, 128 + n after signal n."""
    settings = config.build(DrawSettings, {}, overrides, origin="grid")
    places = named_places(job.methods)
    job.check(places)
    methods = {name: Path(place) for name, place in places.items()}
    if dry_run:
        _would(methods, out, console)
        return 0
    models = parse_models(places, job.prompts)
    with writing(out):
        if job.prompts is not None:
            drawn = draw_models(models, job.prompts, settings, out / "samples", console)
            if isinstance(drawn, int):
                return _stopped(drawn, console)
            methods |= drawn
        expected = expected_boxes(methods, job.data) if job.data is not None else None
        page = write_grid(
            methods,
            out,
            rows=job.rows,
            count=job.count,
            seed=job.seed,
            zoom_on=None if expected is not None else job.zoom_on,
            expected=expected,
            control=job.control,
        )
    say(console, f"grid: {page}")
    return 0


def run_cost(out: Path, overrides: Sequence[str], dry_run: bool, console: Console) -> None:
    """Measure costs at inference, and say where the page is."""
    settings = config.build(CostSettings, {}, overrides, origin="cost")
    if dry_run:
        console.print(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False), highlight=False, markup=False)
        _would({}, out, console)
        return
    with writing(out):
        say(console, f"report: {write_costs(settings, out)}")


def run_paper(
    out: Path,
    costs: Path | None,
    evaluation: Path | None,
    recipe: Path | None,
    overrides: Sequence[str],
    dry_run: bool,
    console: Console,
) -> None:
    """Write the paper sheet, and say where it is."""
    said = settings_of(SheetSettings, recipe, overrides, "paper")
    files = {name: path for name, path in (("costs", costs), ("evaluation", evaluation)) if path is not None}
    if dry_run and files:
        _would(files, out, console)
        return
    tables = read_tables(costs, evaluation, said)
    for table in tables.values():
        if table.note:
            say(console, table.note)
    with writing(out):
        say(console, f"paper sheet: {write_sheet(tables, out)}")


def _would(methods: Mapping[str, Path], out: Path, console: Console) -> None:
    for name, path in methods.items():
        say(console, f"{name}: {path}" + ("" if path.exists() else ", not there yet"))
    say(console, f"would write into {out}")


def named_folders(named: Sequence[str]) -> dict[str, Path]:
    """Methods by name out of `NAME=FOLDER` or `FOLDER`, which is named after itself; errors as of `named_places`."""
    return {name: Path(place) for name, place in named_places(named).items()}


def named_places(named: Sequence[str]) -> dict[str, str]:
    """Places by name out of `NAME=PLACE`, or `PLACE`, which is named after its last part.

    Raises:
        RecipeError: two of one name, or an empty name or place.

    """
    places: dict[str, str] = {}
    for text in named:
        name, sign, place = text.partition("=")
        if not sign:
            name, place = Path(text).resolve().name, text
        if not name or not place:
            raise RecipeError(f"expected FOLDER or NAME=FOLDER, found {text!r}")
        if name in places:
            raise RecipeError(f"two are named {name!r}: give names as NAME=FOLDER")
        places[name] = place
    return places
