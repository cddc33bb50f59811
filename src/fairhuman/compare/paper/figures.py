"""Figures of a reproduction: grids of the tables' pictures, and the closed methods' own pictures beside ours."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fairhuman.compare.grid.frames import Boxes
from fairhuman.compare.grid.grid import write_grid
from fairhuman.compare.grid.matching import match_pictures
from fairhuman.compare.paper.drawing import Drawn, PromptSet, TableSetting, write_prompts
from fairhuman.compare.paper.recipe import FIGURES, Closed, ReproduceRecipe
from fairhuman.compare.pictures import boxes_of
from fairhuman.compare.settings import BASE, MAX_ROWS, slug
from fairhuman.data.pictures.decode import inspect
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError
from fairhuman.record import HumanRecord

TITLES = {
    "Figure 1": "Comparison with HanDiffuser",
    "Figure 2": "Comparison with HyperHuman",
    "Figure 3": "Comparison with general T2I methods",
    "Figure 4": "Comparison with controllable methods",
}


@dataclass(frozen=True)
class FigurePage:
    """A finished grid: figure of the paper that it corresponds to, what it shows, and its page."""

    figure: str
    title: str
    page: Path


def table_figures(
    recipe: ReproduceRecipe, asked: PromptSet, setting: TableSetting, tell: Callable[[str], None]
) -> list[FigurePage]:
    """Figure 3 of the cells without control and Figure 4 of those with, each if there are such cells.

    Raises:
        FairHumanError: pictures can't be read or don't match.
    """
    pages = []
    for figure, controlled in (("Figure 3", False), ("Figure 4", True)):
        cells = [name for name, drawn in setting.drawn.items() if name != BASE and _controlled(drawn) is controlled]
        shown = [BASE, *cells] if BASE in setting.drawn else cells
        if not cells:
            continue
        methods = {name: setting.drawn[name].place(_first(setting.drawn[name])) for name in shown}
        runs = [next(iter(setting.drawn[name].runs.values())) for name in cells]
        follows = dict.fromkeys(name for run in runs if run and run.control for name in run.control.conditions)
        out = recipe.results_folder / slug(figure) / setting.name
        page = write_grid(
            methods,
            out,
            count=min(recipe.figure_rows, asked.pictures),
            seed=recipe.sampling.seed,
            expected=_expected(methods, asked.records),
            control=[f"{name}={asked.data}" for name in follows],
            tell=tell,
        )
        pages.append(FigurePage(figure, setting.title, page))
    return pages


def closed_prompts(recipe: ReproduceRecipe, name: Closed) -> PromptSet:
    """The captions of a closed method's pictures as prompts, in the order of the file names; writes them.

    Raises:
        DataError: there are no picture files, more than 64, or one has no caption.
    """
    folder = recipe.closed[name]
    records = sorted(read_source(folder, (), SourceSettings(), LoadReport()), key=_natural)
    if not all(isinstance(record.image, Path) for record in records):
        raise DataError(f"closed.{name}: {folder}: expected a folder of picture files")
    if len(records) > MAX_ROWS:
        raise DataError(f"closed.{name}: {folder}: a figure takes at most {MAX_ROWS} pictures, found {len(records)}")
    return replace(write_prompts(recipe, records, folder), each=1)


def closed_figure(
    recipe: ReproduceRecipe, name: Closed, setting: TableSetting, tell: Callable[[str], None]
) -> FigurePage:
    """A closed method's pictures beside those of the cells, drawn for its captions."""
    methods: dict[str, Path] = {name: recipe.closed[name]}
    methods |= {cell: one.place(_first(one)) for cell, one in setting.drawn.items()}
    page = write_grid(methods, recipe.results_folder / slug(FIGURES[name]), tell=tell)
    return FigurePage(FIGURES[name], setting.title, page)


def without_control(setting: TableSetting) -> TableSetting:
    """The setting without the cells that follow a condition."""
    return replace(setting, drawn={name: one for name, one in setting.drawn.items() if not _controlled(one)})


def _controlled(drawn: Drawn) -> bool:
    run = next(iter(drawn.runs.values()))
    return run is not None and run.control is not None


def _first(drawn: Drawn) -> int:
    return next(iter(drawn.runs))


def _expected(methods: Mapping[str, Path], records: Sequence[HumanRecord]) -> list[Boxes] | None:
    """Boxes of the records for each matched row; None if they have none."""
    if not any(record.boxes.get(part) for record in records for part in record.boxes):
        return None
    found = []
    for row in match_pictures(methods):
        facts = inspect(next(iter(row.pictures.values())).file)
        found.append(boxes_of(records[row.key[0]], (facts.height, facts.width)))
    return found


def _natural(record: HumanRecord) -> list[int | str]:
    parts = re.split(r"([0-9]+)", record.image.stem if isinstance(record.image, Path) else record.key)
    return [int(part) if number % 2 else part for number, part in enumerate(parts)]
