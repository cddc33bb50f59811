"""A complete comparison: runs, contrasts, pictures, costs and report."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from fairhuman.compare.analysis import contrasts
from fairhuman.compare.fronts.run import recipe_of_points, run_fronts, tuning_runs
from fairhuman.compare.runs import run_comparison, slow_precisions
from fairhuman.compare.settings import CompareRecipe
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import read_source
from fairhuman.errors import DataError
from fairhuman.report.text import listed, plural
from fairhuman.synth.run import render_people
from fairhuman.train.preflight import StartFinding, data_paths, model_finding, run_data
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.display import Display
from fairhuman.utils.files import alone, writing


@dataclass(frozen=True)
class Comparison:
    """The report of a comparison, and error messages of failed runs by name."""

    page: Path
    failed: Mapping[str, str]


def planned_runs(recipe: CompareRecipe) -> list[TrainRecipe]:
    """Training recipes of all cells and seeds, with their learning rates before tuning; with `front`, those of its
    first stage, and one of each world.

    Raises:
        RecipeError: a setting that training doesn't have, or that the comparison sets itself.
    """
    if recipe.front is not None and recipe.tuning is not None:
        worlds = [recipe_of_points(recipe, [recipe.front.untuned.point], world) for world in recipe.front.worlds]
        runs = [one.run(cell, one.seeds[0], None, "test") for one in worlds for cell in one.cells]
        return [*tuning_runs(recipe, recipe.tuning).values(), *runs]
    return [recipe.run(cell, seed, None, "test") for cell in recipe.cells for seed in recipe.seeds]


def missing_data(recipe: CompareRecipe, runs: Sequence[TrainRecipe]) -> list[Path]:
    """Missing data sets of a comparison, except the people that it renders."""
    paths = [*(source.path for run in runs for source in run.sources), *map(recipe.data, recipe.other_data)]
    paths += [run.steer.data for run in runs if run.steer.data is not None]
    rendered = {recipe.data(name) for name in recipe.people}
    return [path for path in dict.fromkeys(paths) if path not in rendered and not path.exists()]


def start_findings(recipe: CompareRecipe, runs: Sequence[TrainRecipe]) -> Iterator[StartFinding]:
    """Yield what a comparison needs: its data sets, and each model."""
    yield from (StartFinding("data", "missing", f"{path}: doesn't exist yet") for path in missing_data(recipe, runs))
    rendered = [f"{name} ({people.count:,})" for name, people in recipe.people.items()]
    if rendered:
        yield StartFinding("data", "ok", f"people that are rendered first, unless they are there: {listed(rendered)}")
    yield from _data_findings(recipe, runs)
    models = {(run.model, run.base.model_dump_json()): run for run in runs}
    yield from dict.fromkeys(model_finding(run.model, run.base) for run in models.values())
    yield from slow_precisions(runs)


def _data_findings(recipe: CompareRecipe, runs: Sequence[TrainRecipe]) -> Iterator[StartFinding]:
    """Yield what the runs see of the data sets that are there, each once."""
    tuning = recipe.tuning
    if tuning is not None:
        rates = tuning.learning_rates[:1]
        runs = [*runs, *(recipe.run(cell, tuning.seed, rate, "tuning") for cell in recipe.cells for rate in rates)]
    read = {
        *("data", "validation", "steer", "source", "regions", "view", "resolution"),
        *("kind", "controlnet", "t2i_adapter", "model", "base"),
    }
    alike = {run.model_dump_json(include=read): run for run in runs}
    told: set[str] = set()
    for run in alike.values():
        there = all(path.exists() for path in data_paths(run))
        for finding in run_data(run, True, False) if there else _sets_alone(run):
            if isinstance(finding, StartFinding) and finding.line() not in told:
                told.add(finding.line())
                yield finding


def _sets_alone(run: TrainRecipe) -> Iterator[StartFinding]:
    """Yield what is in those data sets of a run that are there already."""
    for path in data_paths(run):
        if path.exists():
            try:
                count = len(read_source(path, run.regions.names, run.source, LoadReport()))
                yield StartFinding("data", "ok", f"{path}: {plural(count, 'picture')}")
            except DataError as error:
                yield StartFinding("data", "missing", str(error))


def run_all(recipe: CompareRecipe, display: Display) -> Comparison | int:
    """Perform all unfinished steps and write the report; returns the signal instead if one interrupted it.

    Raises:
        RecipeError: as in `planned_runs`.
        DataError: the data of the grid doesn't exist, or another process has this comparison in hand.
        FairHumanError: as in `run_comparison` and `draw_grid`.
    """
    planned_runs(recipe)
    if recipe.grid is not None and recipe.grid.data not in recipe.people and not Path(recipe.grid.data).exists():
        raise DataError(f"grid.data: {recipe.grid.data}: there is no such file or folder")
    with ExitStack() as held:
        with writing(recipe.out):
            held.enter_context(alone(recipe.out / ".lock", f"{recipe.out}: another comparison is writing here"))
        return _run_all(recipe, display)


def _run_all(recipe: CompareRecipe, display: Display) -> Comparison | int:
    # Here, so that a mistake in the recipe is told without torch.
    from fairhuman.compare.fronts.page import write_fronts
    from fairhuman.compare.fronts.samples import draw_samples
    from fairhuman.compare.page import write_comparison
    from fairhuman.compare.paper.cost_page import read_costs, write_costs
    from fairhuman.compare.pictures import draw_grid

    if recipe.front is not None and recipe.tuning is not None:
        so_far = partial(write_fronts, recipe, recipe.front)
        tested = run_fronts(recipe, recipe.front, recipe.tuning, render_people, display, so_far)
        if isinstance(tested, int):
            return tested
        drawn = (
            draw_samples(recipe, recipe.front, recipe.front.samples, tested, display, so_far)
            if recipe.front.samples
            else None
        )
        if isinstance(drawn, int):
            return drawn
        failed = {**tested.outcome.failed, **(drawn.failed if drawn else {})}
        return Comparison(write_fronts(recipe, recipe.front, tested, drawn), failed)
    render = render_people if _needs_people(recipe) else _render_nothing
    found = run_comparison(recipe, render, display)
    if isinstance(found, int):
        return found
    differences = contrasts(recipe, found)
    page = write_comparison(recipe, found, differences)
    shown = draw_grid(recipe, recipe.grid, found, display) if recipe.grid else None
    if isinstance(shown, int):
        return shown
    costs = recipe.results_folder / "costs"
    if recipe.cost is not None and read_costs(recipe.cost, costs) is None:
        write_costs(recipe.cost, costs)
    if recipe.grid is not None or recipe.cost is not None:
        page = write_comparison(recipe, found, differences, shown)
    return Comparison(page, found.failed)


def _needs_people(recipe: CompareRecipe) -> bool:
    """Whether a run has no stored losses yet, or the grid shows people."""
    stored = run_comparison(recipe, render_people, Display(), finished_only=True)
    return recipe.grid is not None or isinstance(stored, int) or bool(stored.unfinished)


def _render_nothing(*_: object) -> None:
    """All runs are finished, so their data aren't read."""
