"""Runs of a comparison in two stages: tuning runs, the choice of points, their test, and other worlds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from fairhuman import config
from fairhuman.compare.fronts.analysis import Fronts, analyse
from fairhuman.compare.fronts.choose import Choice, Tuned, keep_choice
from fairhuman.compare.fronts.settings import FrontSettings, Point
from fairhuman.compare.runs import (
    ComparisonRuns,
    Render,
    loss_changes,
    prepare,
    spent,
    stored_series,
    train,
    train_cells,
)
from fairhuman.compare.settings import CompareRecipe, TuningSettings
from fairhuman.config import differences
from fairhuman.errors import FairHumanError, RecipeError
from fairhuman.report.changes import Series
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.display import Display

CHOSEN = "chosen.json"
PICTURES = "pictures"
SoFar = Callable[["FrontRuns"], object]


@dataclass(frozen=True)
class FrontRuns:
    """Outcome of both stages.

    Attributes:
        recipe: the comparison of the tested points, each a cell.
        outcome: its runs.
        tuned: all points of the first stage.
        choice: points that were tested.
        fronts: what is said about them.
        costs: what the dearest test run of each point cost, see `compare.runs.spent`, as a share of the tuned rival's.
        unchanged: worlds to the points for which they change nothing.
        to_come: worlds, and pictures, that aren't finished; empty at the end.
    """

    recipe: CompareRecipe
    outcome: ComparisonRuns
    tuned: Mapping[Point, Tuned]
    choice: Choice
    fronts: Fronts
    costs: Mapping[Point, float]
    unchanged: Mapping[str, Sequence[Point]]
    to_come: Sequence[str] = ()


def tuning_runs(recipe: CompareRecipe, tuning: TuningSettings) -> dict[Point, TrainRecipe]:
    """The runs of the first stage: every cell with every learning rate."""
    return {
        Point(cell, rate): recipe.run(cell, tuning.seed, rate, "tuning")
        for cell in recipe.cells
        for rate in tuning.learning_rates
    }


def recipe_of_points(recipe: CompareRecipe, points: Sequence[Point], world: str = "") -> CompareRecipe:
    """The comparison of points, each of them a cell, with the shared settings or those of a world.

    Points for which the world changes nothing are left out: they say nothing about it.

    Raises:
        RecipeError: the world changes nothing for any of the points.
    """
    values = recipe.model_dump(exclude={"front", "tuning", "cost", "grid", "against"})
    cells = {point.name: config.merge(recipe.cells[point.cell], {"learning_rate": point.rate}) for point in points}
    here = config.build(CompareRecipe, {**values, "cells": cells}, origin="compare")
    if not world or recipe.front is None:
        return here
    changed = recipe.front.worlds[world]
    values |= {"train": config.merge(recipe.train, changed.train), "test": changed.test or recipe.test}
    own = {f"{world}, {name}": _overruled(cell, changed.train) for name, cell in cells.items()}
    there = config.build(CompareRecipe, {**values, "cells": own}, origin=f"front.worlds.{world}")
    seed = here.seeds[0]
    for name in cells:
        before, after = (one.run(cell, seed, None, "test") for one, cell in ((here, name), (there, f"{world}, {name}")))
        if set(differences(before, after)) <= {"out"}:
            del own[f"{world}, {name}"]
    if not own:
        raise RecipeError(
            f"front.worlds.{world}: {', '.join(cells)} is trained and measured there exactly as in the comparison "
            "itself, so that it can't tell what becomes of it elsewhere"
        )
    return there.model_copy(update={"cells": own})


def _overruled(own: dict[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's settings with the values of `other` where it has one; a world's settings overrule a cell's."""
    return {
        name: _overruled(value, other[name])
        if isinstance(value, dict) and isinstance(other.get(name), dict)
        else other.get(name, value)
        for name, value in own.items()
    }


def run_fronts(
    recipe: CompareRecipe,
    front: FrontSettings,
    tuning: TuningSettings,
    render: Render,
    display: Display,
    so_far: SoFar = lambda _: None,
) -> FrontRuns | int:
    """Perform all unfinished runs of both stages; returns the outcome, or the signal that interrupted them.

    `so_far` is called with what is known after the test runs, if runs in other worlds are left.

    Raises:
        DataError: as in `keep_choice` and `analyse`.
        RecipeError: a world changes nothing for the untuned point, told before the first test run.
        FairHumanError: settings that training doesn't have; all runs failed.
    """
    planned = tuning_runs(recipe, tuning)
    prepare(recipe, render, display)
    outcome = ComparisonRuns()
    signal = train(list(planned.values()), recipe, outcome, display)
    if signal is not None:
        return signal
    ended = {p: stored_series(recipe, [run]) for p, run in planned.items() if run.out.name not in outcome.failed}
    if not ended:
        raise FairHumanError(f"{recipe.out}: all tuning runs failed. {next(iter(outcome.failed.values()))}")
    tuned = {p: _tuned(recipe, planned[p], ended[p]) for p in ended}
    choice = _choose(recipe, front, tuned, [point for point in planned if point not in ended], display)
    tested = recipe_of_points(recipe, list(choice.why))
    outcome.picked = dict.fromkeys(tested.cells, None)
    signal = train_cells(tested, outcome, display)
    if signal is not None:
        return signal
    searched = {
        p: one
        for p, one in ended.items()
        if (p.cell == front.untuned.cell or front.family(p.cell) == front.rival) and p not in choice.failed
    }
    series = {point: outcome.series[point.name] for point in choice.why if point.name in outcome.series}

    points = points_of_worlds(front, choice)
    unchanged = {world: _unchanged(recipe, points, world) for world in front.worlds}

    costs = _costs(tested, choice, series)

    def known(worlds: Mapping[str, Mapping[Point, Series]], to_come: Sequence[str]) -> FrontRuns:
        fronts = analyse(front, choice, series, worlds, searched)
        return FrontRuns(tested, outcome, tuned, choice, fronts, costs, unchanged, to_come)

    worlds: dict[str, Mapping[Point, Series]] = {}
    to_come = []
    for world in front.worlds:
        before = ComparisonRuns(finished_only=True)
        own = _run_world(recipe, points, world, before, Display())
        if before.unfinished:
            to_come.append(world)
        elif not isinstance(own, int):
            worlds[world] = own
    if to_come:
        so_far(known(worlds, [*to_come, *([] if front.samples is None else [PICTURES])]))
    for world in front.worlds:
        own = _run_world(recipe, points, world, outcome, display)
        if isinstance(own, int):
            return own
        worlds[world] = own
    return known(worlds, [])


def _unchanged(recipe: CompareRecipe, points: Sequence[Point], world: str) -> list[Point]:
    try:
        cells = recipe_of_points(recipe, points, world).cells
    except FairHumanError:  # is told where the world is trained
        return []
    return [point for point in points if f"{world}, {point.name}" not in cells]


def _costs(tested: CompareRecipe, choice: Choice, series: Mapping[Point, Series]) -> dict[Point, float]:
    def dearest(point: Point) -> float:
        runs = [tested.run(point.name, seed, None, "test") for seed in tested.seeds]
        return max(run.samples(1) * spent(tested, run) for run in runs)

    rival = dearest(choice.rival)
    return {point: dearest(point) / rival for point in series}


def _tuned(recipe: CompareRecipe, run: TrainRecipe, losses: Series) -> Tuned:
    return Tuned(loss_changes(losses), run.steps, run.samples(1) * spent(recipe, run))


def _choose(
    recipe: CompareRecipe, front: FrontSettings, tuned: Mapping[Point, Tuned], failed: Sequence[Point], display: Display
) -> Choice:
    file = recipe.results_folder / CHOSEN
    stored, begun = recipe.results_folder / "losses" / "test", recipe.out / "runs" / "test"
    tested = any(stored.glob("*.npz")) or any(begun.glob("*.yaml"))
    rest = recipe.model_dump(mode="json", include={"seeds", "tuning", "test", "people"})
    choice = keep_choice(file, front, tuned, tested, rest, failed, display.say)
    if not tested:  # while the recipe may still change
        for world in front.worlds:
            recipe_of_points(recipe, two_points(front, choice)[:1], world)
    also = {one.point: "tested beside the choice" for one in front.also}
    choice = replace(choice, why={**choice.why, **also, **choice.why})  # these last, without changing a reason
    display.say(f"{len(choice.why)} of {len(tuned)} points are tested: {file}")
    for point, of in choice.edges.items():
        display.say(f"{point.name} is on the front of the tuning data, at an end of the {of}")
    return choice


def two_points(front: FrontSettings, choice: Choice) -> list[Point]:
    """The untuned point and the tuned rival."""
    return [front.untuned.point, choice.rival]


def points_of_worlds(front: FrontSettings, choice: Choice) -> list[Point]:
    """The points that are trained in every world: the untuned point, the tuned rival, and `also`."""
    return list(dict.fromkeys([*two_points(front, choice), *(one.point for one in front.also)]))


def _run_world(
    recipe: CompareRecipe, points: Sequence[Point], world: str, outcome: ComparisonRuns, display: Display
) -> dict[Point, Series] | int:
    """Train the points for which a world changes something; returns their series, or the signal that interrupted it.

    A point is left out unless all its runs finish, and all are if there are less than two; what is wrong is recorded
    in `outcome`.
    """
    own = ComparisonRuns(finished_only=outcome.finished_only)
    signal = None
    try:
        changed = recipe_of_points(recipe, points, world)
        if len(changed.cells) > 1:
            own.picked = dict.fromkeys(changed.cells, None)
            signal = train_cells(changed, own, display)
    except FairHumanError as error:
        own.failed.setdefault(world, str(error))
        display.say(f"{world}: {error}")
    if signal is not None:
        return signal
    outcome.failed |= own.failed
    outcome.unfinished |= own.unfinished
    cells = {p: f"{world}, {p.name}" for p in points}
    return {p: own.series[cell] for p, cell in cells.items() if len(own.seeds.get(cell, ())) == len(recipe.seeds)}
