"""The paper's tables and figures in one resumable command: train, sample, measure, and write one report."""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from fairhuman.compare.analysis import contrasts
from fairhuman.compare.jobs import Command
from fairhuman.compare.page import write_page
from fairhuman.compare.paper.cost_page import read_costs, write_costs
from fairhuman.compare.paper.drawing import (
    PromptSet,
    TableSetting,
    draw_all,
    prompt_set,
    sets_of_pictures,
    table_settings,
    whole,
)
from fairhuman.compare.paper.figures import FigurePage, closed_figure, closed_prompts, table_figures, without_control
from fairhuman.compare.paper.measurements import Measurement, read_measurements
from fairhuman.compare.paper.recipe import ReproduceRecipe, Start, Table
from fairhuman.compare.paper.reproduce_page import Count, Losses, Results, TableNumbers, write_report
from fairhuman.compare.runs import ComparisonRuns, run_comparison
from fairhuman.compare.settings import BASE, slug
from fairhuman.errors import DataError, FairHumanError
from fairhuman.evaluate.needed import check_weights
from fairhuman.evaluate.place import NUMBERS
from fairhuman.evaluate.run import EvaluationInputs, evaluate
from fairhuman.synth.run import render_people
from fairhuman.utils.display import Display
from fairhuman.utils.files import alone, digest, write_text, writing

MEASURED = "measured.txt"  # in an evaluation's folder: hash of the pictures that it measured


@dataclass(frozen=True)
class Reproduction:
    """The report, error messages of what failed by name, and how much of everything is finished."""

    page: Path
    failed: Mapping[str, str]
    finished: Sequence[Count]


@dataclass
class _Work:
    """A reproduction in progress; `measures`: whether pictures may be measured that weren't yet."""

    recipe: ReproduceRecipe
    display: Display
    start: Start
    measures: bool = True
    failed: dict[str, str] = field(default_factory=dict)

    def ended(self, job: Command, error: FairHumanError | None) -> None:
        """Record a failed command; the others go on."""
        if error is not None:
            self.fail(job.name, error)

    def fail(self, name: str, error: FairHumanError) -> None:
        """Record a failure."""
        self.failed[name] = str(error)
        self.display.say(f"{name}: {error}")


def reproduce(recipe: ReproduceRecipe, display: Display, start: Start = "training") -> Reproduction | int:
    """Perform all unfinished steps and write the report; returns the signal instead if one interrupted it.

    A failed run, sampling command, evaluation or figure costs what needs it alone; the report names it.

    Args:
        start: `pictures`: train nothing, and draw and measure the pictures of the runs that are finished; `report`:
            draw nothing either, so that it ends soon. It may run beside a command that goes on, and measures nothing
            then.

    Raises:
        WeightsError: weights of a metric are missing; told before anything is trained.
        DataError: the data of `sampling` or `closed` can't be used; another command works on the reproduction.
        FairHumanError: all training runs failed, or none is finished and none is to be trained.
    """
    check_weights(recipe.evaluate, True, "evaluate.")
    work = _Work(recipe, display, start)
    if start != "training" and not recipe.out.is_dir():
        raise DataError(f"{recipe.out}: there is no such folder, so no run is finished; start without --from")
    busy = f"{recipe.out}: another command is at work on it; --from report shows what it has finished"
    with ExitStack() as held:
        try:
            with writing(recipe.out):
                held.enter_context(alone(recipe.out / ".lock", busy))
        except DataError:
            if start != "report":
                raise
            work.measures = False
            display.say(
                f"{recipe.out}: another command is at work on it; pictures that it hasn't measured are left out"
            )
        return _perform(work)


def _perform(work: _Work) -> Reproduction | int:
    """The steps from training to report."""
    recipe, display = work.recipe, work.display
    outcomes = _train(work)
    if isinstance(outcomes, int):
        return outcomes
    asked = prompt_set(recipe)
    settings = table_settings(recipe, outcomes, asked.folder)
    if work.start != "report":
        signal = draw_all(recipe, asked, settings, display, work.ended)
        if signal is not None:
            return signal
    settings = [whole(asked, setting) for setting in settings]
    measured = [
        TableNumbers(table, setting, found)
        for table, cells in recipe.rows.items()
        for setting in (_rows_alone(setting, cells) for setting in settings)
        if (found := _measure(work, asked, table, setting))
    ]
    figures = _figures(work, asked, settings)
    if isinstance(figures, int):
        return figures
    costs = recipe.results_folder / "costs"
    if recipe.cost is not None and work.start != "report" and read_costs(recipe.cost, costs) is None:
        display.say("measuring the cost of a picture")
        write_costs(recipe.cost, costs)
    losses = [_losses(recipe, rates, outcome) for rates, outcome in outcomes.items()]
    for rates, outcome in outcomes.items():
        work.failed |= {f"{rates}: {name}": said for name, said in outcome.failed.items()}
    results = Results(measured, figures, losses, _finished(recipe, outcomes, settings))
    return Reproduction(write_report(recipe, asked, results, work.failed), work.failed, results.finished)


def _finished(
    recipe: ReproduceRecipe, outcomes: Mapping[str, ComparisonRuns], settings: Sequence[TableSetting]
) -> list[Count]:
    """How many training runs and sets of pictures are finished."""
    seeds = {rates: outcomes[rates].seeds if rates in outcomes else {} for rates in recipe.comparisons}
    runs = len(recipe.cells) * len(recipe.seeds)
    places = {one.place(seed) for setting in settings for one in setting.drawn.values() for seed in one.runs}
    return [
        *(Count("training runs", rates, sum(map(len, of.values())), runs) for rates, of in seeds.items()),
        Count("sets of pictures", "", len(places), sets_of_pictures(recipe)),
    ]


def _train(work: _Work) -> dict[str, ComparisonRuns] | int:
    """Outcomes by rule for learning rates; a rule whose runs all fail is left out unless it is the only one."""
    outcomes: dict[str, ComparisonRuns] = {}
    for rates, compared in work.recipe.comparisons.items():
        try:
            found = run_comparison(compared, render_people, work.display, work.start != "training")
        except FairHumanError as error:
            work.fail(rates, error)
            continue
        if isinstance(found, int):
            return found
        if found.series:
            outcomes[rates] = found
    if not outcomes:
        none = f"{work.recipe.out}: no training run is finished; start without --from"
        raise FairHumanError(next(iter(work.failed.values()), none))
    return outcomes


def _rows_alone(setting: TableSetting, cells: Sequence[str]) -> TableSetting:
    """The setting with the base and the cells of a table."""
    return replace(setting, drawn={name: one for name, one in setting.drawn.items() if name in (BASE, *cells)})


def _measure(work: _Work, asked: PromptSet, table: Table, setting: TableSetting) -> list[Measurement]:
    """Evaluate the pictures of a table and setting unless the same ones were; empty if that fails."""
    recipe, reference = work.recipe, work.recipe.reference_cell(table)
    name = f"{table}, {setting.title}"
    out = recipe.out / "evaluation" / f"{slug(table)}-{setting.name}"
    if reference not in setting.drawn:
        if work.start == "training":
            work.fail(
                name, FairHumanError(f"not measured: {reference}, which cells are compared with, has no pictures")
            )
        return []
    seen = digest(f"{recipe.evaluate.decisive()}{reference}{_pictures(setting)}")
    try:
        if not _same(out, seen):
            if not work.measures:
                return []
            methods = {name: drawn.folder for name, drawn in setting.drawn.items()}
            parts = {name: drawn.parts for name, drawn in setting.drawn.items()}
            inputs = EvaluationInputs(methods, asked.prompts, asked.data, reference, recipe.out / "features", parts)
            work.display.say(f"measuring the pictures of {name}")
            if evaluate(inputs, recipe.evaluate, out, work.display.progress) is not None:
                write_text(out / MEASURED, seen)
        seeds = {name: tuple(drawn.runs) for name, drawn in setting.drawn.items()}
        return read_measurements(out, reference, seeds)
    except FairHumanError as error:
        work.fail(f"measuring {name}", error)
        return []


def _pictures(setting: TableSetting) -> list[tuple[str, str, int, int]]:
    """Name, size and time of each picture of the setting's seeds."""
    files = {
        name: sorted(file for seed in drawn.runs for file in drawn.place(seed).glob("*.png"))
        for name, drawn in setting.drawn.items()
    }
    stats = [(name, str(file), file.stat()) for name, found in files.items() for file in found]
    return [(name, file, stat.st_size, stat.st_mtime_ns) for name, file, stat in stats]


def _same(out: Path, seen: str) -> bool:
    marker = out / MEASURED
    return (out / NUMBERS).is_file() and marker.is_file() and marker.read_text(encoding="utf-8") == seen


def _figures(work: _Work, asked: PromptSet, settings: list[TableSetting]) -> list[FigurePage] | int:
    recipe, pages = work.recipe, []
    for setting in settings:
        try:
            pages += table_figures(recipe, asked, setting, work.display.say)
        except FairHumanError as error:
            work.fail(f"figure of {setting.title}", error)
    for name in recipe.closed:
        first = without_control(settings[0])
        try:
            prompts = closed_prompts(recipe, name)
            moved = {
                cell: replace(one, folder=prompts.folder / one.folder.relative_to(asked.folder))
                for cell, one in first.drawn.items()
            }
            here = replace(first, drawn=moved)
            shown = [next(iter(one.runs)) for one in first.drawn.values()]
            if work.start != "report":
                signal = draw_all(recipe, prompts, [here], work.display, work.ended, shown)
                if signal is not None:
                    return signal
            pages.append(closed_figure(recipe, name, whole(prompts, here), work.display.say))
        except FairHumanError as error:
            work.fail(f"figure of {name}", error)
    return pages


def _losses(recipe: ReproduceRecipe, rates: str, outcome: ComparisonRuns) -> Losses:
    """The page on held-out losses, as `fairhuman compare` writes it; their numbers are among the report's."""
    compared = recipe.comparisons[rates]
    place = compared.model_copy(update={"results": recipe.results_folder / "losses-report" / slug(rates), "cost": None})
    differences = contrasts(compared, outcome)
    return Losses(rates, outcome, differences, write_page(place, outcome, differences))
