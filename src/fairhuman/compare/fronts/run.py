"""Runs of a comparison in two stages: tuning runs, the choice of points, their test, and other worlds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from fairhuman import config
from fairhuman.compare.fronts.analysis import Fronts, analyse
from fairhuman.compare.fronts.choose import Choice, Point, Tuned, keep_choice
from fairhuman.compare.fronts.settings import FrontSettings
from fairhuman.compare.runs import (
    ComparisonRuns,
    Render,
    gradients,
    loss_changes,
    prepare,
    stored_series,
    train,
    train_cells,
)
from fairhuman.compare.settings import CompareRecipe, TuningSettings
from fairhuman.errors import FairHumanError
from fairhuman.report.changes import Series
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.display import Display

CHOSEN = "chosen.json"


@dataclass(frozen=True)
class FrontRuns:
    """Outcome of both stages.

    Attributes:
        recipe: the comparison of the tested points, each a cell.
        outcome: its runs.
        tuned: all points of the first stage.
        choice: points that were tested.
        fronts: what is said about them.
    """

    recipe: CompareRecipe
    outcome: ComparisonRuns
    tuned: Mapping[Point, Tuned]
    choice: Choice
    fronts: Fronts


def tuning_runs(recipe: CompareRecipe, tuning: TuningSettings) -> dict[Point, TrainRecipe]:
    """The runs of the first stage: every cell with every learning rate."""
    return {
        Point(cell, rate): recipe.run(cell, tuning.seed, rate, "tuning")
        for cell in recipe.cells
        for rate in tuning.learning_rates
    }


def recipe_of_points(recipe: CompareRecipe, points: Sequence[Point], world: str = "") -> CompareRecipe:
    """The comparison of points, each of them a cell, with the shared settings or those of a world."""
    values = recipe.model_dump(exclude={"front", "tuning", "cost", "grid", "against"})
    cells = {point.name: config.merge(recipe.cells[point.cell], {"learning_rate": point.rate}) for point in points}
    if world and recipe.front is not None:
        changed = recipe.front.worlds[world]
        values |= {"train": config.merge(recipe.train, changed.train), "test": changed.test or recipe.test}
        cells = {f"{world}, {name}": own for name, own in cells.items()}
    return config.build(CompareRecipe, {**values, "cells": cells}, origin="compare")


def run_fronts(
    recipe: CompareRecipe, front: FrontSettings, tuning: TuningSettings, render: Render, display: Display
) -> FrontRuns | int:
    """Perform all unfinished runs of both stages; returns the outcome, or the signal that interrupted them.

    Raises:
        DataError: as in `keep_choice` and `analyse`.
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
    tuned = {p: Tuned(loss_changes(ended[p]), planned[p].steps, gradients(planned[p])) for p in ended}
    choice = _choose(recipe, front, tuned, display)
    tested = recipe_of_points(recipe, list(choice.why))
    outcome.picked = dict.fromkeys(tested.cells, None)
    signal = train_cells(tested, outcome, display)
    if signal is not None:
        return signal
    worlds = _run_worlds(recipe, front, choice, outcome, display)
    if isinstance(worlds, int):
        return worlds
    untuned = Point(front.untuned.cell, front.untuned.learning_rate)
    searched = {p: one for p, one in ended.items() if p == untuned or front.family(p.cell) == front.rival}
    series = {point: outcome.series[point.name] for point in choice.why if point.name in outcome.series}
    found = analyse(front, choice, tuned, series, worlds, searched)
    return FrontRuns(tested, outcome, tuned, choice, found)


def _choose(recipe: CompareRecipe, front: FrontSettings, tuned: Mapping[Point, Tuned], display: Display) -> Choice:
    file = recipe.results_folder / CHOSEN
    tested = any((recipe.results_folder / "losses" / "test").glob("*.npz"))
    choice = keep_choice(file, front, tuned, tested)
    display.say(f"{len(choice.why)} of {len(tuned)} points are tested: {file}")
    for point in choice.edges:
        display.say(f"{point.name} is on the front of the tuning data, at the edge of the learning rates")
    return choice


def _run_worlds(
    recipe: CompareRecipe, front: FrontSettings, choice: Choice, outcome: ComparisonRuns, display: Display
) -> dict[str, dict[Point, Series]] | int:
    """Train the untuned point and the tuned rival in every world; returns the signal if one interrupted it.

    A world whose runs all fail is empty; the failures are recorded in `outcome`.
    """
    points = [Point(front.untuned.cell, front.untuned.learning_rate), choice.rival]
    worlds: dict[str, dict[Point, Series]] = {}
    for world in front.worlds:
        changed = recipe_of_points(recipe, points, world)
        own = ComparisonRuns(picked=dict.fromkeys(changed.cells, None))
        try:
            signal = train_cells(changed, own, display)
        except FairHumanError as error:
            display.say(f"{world}: {error}")
            signal = None
        if signal is not None:
            return signal
        outcome.failed |= own.failed
        whole = [
            f"{world}, {p.name}" for p in points if len(own.seeds.get(f"{world}, {p.name}", ())) == len(recipe.seeds)
        ]
        worlds[world] = {p: own.series[f"{world}, {p.name}"] for p in points if f"{world}, {p.name}" in whole}
    return worlds
