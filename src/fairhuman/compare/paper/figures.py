"""Figures of a reproduction: grids of the tables' pictures, and the closed methods' own pictures beside ours."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from fairhuman.compare.grid.grid import write_grid
from fairhuman.compare.grid.matching import match_pictures
from fairhuman.compare.paper.drawing import Drawn, PromptSet, TableSetting, write_prompts
from fairhuman.compare.paper.recipe import FIGURES, Closed, ReproduceRecipe
from fairhuman.compare.pictures import boxes_of_rows
from fairhuman.compare.settings import BASE, MAX_ROWS, slug
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings, read_source
from fairhuman.errors import DataError
from fairhuman.utils.files import natural_order

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
    boxed = any(boxes for record in asked.records for boxes in record.boxes.values())
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
            expected=boxes_of_rows(match_pictures(methods), asked.records) if boxed else None,
            control=[f"{name}={asked.conditions}" for name in follows],
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
    found = read_source(folder, (), SourceSettings(), LoadReport())
    files = {record.image: record for record in found if isinstance(record.image, Path)}
    if len(files) < len(found):
        raise DataError(f"closed.{name}: {folder}: expected a folder of picture files")
    records = [files[file] for file in sorted(files, key=natural_order)]
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
