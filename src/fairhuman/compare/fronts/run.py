"""Runs of a comparison in two stages: tuning runs, the choice of points, their test, and other worlds."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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

Worlds = dict[str, dict[Point, Series]]
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
        to_come: worlds, and pictures, that aren't finished; empty at the end.
    """

    recipe: CompareRecipe
    outcome: ComparisonRuns
    tuned: Mapping[Point, Tuned]
    choice: Choice
    fronts: Fronts
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

    Raises:
        RecipeError: the world changes nothing for one of the points, so that it says nothing about transfer.
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
    for name in cells:
        before, after = (
            one.run(cell, one.seeds[0], None, "test") for one, cell in ((here, name), (there, f"{world}, {name}"))
        )
        if set(differences(before, after)) <= {"out"}:
            raise RecipeError(
                f"front.worlds.{world}: {name} is trained and measured there exactly as in the comparison itself, so "
                "that it can't tell what becomes of it elsewhere"
            )
    return there


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
        RecipeError: a world leaves the untuned point as it is, told before the first test run.
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

    def known(worlds: Worlds, to_come: Sequence[str]) -> FrontRuns:
        fronts = analyse(front, choice, series, worlds, searched)
        return FrontRuns(tested, outcome, tuned, choice, fronts, to_come)

    stored = ComparisonRuns(finished_only=True)
    worlds = _run_worlds(recipe, front, choice, stored, Display())
    if not isinstance(worlds, int) and stored.unfinished:
        to_come = [world for world, own in worlds.items() if len(own) < 2 and world not in stored.failed]
        so_far(known(worlds, [*to_come, *([] if front.samples is None else [PICTURES])]))
    worlds = _run_worlds(recipe, front, choice, outcome, display)
    return worlds if isinstance(worlds, int) else known(worlds, [])


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
    display.say(f"{len(choice.why)} of {len(tuned)} points are tested: {file}")
    for point, of in choice.edges.items():
        display.say(f"{point.name} is on the front of the tuning data, at an end of the {of}")
    return choice


def two_points(front: FrontSettings, choice: Choice) -> list[Point]:
    """The untuned point and the tuned rival."""
    return [front.untuned.point, choice.rival]


def _run_worlds(
    recipe: CompareRecipe, front: FrontSettings, choice: Choice, outcome: ComparisonRuns, display: Display
) -> Worlds | int:
    """Train the untuned point and the tuned rival in every world; returns the signal if one interrupted it.

    A world is empty if its runs all fail, or if it leaves the tuned rival as it is, such as a rival found by the
    normalisation that the world sets; what is wrong is recorded in `outcome`.
    """
    points = two_points(front, choice)
    worlds: Worlds = {}
    for world in front.worlds:
        own = ComparisonRuns(finished_only=outcome.finished_only)
        try:
            changed = recipe_of_points(recipe, points, world)
            own.picked = dict.fromkeys(changed.cells, None)
            signal = train_cells(changed, own, display)
        except FairHumanError as error:
            own.failed.setdefault(world, str(error))
            display.say(f"{world}: {error}")
            signal = None
        if signal is not None:
            return signal
        outcome.failed |= own.failed
        outcome.unfinished |= own.unfinished
        whole = [
            f"{world}, {p.name}" for p in points if len(own.seeds.get(f"{world}, {p.name}", ())) == len(recipe.seeds)
        ]
        worlds[world] = {p: own.series[f"{world}, {p.name}"] for p in points if f"{world}, {p.name}" in whole}
    return worlds
