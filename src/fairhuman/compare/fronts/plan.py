"""What a comparison in two stages takes, before it starts: runs and hours."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fairhuman.compare.fronts.choose import read_choice
from fairhuman.compare.fronts.run import CHOSEN, tuning_runs
from fairhuman.compare.fronts.settings import FrontSettings
from fairhuman.compare.plan import RATES, device_of, forward_flops, sample_seconds, train_seconds
from fairhuman.compare.settings import CompareRecipe, TuningSettings
from fairhuman.report.text import duration, plural
from fairhuman.train.recipe import TrainRecipe

START_SECONDS = 12.0  # of a run before its first step, on a core of 2026


@dataclass(frozen=True)
class FrontPlan:
    """Runs of each part, and hours on `device` with `processes` runs at once.

    Attributes:
        tuning_runs, test_runs, world_runs: training runs; of the test the largest number.
        pictures: drawn at both points and by the base.
        seconds: of all runs, one after the other, estimated from the network's arithmetic.
    """

    tuning_runs: int
    test_runs: int
    world_runs: int
    pictures: int
    seconds: float
    processes: int
    device: str

    def lines(self) -> Iterator[str]:
        """The plan in words."""
        yield (
            f"{plural(self.tuning_runs, 'run')} on tuning data, at most {self.test_runs:,} on test data, "
            f"{self.world_runs:,} in other worlds"
        )
        if self.pictures:
            yield f"pictures: {self.pictures:,} at two points and by the base"
        at_once = f", {self.processes} at once" if self.processes > 1 else ""
        hours = duration(self.seconds / self.processes)
        more = "rendering and metrics add" if self.pictures else "rendering adds"
        yield f"about {hours}{at_once}, each on {self.device} (estimated); {more}"


def plan_of(recipe: CompareRecipe, front: FrontSettings, tuning: TuningSettings, prompts: int | None) -> FrontPlan:
    """The plan of a recipe that draws `prompts` prompts; nothing is loaded. Runs on test data count as the mean tuning
    run.
    """
    runs = list(tuning_runs(recipe, tuning).values())
    device = device_of(runs[0])
    each = _seconds(runs, device, _pictures(recipe, runs[0], tuning.data))
    tested = _tested(recipe, front, tuning) * len(recipe.seeds)
    worlds = (2 + len(front.also)) * len(front.worlds) * len(recipe.seeds)
    later = _seconds(runs, device, _pictures(recipe, runs[0], recipe.test))
    seconds = sum(each) + (tested + worlds) * sum(later) / len(later)
    pictures = 0
    if front.samples is not None:
        one, size = front.samples, front.samples.size(runs[0].size)
        pictures = (prompts or 0) * one.images_per_prompt * (1 + 2 * len(recipe.seeds))
        seconds += pictures * sample_seconds(runs[0].model, size, one.steps, one.guidance, device)
    return FrontPlan(len(runs), tested, worlds, pictures, seconds, recipe.processes, device)


def _tested(recipe: CompareRecipe, front: FrontSettings, tuning: TuningSettings) -> int:
    """Largest number of points that are tested: those to choose, or those chosen and those of cells added since, which
    are up to `front.each` of a family at both budgets.
    """
    file, rates = recipe.results_folder / CHOSEN, len(tuning.learning_rates)
    if not file.is_file():
        return min(front.at_most + len(front.also), rates * len(recipe.cells))
    choice, then = read_choice(file)
    added = Counter(front.family(cell) for cell in recipe.cells if cell not in then["families"])
    also = {one.point for one in front.also} - choice.why.keys()
    return len(choice.why) + len(also) + sum(min(2 * front.each, rates * cells) for cells in added.values())


def _pictures(recipe: CompareRecipe, run: TrainRecipe, data: str) -> int:
    """Pictures of a validation."""
    people = recipe.people.get(data)
    return run.validation.count if people is None else min(people.count, run.validation.count)


def _seconds(runs: Sequence[TrainRecipe], device: str, pictures: int) -> list[float]:
    """Seconds of each run: start, steps, and a validation before and after."""
    return [
        START_SECONDS
        + train_seconds(run, device, None)
        + 2 * pictures * len(run.validation.timesteps) * forward_flops(run.model, run.size) / RATES[device]
        for run in runs
    ]
