"""Runs of a comparison: render people, tune learning rates, then train every cell with every seed.

Finished runs are kept and failed ones reported. Running the same command again resumes the comparison and adds new
cells and seeds.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import fmean

from fairhuman import config
from fairhuman.compare.jobs import Command, run_jobs, training_job
from fairhuman.compare.losses import are_unchecked, load_losses, store_losses, stored_exact_steps
from fairhuman.compare.settings import CompareRecipe, TuningSettings
from fairhuman.errors import DataError, FairHumanError
from fairhuman.regions.settings import GLOBAL
from fairhuman.report.changes import Series, seed_changes, series_of
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.preflight import StartFinding, slow_precision
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import AUDITS, TRIAL, WARM_UP
from fairhuman.utils.display import Display

Render = Callable[[Path, SynthSettings, Display], object]


@dataclass
class ComparisonRuns:
    """Outcome of a comparison's runs.

    Attributes:
        series: held-out sums of each cell's finished runs, in the order of `seeds`.
        seeds: seeds of each cell's finished runs.
        tuned: loss changes by cell, learning rate and objective.
        picked: learning rate of each cell; None without tuning.
        failed: error messages by name of the run, or of a comparison of cells.
        finished_only: whether nothing is trained.
        unfinished: names of the runs that would be trained otherwise.
        unchecked: names of the runs whose losses an earlier version stored, without a digest.
    """

    series: dict[str, Series] = field(default_factory=dict)
    seeds: dict[str, list[int]] = field(default_factory=dict)
    tuned: dict[str, dict[float, dict[str, float]]] = field(default_factory=dict)
    picked: dict[str, float | None] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    finished_only: bool = False
    unfinished: set[str] = field(default_factory=set)
    unchecked: set[str] = field(default_factory=set)


def run_comparison(
    recipe: CompareRecipe, render: Render, display: Display, finished_only: bool = False
) -> ComparisonRuns | int:
    """Perform all unfinished runs; returns the outcome, or the signal that interrupted them.

    With `finished_only` nothing is rendered or trained: the outcome is that of the finished runs, which may be none. A
    cell has no learning rate of its own then before all its tuning runs are finished.

    Raises:
        FairHumanError: settings that training doesn't have; all runs failed, or all tuning runs of a cell.
    """
    if not finished_only:
        prepare(recipe, render, display)
    outcome = ComparisonRuns(picked=dict.fromkeys(recipe.cells, None), finished_only=finished_only)
    signal = _tune(recipe, recipe.tuning, outcome, display) if recipe.tuning is not None else None
    if signal is None:
        signal = train_cells(recipe, outcome, display)
    return outcome if signal is None else signal


def prepare(recipe: CompareRecipe, render: Render, display: Display) -> None:
    """Render the people, and write the recipe into the folder of runs."""
    for name, people in recipe.people.items():
        render(recipe.out / "people" / name, people, display)
    config.save(recipe, recipe.out / "compare.yaml")


def train_cells(recipe: CompareRecipe, outcome: ComparisonRuns, display: Display) -> int | None:
    """Train every cell of `outcome.picked` with every seed and add the losses; returns the signal that interrupted it.

    Raises:
        FairHumanError: all runs failed.
    """
    runs = {
        cell: {seed: recipe.run(cell, seed, rate, "test") for seed in recipe.seeds}
        for cell, rate in outcome.picked.items()
    }
    signal = train(list(chain.from_iterable(seeds.values() for seeds in runs.values())), recipe, outcome, display)
    if signal is not None:
        return signal
    for cell, seeds in runs.items():
        missing = outcome.failed.keys() | outcome.unfinished
        ended = {seed: run for seed, run in seeds.items() if run.out.name not in missing}
        if ended:
            outcome.series[cell], outcome.seeds[cell] = stored_series(recipe, list(ended.values())), list(ended)
    if not outcome.series and not outcome.finished_only:
        raise FairHumanError(f"{recipe.out}: all runs of the comparison failed. {next(iter(outcome.failed.values()))}")
    return None


def _tune(recipe: CompareRecipe, tuning: TuningSettings, outcome: ComparisonRuns, display: Display) -> int | None:
    """Fill in `tuned` and `picked`; returns the signal if one interrupted it."""
    runs = {
        cell: {rate: recipe.run(cell, tuning.seed, rate, "tuning") for rate in tuning.learning_rates}
        for cell in recipe.cells
        if cell not in tuning.rate_sources
    }
    all_runs = list(chain.from_iterable(rates.values() for rates in runs.values()))
    signal = train(all_runs, recipe, outcome, display, "tuning")
    if signal is not None:
        return signal
    for cell, rates in runs.items():
        if not outcome.unfinished.isdisjoint(run.out.name for run in rates.values()):
            del outcome.picked[cell]
            continue
        ended = {rate: run for rate, run in rates.items() if run.out.name not in outcome.failed}
        if not ended:
            raise FairHumanError(f"cell {cell!r}: all tuning runs failed. {next(iter(outcome.failed.values()))}")
        tuned = {rate: loss_changes(stored_series(recipe, [run])) for rate, run in ended.items()}
        outcome.tuned[cell], outcome.picked[cell] = tuned, choose_learning_rate(tuned, tuning.max_global)
        display.say(f"learning rate of {cell}: {outcome.picked[cell]:g}{edge_note(tuned, outcome.picked[cell])}")
    for cell, lender in tuning.rate_sources.items():
        if lender in outcome.picked:
            outcome.picked[cell] = outcome.picked[lender]
        else:
            del outcome.picked[cell]
    return None


def choose_learning_rate(tuned: Mapping[float, Mapping[str, float]], max_global: float) -> float:
    """Choose a learning rate by the rule of `TuningSettings`."""
    allowed = {rate: found for rate, found in tuned.items() if found[GLOBAL] <= max_global}
    if allowed:
        return min(allowed, key=lambda rate: sum(value for name, value in allowed[rate].items() if name != GLOBAL))
    return min(tuned, key=lambda rate: tuned[rate][GLOBAL])


def edge_note(tuned: Mapping[float, object], rate: float | None) -> str:
    """A remark if a rate is the smallest or largest one of at least three; else empty."""
    return " (at the edge of the grid)" if len(tuned) > 2 and rate in (min(tuned), max(tuned)) else ""


def loss_changes(series: Series) -> dict[str, float]:
    """Change in each held-out loss, mean over the runs; without intervals, which take a bootstrap."""
    return {name: fmean(seed_changes(series, name)) for name in series.first}


def train(
    runs: Sequence[TrainRecipe], recipe: CompareRecipe, outcome: ComparisonRuns, display: Display, stage: str = "total"
) -> int | None:
    """Train the runs without stored losses, and store their losses; failures are recorded.

    One seed of all cells comes before the next, so that cells can be compared early; of a seed the longest run first.
    """
    left = {run.out.name: run for run in runs if load_losses(recipe, run) is None}
    unchecked = {run.out.name for run in runs if are_unchecked(recipe, run)}
    if unchecked and not outcome.unchecked:
        display.say("an earlier version stored losses, without digests: they are read unchecked")
    outcome.unchecked |= unchecked
    if outcome.finished_only:
        outcome.unfinished |= left.keys()
        return None
    costs = {name: cost(run, exact_steps(run)) for name, run in left.items()}
    seeds = list(dict.fromkeys(run.seed for run in runs))
    order = sorted(left, key=lambda name: (seeds.index(left[name].seed), -costs[name]))
    jobs = [training_job(name, left[name], costs[name]) for name in order]

    def ended(job: Command, error: FairHumanError | None) -> None:
        if error is None:
            store_losses(recipe, left[job.name])
        else:
            outcome.failed[job.name] = str(error)
            display.say(f"{error}")

    for job in jobs:
        if job.done() == 1.0:  # finished by an earlier command that was killed before it stored the losses
            ended(job, None)
    unstored = [job for job in jobs if load_losses(recipe, left[job.name]) is None]
    for note in slow_precisions([left[job.name] for job in unstored]):
        display.say(note.line())
    return run_jobs(unstored, display, recipe.processes, ended, stage)


def slow_precisions(runs: Sequence[TrainRecipe]) -> list[StartFinding]:
    """Return `slow_precision`'s notes on the runs, each once."""
    return list(dict.fromkeys(note for run in runs for note in slow_precision(run)))


def passes(run: TrainRecipe, exact: bool) -> float:
    """Passes of a step through the network: one forward and one backward, or in an exact step one for each gradient.

    A backward pass counts as a forward pass, as the weights of a LoRA are few, and as two with gradient checkpointing.
    """
    k = len(run.objective_names)
    gradients = 1 if not exact else 1 + (k * k - k + 2) / 2 if run.fairness.pairwise else k
    return 1 + gradients * (2 if run.gradient_checkpointing else 1)


def exact_steps(run: TrainRecipe) -> int:
    """Steps of a run that are exact by its settings; audits that end badly add more."""
    if not run.amortised:
        return run.steps if run.needs_gram else 0
    mode = "ema" if run.accumulate > 1 else run.fairness.mode
    every, first = run.fairness.every or AUDITS[mode], {"output": WARM_UP, "split": TRIAL, "tail": TRIAL}.get(mode, 0)
    return sum(step < first or step % every == 0 for step in range(run.steps))


def cost(run: TrainRecipe, exact: int) -> float:
    """What a run of which so many steps are exact costs, in steps with one gradient; see `passes`."""
    return run.steps + exact * (passes(run, True) / passes(run, False) - 1)


def spent(recipe: CompareRecipe, run: TrainRecipe) -> float:
    """The cost of a finished run, with the exact steps that it took; by its settings where they weren't stored."""
    found = stored_exact_steps(recipe, run) if run.needs_gram else 0
    return cost(run, exact_steps(run) if found is None else found)


def stored_series(recipe: CompareRecipe, runs: Sequence[TrainRecipe]) -> Series:
    """The stored losses of finished runs."""
    pairs = {run.out.name: load_losses(recipe, run) for run in runs}
    return series_of({name: pair for name, pair in pairs.items() if pair is not None})


def shared_seeds(outcome: ComparisonRuns, a: str, b: str) -> tuple[Series, Series]:
    """The series of two cells, restricted to the seeds that both have.

    Raises:
        DataError: they have no seed in common.
    """
    both = [seed for seed in outcome.seeds[a] if seed in outcome.seeds[b]]
    if not both:
        raise DataError(f"{a} and {b} have no seed in common: {outcome.seeds[a]} and {outcome.seeds[b]}")
    cut = partial(_cut, outcome, both)
    return cut(a), cut(b)


def _cut(outcome: ComparisonRuns, seeds: Sequence[int], cell: str) -> Series:
    rows = [outcome.seeds[cell].index(seed) for seed in seeds]
    series = outcome.series[cell]
    first, last = (
        {name: (errors[rows], areas[rows]) for name, (errors, areas) in sums.items()}
        for sums in (series.first, series.last)
    )
    return Series(series.keys, first, last)
