"""Pictures of a reproduction: every cell, seed and LoRA weight draws the same prompts from the same noise."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from fairhuman.compare.grid.frames import ZOOMED
from fairhuman.compare.jobs import Command, run_jobs, sampling_job, sampling_options
from fairhuman.compare.paper.conditions import write_conditions
from fairhuman.compare.paper.recipe import ONE_RATE, ReproduceRecipe
from fairhuman.compare.pictures import drawn_by, weight_options
from fairhuman.compare.run import planned_runs
from fairhuman.compare.runs import ComparisonRuns
from fairhuman.compare.settings import BASE, slug
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.prompts import captions_of
from fairhuman.errors import DataError, FairHumanError
from fairhuman.record import HumanRecord
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.display import Display
from fairhuman.utils.files import digest, write_text

SEED = re.compile(r"seed-(\d+)")


@dataclass(frozen=True)
class PromptSet:
    """Prompts that are drawn, and the records that they are from.

    Attributes:
        data: the data set.
        records: the records of the prompts, in order.
        folder: folder of the pictures and of `prompts.txt`.
        each: pictures of a prompt.
        followed: data set whose pose and depth control networks follow, a record for each prompt; None: `data`.
    """

    data: Path
    records: Sequence[HumanRecord]
    folder: Path
    each: int = 1
    followed: Path | None = None

    @property
    def conditions(self) -> Path:
        """Data set with the conditions of the prompts."""
        return self.followed or self.data

    @property
    def prompts(self) -> Path:
        """File with one prompt a line."""
        return self.folder / "prompts.txt"

    @property
    def pictures(self) -> int:
        """Number of pictures of a model."""
        return self.each * len(self.records)


@dataclass(frozen=True)
class Drawn:
    """One cell's pictures with one LoRA weight, or those of the base: a folder with one subfolder per seed.

    Attributes:
        runs: finished runs by seed; one entry without a run for the base.
        weight: of the LoRA; None where there is none.
    """

    cell: str
    folder: Path
    runs: Mapping[int, TrainRecipe | None]
    weight: float | None = None

    def place(self, seed: int) -> Path:
        """Folder of the pictures of a seed's weights."""
        return self.folder / f"seed-{seed}" if self.runs[seed] is not None else self.folder

    @property
    def parts(self) -> list[str]:
        """Names of the subfolders of `runs`; empty for the base, which has none."""
        return [self.place(seed).name for seed, run in self.runs.items() if run is not None]


@dataclass(frozen=True)
class TableSetting:
    """Pictures that are compared in one table: of one rule for learning rates and one LoRA weight."""

    rates: str
    weight: float
    drawn: Mapping[str, Drawn] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name for folders."""
        return f"{slug(self.rates)}-weight-{self.weight:g}"

    @property
    def title(self) -> str:
        """Name in the report."""
        return f"{self.rates}, LoRA weight {self.weight:g}"


def prompt_set(recipe: ReproduceRecipe) -> PromptSet:
    """The prompts of the tables; writes them, and the conditions that belong to them if others don't.

    Raises:
        DataError: the data can't be read, have too few records, or one has no caption.
    """
    sampling, data = recipe.sampling, recipe.data(recipe.sampling.data)
    records = read_source(data, (), SourceSettings(), LoadReport(), also=ZOOMED)
    if sampling.count is not None and len(records) < sampling.count:
        raise DataError(f"{data}: sampling.count is {sampling.count}, found {len(records)} records")
    asked = write_prompts(recipe, records[: sampling.count], data)
    runs = [recipe.run(cell, recipe.seeds[0], None, "test") for cell in recipe.cells]
    if len(asked.records) == len(records) or not any(run.control for run in runs):
        return asked
    return replace(asked, followed=write_conditions(asked.records, asked.folder))


def write_prompts(recipe: ReproduceRecipe, records: Sequence[HumanRecord], data: Path) -> PromptSet:
    """Write the captions of records as prompts, into a folder named after them and the settings of sampling."""
    if not records:
        raise DataError(f"{data}: holds no picture whose caption could be a prompt")
    lines = "\n".join(captions_of(records, data)) + "\n"
    settings = recipe.sampling.decisive()
    depends_on = {name: settings[name] for name in settings if name not in ("data", "count", "lora_weights")}
    folder = recipe.out / "samples" / digest(f"{depends_on}{data}{lines}")[:12]
    write_text(folder / "prompts.txt", lines)
    return PromptSet(data, records, folder, recipe.sampling.images_per_prompt)


def table_settings(recipe: ReproduceRecipe, outcomes: Mapping[str, ComparisonRuns], folder: Path) -> list[TableSetting]:
    """The base and all cells with a finished run, for each rule for learning rates and each LoRA weight."""
    settings = []
    base = Drawn(BASE, folder / BASE, {recipe.seeds[0]: None})
    for rates, outcome in outcomes.items():
        compared = recipe.comparisons[rates]
        for weight in recipe.sampling.lora_weights:
            drawn = {BASE: base}
            for cell, seeds in outcome.seeds.items():
                runs = {seed: compared.run(cell, seed, outcome.picked[cell], "test") for seed in seeds}
                kind = next(iter(runs.values())).kind
                own = weight if kind == "lora" else None
                place = folder / slug(rates) / (f"weight-{weight:g}" if own is not None else kind) / slug(cell)
                drawn[cell] = Drawn(cell, place, runs, own)
            settings.append(TableSetting(rates, weight, drawn))
    return settings


def sets_of_pictures(recipe: ReproduceRecipe) -> int:
    """Number of folders that pictures are drawn into for the tables: of the base, and of every run and LoRA weight."""
    weights = [len(recipe.sampling.lora_weights) if run.kind == "lora" else 1 for run in planned_runs(recipe)]
    return 1 + len(recipe.comparisons) * sum(weights)


def draw_all(
    recipe: ReproduceRecipe,
    asked: PromptSet,
    settings: Sequence[TableSetting],
    display: Display,
    ended: Callable[[Command, FairHumanError | None], object],
    seeds: Sequence[int] | None = None,
) -> int | None:
    """Sample missing pictures of all settings, or of some `seeds`, seed by seed; returns an interrupting signal."""
    jobs = {
        drawn.place(seed): _job(recipe, asked, drawn, seed)
        for seed in (recipe.seeds if seeds is None else seeds)
        for setting in settings
        for drawn in setting.drawn.values()
        if seed in drawn.runs
    }
    return run_jobs(list(jobs.values()), display, recipe.processes, ended)


def whole(asked: PromptSet, setting: TableSetting) -> TableSetting:
    """The setting with the seeds alone whose pictures are all there, and without the cells that have none."""
    kept = {}
    for cell, drawn in setting.drawn.items():
        runs = {seed: run for seed, run in drawn.runs.items() if _count(drawn.place(seed)) == asked.pictures}
        if runs:
            kept[cell] = replace(drawn, runs=runs)
    return replace(setting, drawn=kept)


def _count(folder: Path) -> int:
    return len(list(folder.glob("*.png")))


def _job(recipe: ReproduceRecipe, asked: PromptSet, drawn: Drawn, seed: int) -> Command:
    run = drawn.runs[seed]
    out = drawn.place(seed)
    options = list(_options(recipe, asked, drawn, run))
    return sampling_job(f"pictures {out.relative_to(asked.folder)}", out, asked.prompts, asked.pictures, options)


def _options(recipe: ReproduceRecipe, asked: PromptSet, drawn: Drawn, run: TrainRecipe | None) -> Iterator[object]:
    sampling = recipe.sampling
    like = run or recipe.comparisons[ONE_RATE].run(next(iter(recipe.cells)), recipe.seeds[0], None, "test")
    model, base = (like.model, like.base) if run is None else drawn_by(run)
    size = sampling.size(like.size)
    yield from sampling_options(
        model, sampling.steps, sampling.guidance, size, sampling.seed, base, sampling.batch_size
    )
    yield from ("--precision", sampling.precision, "--count", asked.each)
    yield from (f"--suffix={sampling.prompt_suffix}", f"--negative={sampling.negative_prompt}")
    if run is not None:
        yield from weight_options(run, asked.conditions)
    if drawn.weight is not None:
        yield from ("--lora-weight", drawn.weight)
