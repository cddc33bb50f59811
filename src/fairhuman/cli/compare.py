"""`fairhuman compare`, `reproduce`, `grid`, `cost` and `paper`: strategies and methods side by side."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from typer import Argument, Exit, Option

from fairhuman.cli.console import ConsoleDisplay
from fairhuman.cli.options import (
    DryRun,
    Full,
    Overrides,
    Prompts,
    Recipe,
    check_existing,
    find_recipe,
    named_places,
    settings_of,
)
from fairhuman.errors import DataError

if TYPE_CHECKING:  # `--help` doesn't need it
    from fairhuman.compare.settings import CompareRecipe

Result = TypeVar("Result")


def compare(
    recipe: Annotated[Path, Argument(callback=find_recipe, help="YAML file of a comparison: cells, seeds, data.")],
    overrides: Overrides = None,
    dry_run: DryRun = False,
    full: Full = False,
) -> None:
    """Train strategies, ranks or any other settings over several seeds and compare their held-out losses.

    Run the same command again to resume. A dry run ends with 0 if it could start now, 1 if something is missing here.

    Example: fairhuman compare recipes/compare-small.yaml out=runs/compare
    """
    from fairhuman.compare.settings import CompareRecipe

    settings = CompareRecipe.load(recipe, overrides or ())
    notes = settings.notes()
    from fairhuman.compare.run import run_all

    display = ConsoleDisplay()
    for line in notes:
        display.say(line)
    if dry_run:
        raise Exit(_planned(settings, full, display))
    done = _or_stopped(run_all(settings, display), display)
    display.say(f"report: {done.page}")
    if done.failed:
        raise Exit(1)


def reproduce(
    recipe: Annotated[
        Path, Argument(callback=find_recipe, help="YAML file of a reproduction: a comparison, sampling and metrics.")
    ],
    overrides: Overrides = None,
    start: Annotated[
        Literal["training", "pictures", "report"],
        Option("--from", help="pictures: train no more, use the finished runs; report: draw no more either."),
    ] = "training",
    dry_run: DryRun = False,
    full: Full = False,
) -> None:
    """Make the paper's tables and figures: train, sample, measure, and write one report.

    Run the same command again to resume. What fails is named in the report and left out; the rest goes on. With --from
    report it shows what is finished so far, also beside a command that goes on. A dry run ends with 0 if it could start
    now, 1 if something is missing here.

    Example: fairhuman reproduce recipes/table2-small.yaml out=runs/table2 results=runs/table2
    """
    from fairhuman.compare.paper.recipe import ReproduceRecipe

    settings = ReproduceRecipe.load(recipe, overrides or ())
    notes = settings.notes()
    from fairhuman.compare.run import missing_data, planned_runs

    display = ConsoleDisplay()
    for line in notes:
        display.say(line)
    if dry_run:
        note = f"--from {start} takes what of this is finished" if start != "training" else ""
        raise Exit(_planned(settings, full, display, note))
    for path in missing_data(settings, planned_runs(settings)):
        raise DataError(f"{path}: there is no such file or folder")
    from fairhuman.compare.paper.reproduce import reproduce

    done = _or_stopped(reproduce(settings, display, start), display, "; --from report shows what is finished")
    for count in done.finished:
        if count.finished < count.of:
            display.say(f"finished: {count}")
    display.say(f"report: {done.page}")
    if done.failed:
        raise Exit(1)


def grid(
    out: Annotated[Path, Argument(help="Folder for grid.html, grid.png and grid.pdf.")],
    overrides: Annotated[
        list[str] | None, Argument(help="Settings of sampling, such as resolution=128 steps=30.")
    ] = None,
    method: Annotated[
        list[str] | None,
        Option("--method", help="NAME=FOLDER, or =MODEL, =MODEL+LORA@WEIGHT, =MODEL+MOLE to draw with; repeatable."),
    ] = None,
    prompts: Prompts = None,
    control: Annotated[list[str] | None, Option(help="pose=PLACE or depth=PLACE, as given to sample.")] = None,
    zoom_on: Annotated[
        str | None, Option(help="Method whose faces and hands place the zooms; 'expected': --data's boxes.")
    ] = None,
    data: Annotated[Path | None, Option(help="Data set with the expected boxes, one record per prompt.")] = None,
    row: Annotated[list[int] | None, Option("--row", help="Row to show, from 0; repeatable.")] = None,
    count: Annotated[int | None, Option(min=1, help="Rows to draw at random; all by default.")] = None,
    seed: Annotated[int, Option(min=0, help="Seed of that draw.")] = 0,
    dry_run: DryRun = False,
) -> None:
    """Put pictures of several methods for the same prompts side by side, with zoomed faces and hands.

    Example: fairhuman grid grid --method base=samples/base --method MPD=samples/mpd --control pose=POSES --count 8
    """
    from fairhuman.compare.settings import DrawSettings

    settings = settings_of(DrawSettings, "grid", overrides)
    check_existing(prompts)
    from fairhuman.compare.drawing import GridInputs, make_grid

    inputs = GridInputs(named_places(method), prompts, control or (), zoom_on, data, row or None, count, seed)
    display = ConsoleDisplay()
    if dry_run:
        display.would_write(out, inputs.folders)
        return
    page = _or_stopped(make_grid(inputs, settings, out, display), display)
    display.say(f"grid: {page}")


def cost(
    out: Annotated[Path, Argument(help="Folder for costs.json and the page.")],
    overrides: Annotated[list[str] | None, Argument(help="Settings, such as model=small rank=16.")] = None,
    dry_run: DryRun = False,
) -> None:
    """Measure what a LoRA costs at inference, fused and unfused, and count it on SDXL's true shape.

    Example: fairhuman cost costs model=stabilityai/stable-diffusion-xl-base-1.0 size=1024 rank=256 precision=fp16
    """
    from fairhuman.compare.paper.settings import CostSettings
    from fairhuman.utils.files import writing

    settings = settings_of(CostSettings, "cost", overrides)
    display = ConsoleDisplay()
    if dry_run:
        from fairhuman.compare.plan import cost_lines, cost_model

        display.settings(settings)
        found = cost_model(settings)
        for line in (found.line(), *(cost_lines(settings) if found.state == "ok" else ())):
            display.say(line)
        display.would_write(out, {})
        raise Exit(display.verdict([found]))
    from fairhuman.compare.paper.cost_page import write_costs

    with writing(out):
        display.say(f"report: {write_costs(settings, out)}")


def paper(
    out: Annotated[Path, Argument(help="Folder for paper.json and paper.html.")],
    overrides: Annotated[
        list[str] | None, Argument(help="How our numbers were obtained: costs.model=TEXT, evaluation.data=TEXT ...")
    ] = None,
    costs: Annotated[Path | None, Option(help="costs.json of fairhuman cost.")] = None,
    evaluation: Annotated[
        Path | None, Option(help="metrics.json of fairhuman evaluate; methods named MPD or as in the paper.")
    ] = None,
    recipe: Recipe = None,
    dry_run: DryRun = False,
) -> None:
    """Put our numbers beside the published tables, in columns of their own, with all differences spelled out.

    `fairhuman reproduce` makes these tables from training to report; this command takes finished files.

    Example: fairhuman paper paper --costs costs/costs.json --recipe recipes/paper-small.yaml
    """
    from fairhuman.compare.paper.settings import SheetSettings
    from fairhuman.compare.paper.sheet import read_tables, write_sheet
    from fairhuman.utils.files import writing

    settings = settings_of(SheetSettings, "paper", overrides, recipe)
    display = ConsoleDisplay()
    files = {name: path for name, path in (("costs", costs), ("evaluation", evaluation)) if path is not None}
    if dry_run and files:
        display.would_write(out, files)
        return
    display.say("fairhuman reproduce RECIPE makes these tables in one command, with intervals and tests")
    tables = read_tables(costs, evaluation, settings)
    for table in tables.values():
        if table.note:
            display.say(table.note)
    with writing(out):
        display.say(f"paper sheet: {write_sheet(tables, out)}")


def _planned(recipe: "CompareRecipe", full: bool, display: ConsoleDisplay, note: str = "") -> int:
    """Print a dry run of a comparison or reproduction, with a note at its end; the exit code."""
    from fairhuman.compare.plan import findings
    from fairhuman.errors import FairHumanError

    display.settings(recipe, full)
    found = []
    for finding in findings(recipe):
        display.say(finding.line())
        found.append(finding)
    try:
        lines = list(_plan_lines(recipe))
    except (OSError, FairHumanError) as error:
        lines = [f"hours and disk: not known: {' '.join(str(error).split())}"]
    for line in filter(None, (*lines, note)):
        display.say(line)
    return display.verdict(found)


def _plan_lines(recipe: "CompareRecipe") -> Iterator[str]:
    """Runs, pictures, hours and disk of a comparison or reproduction."""
    from fairhuman.compare.fronts import plan
    from fairhuman.compare.plan import plan_of, prompts_of

    try:
        prompts = prompts_of(recipe)
    except DataError:  # is among the findings
        prompts = None
    if recipe.front is not None and recipe.tuning is not None:
        return plan.plan_of(recipe, recipe.front, recipe.tuning, prompts).lines()
    return plan_of(recipe, prompts).lines()


def _or_stopped(result: Result | int, display: ConsoleDisplay, advice: str = "") -> Result:
    """The result, unless a signal ended the command early."""
    if not isinstance(result, int):
        return result
    display.say(f"stopped; run the same command again to resume{advice}")
    raise Exit(128 + result)
