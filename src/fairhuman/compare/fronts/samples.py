"""Pictures of a comparison in two stages: the base's, the untuned point's and the tuned rival's, and their metrics."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairhuman import config
from fairhuman.compare.fronts.run import PICTURES, FrontRuns, SoFar, recipe_of_points, two_points
from fairhuman.compare.fronts.settings import FrontSampling, FrontSettings, Point
from fairhuman.compare.jobs import Command, run_jobs, training_job
from fairhuman.compare.paper.drawing import draw_all, prompt_set, table_settings
from fairhuman.compare.paper.measurements import Measurement, read_measurements
from fairhuman.compare.paper.recipe import ONE_RATE, ReproduceRecipe
from fairhuman.compare.runs import ComparisonRuns
from fairhuman.compare.settings import BASE, CompareRecipe
from fairhuman.errors import FairHumanError
from fairhuman.evaluate.run import EvaluationInputs, evaluate
from fairhuman.utils.display import Display
from fairhuman.utils.files import digest


@dataclass(frozen=True)
class FrontSamples:
    """Metrics of the pictures, with differences to the tuned rival's; none if drawing or measuring failed.

    Attributes:
        page: the evaluation's own report.
        failed: error messages by name of what failed.
    """

    found: Sequence[Measurement]
    page: Path
    failed: Mapping[str, str]


def draw_samples(
    recipe: CompareRecipe,
    front: FrontSettings,
    asked: FrontSampling,
    runs: FrontRuns,
    display: Display,
    so_far: SoFar = lambda _: None,
) -> FrontSamples | int:
    """Draw and measure the pictures unless they were; returns the signal instead if one interrupted it.

    `so_far` is called with `runs` first if pictures are left. Runs whose weights are gone, while their losses are
    there, are trained again. What fails is recorded.
    """
    points = two_points(front, runs.choice)
    drawn = _recipe_of(recipe, points, asked)
    rival = runs.choice.rival.name
    seeds = {point.name: runs.outcome.seeds[point.name] for point in points}
    own_and_base = {BASE: recipe.seeds[:1], **seeds}  # the base's pictures count as those of the first seed
    depends_on = drawn.model_dump_json(include={"train", "cells", "seeds", "sampling", "evaluate"})
    out = recipe.results_folder / "evaluation" / digest(depends_on)[:12]
    page = out / "report.html"  # is written last
    failed: dict[str, str] = {}

    def ended(job: Command, error: FairHumanError | None) -> None:
        if error is not None:
            failed[job.name] = str(error)
            display.say(f"{job.name}: {error}")

    try:
        if not page.is_file():
            so_far(replace(runs, to_come=[PICTURES]))
            trained = [drawn.run(cell, seed, None, "test") for cell, own in seeds.items() for seed in own]
            again = [training_job(run.out.name, run) for run in trained if not run.product.exists()]
            signal = run_jobs(again, display, recipe.processes, ended)
            if signal is None:
                prompts = prompt_set(drawn)
                outcome = ComparisonRuns(seeds=seeds, picked=dict.fromkeys(seeds, None))
                (setting,) = table_settings(drawn, {ONE_RATE: outcome}, prompts.folder)
                signal = draw_all(drawn, prompts, [setting], display, ended)
            if signal is not None:
                return signal
            if not failed:
                display.say("measuring the pictures")
                methods = {name: one.folder for name, one in setting.drawn.items()}
                parts = {name: one.parts for name, one in setting.drawn.items()}
                inputs = EvaluationInputs(methods, prompts.prompts, prompts.data, rival, recipe.out / "features", parts)
                evaluate(inputs, drawn.evaluate, out, display.progress)
        return FrontSamples([] if failed else read_measurements(out, rival, own_and_base), page, failed)
    except FairHumanError as error:
        return FrontSamples([], page, {**failed, "front.samples": str(error)})


def _recipe_of(recipe: CompareRecipe, points: Sequence[Point], asked: FrontSampling) -> ReproduceRecipe:
    """Both points as the cells of a reproduction, whose pictures these are."""
    values = recipe_of_points(recipe, points).model_dump(exclude={"front", "tuning", "cost", "grid", "against"})
    parts = {"sampling": asked.model_dump(exclude={"evaluate"}), "evaluate": asked.evaluate}
    return config.build(ReproduceRecipe, {**values, **parts}, origin="front.samples")
