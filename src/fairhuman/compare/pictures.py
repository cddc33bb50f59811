"""The grid of a comparison: pictures of the base and every cell for the same prompts and conditions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairhuman.compare.grid.frames import ZOOMED, Boxes
from fairhuman.compare.grid.grid import write_grid
from fairhuman.compare.grid.matching import MatchedRow, match_pictures
from fairhuman.compare.jobs import Command, run_jobs, sampling_job, sampling_options
from fairhuman.compare.runs import ComparisonRuns
from fairhuman.compare.settings import BASE, EXPECTED, MAX_ROWS, CompareRecipe, GridSettings
from fairhuman.data.pictures.decode import inspect
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.data.sources.prompts import captions_of
from fairhuman.errors import DataError
from fairhuman.models.settings import BaseSettings
from fairhuman.record import Box, HumanRecord
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.display import Display
from fairhuman.utils.files import digest, write_text

Model = tuple[str | Path, BaseSettings | None]  # and how it is loaded; None: a fine-tuned pipeline has all of that
OPTIONS = {"lora": "--lora", "mole": "--mole", "controlnet": "--controlnet", "t2i_adapter": "--t2i-adapter"}


@dataclass(frozen=True)
class GridResult:
    """Grid of a comparison: its page, the seed of the runs whose weights were used, and the cells that are missing
    because their run failed or its folder was deleted.
    """

    page: Path
    seed: int
    missing: list[str]


def draw_grid(recipe: CompareRecipe, grid: GridSettings, outcome: ComparisonRuns, display: Display) -> GridResult | int:
    """Sample missing pictures and write the grid; returns the signal instead if one interrupted it.

    Raises:
        DataError: the prompts can't be read, or there are none or more than 64.
        FairHumanError: a sampling command failed; quotes the end of its log.
    """
    seed = recipe.seeds[0]
    runs = {cell: recipe.run(cell, seed, rate, "test") for cell, rate in outcome.picked.items()}
    there = {cell: run for cell, run in runs.items() if seed in outcome.seeds.get(cell, ()) and run.product.exists()}
    asked = recipe.people[grid.data].model_dump_json() if grid.data in recipe.people else grid.data
    folder = recipe.out / "samples" / digest(grid.model_dump_json(exclude=set(grid.EXECUTION)) + asked)[:12]
    records = read_source(recipe.data(grid.data), (), SourceSettings(), LoadReport(), also=ZOOMED)
    _write_prompts(records, recipe.data(grid.data), folder / "prompts.txt")
    count = len(records)
    methods = {BASE: folder / BASE, **{cell: folder / run.out.name for cell, run in there.items()}}
    first = next(iter(runs.values()))
    jobs = [_job(methods[BASE], (first.model, first.base), first.size, count, grid, [])]
    for cell, run in there.items():
        weights = weight_options(run, recipe.data(grid.data))
        jobs.append(_job(methods[cell], drawn_by(run), run.size, count, grid, weights))
    signal = run_jobs(jobs, display, recipe.processes)
    if signal is not None:
        return signal
    followed = dict.fromkeys(name for run in there.values() if run.control for name in run.control.conditions)
    control = [f"{name}={recipe.data(grid.data)}" for name in followed]
    zoom_on = grid.zoom_on if grid.zoom_on in methods else None
    expected = [boxes_of(record, first.size) for record in records] if grid.zoom_on == EXPECTED else None
    out = recipe.results_folder / "grid"
    page = write_grid(methods, out, zoom_on=zoom_on, expected=expected, control=control)
    return GridResult(page, seed, [cell for cell in recipe.cells if cell not in there])


def expected_boxes(methods: Mapping[str, Path], data: Path) -> list[Boxes]:
    """Boxes of the data set's k-th record for each matched row of prompt k, in pixels of the row's first picture.

    Raises:
        DataError: the data can't be read, or the numbers of records and prompts differ; or as in `match_pictures`.
    """
    rows = match_pictures(methods)
    records = read_source(data, (), SourceSettings(), LoadReport(), also=ZOOMED)
    prompts = 1 + max(row.key[0] for row in rows)
    if len(records) != prompts:
        raise DataError(f"{data}: expected a record for each of the {prompts} prompts, in order, found {len(records)}")
    return boxes_of_rows(rows, records)


def boxes_of_rows(rows: Sequence[MatchedRow], records: Sequence[HumanRecord]) -> list[Boxes]:
    """Boxes of the k-th record for each row of prompt k, in pixels of the row's first picture."""
    found = []
    for row in rows:
        facts = inspect(next(iter(row.pictures.values())).file)
        found.append(boxes_of(records[row.key[0]], (facts.height, facts.width)))
    return found


def boxes_of(record: HumanRecord, size: tuple[int, int]) -> Boxes:
    """Face and hand boxes of a record in pixels of a picture of (height, width)."""
    x, y = size[1] / record.width, size[0] / record.height
    return {
        part: [Box(x * box.x0, y * box.y0, x * box.x1, y * box.y1) for box in record.boxes.get(part) or ()]
        for part in ZOOMED
    }


def _write_prompts(records: Sequence[HumanRecord], data: Path, file: Path) -> None:
    """Write the captions of all records, one per line."""
    if len(records) > MAX_ROWS:
        raise DataError(f"{data}: a grid takes at most {MAX_ROWS} records, found {len(records)}")
    write_text(file, "\n".join(captions_of(records, data)) + "\n")


def _job(
    out: Path, drawn: Model, size: tuple[int, int], count: int, grid: GridSettings, weights: list[object]
) -> Command:
    model, base = drawn
    options = sampling_options(model, grid.steps, grid.guidance, size, grid.seed, base, grid.batch_size)
    options += weights
    return sampling_job(f"pictures {out.name}", out, out.parent / "prompts.txt", count, options)


def drawn_by(run: TrainRecipe) -> Model:
    """The model that draws a run's pictures, with the weights of `weight_options`."""
    return (run.product, None) if run.kind == "full" else (run.model, run.base)


def weight_options(run: TrainRecipe, asked: Path) -> list[object]:
    """Sampling options for the weights that a run trained, with conditions from a data set."""
    options: list[object] = [OPTIONS[run.kind], run.product] if run.kind in OPTIONS else []
    for name in run.control.conditions if run.control else ():
        options += ["--control", f"{name}={asked}"]
    return options
