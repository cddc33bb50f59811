"""Bare folders of photos as the data of a run: which ones are, and `build: true`, which builds data sets of them."""

import os
from collections.abc import Callable, Sequence
from itertools import chain, count
from pathlib import Path
from typing import Any

from fairhuman import config
from fairhuman.data.look.reading import source_of_build
from fairhuman.data.pictures.filters import FilterSettings
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.early import look_at_source
from fairhuman.data.sources import SourceSettings, source_format, source_kind
from fairhuman.detect.found_region import BODY_PARTS
from fairhuman.errors import DataError, RecipeError
from fairhuman.record import REGION_COLUMNS, SUBJECT
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import DataSource

# Formats without boxes of faces and hands; their masks are the region `subject`.
BARE = ("folder", "kohya", "onetrainer", "ai_toolkit", "diffusion_pipe", "simpletuner")
LEAST: int = FilterSettings.model_fields["min_side"].default  # pixels
Progress = Callable[[str, int, int | None], None]


def bare_sources(recipe: TrainRecipe) -> list[DataSource]:
    """Return the sources that are photos without boxes, though a region is an objective."""
    found = []
    for source in recipe.sources:
        regions = _regions(recipe, source)
        try:
            kind = source_kind(source.path, recipe.source.format)
        except DataError:
            continue  # reading it says what is wrong
        if kind in BARE and set(regions) - {SUBJECT}:
            found.append(source)
    return found


def builds(recipe: TrainRecipe, source: DataSource) -> bool:
    """Whether a run first builds a bare source: with `build`, unless one of its regions needs words."""
    return recipe.build and not _further(_regions(recipe, source))[1]


def bare_message(recipe: TrainRecipe, source: DataSource) -> str:
    """Say what to do with a bare folder; the command that it names keeps pictures of all sizes."""
    regions = _regions(recipe, source)
    small, pictures = _too_small(recipe, source)
    out = _free_folder(source.path)
    parts, unknown = _further([name.lower() for name in regions])  # names that a build can give
    settings = " min_side=null" if small else ""
    if parts or unknown:
        found = [f"{name}: mediapipe" for name in parts] + [f"{name}: WORDS" for name in unknown]
        settings += f' "detect.regions={{{", ".join(found)}}}"'
    doubt = f"; WORDS say what {' and '.join(unknown)} look like, such as 'the shoes'" if unknown else ""
    keeping = f"; min_side=null keeps the {small} of {pictures} whose shorter side is under {LEAST}" if small else ""
    return (
        f"{source.path} holds photos without boxes of {' and '.join(regions)}: run "
        f"`fairhuman data build {source.path} {out}{settings}` first, which finds them, and "
        f"train with data={out}{keeping}"
        + (doubt or "; or give build=true, which does both and keeps pictures of all sizes")
    )


def _regions(recipe: TrainRecipe, source: DataSource) -> tuple[str, ...]:
    return recipe.regions.names if source.regions is None else source.regions


def _further(regions: Sequence[str]) -> tuple[list[str], list[str]]:
    """Of regions besides faces, hands and persons, those that the bundled models find, and those they don't."""
    further = [name for name in regions if name not in (*REGION_COLUMNS, SUBJECT)]
    return [name for name in further if name in BODY_PARTS], [name for name in further if name not in BODY_PARTS]


def _free_folder(source: Path) -> str:
    """A folder for the data set of these photos: `people`, or another name where that is another data set."""
    names = chain(["people", f"{source.name}-people"], (f"{source.name}-people-{number}" for number in count(2)))
    return next(
        name for name in names if not Path(name).exists() or source_of_build(Path(name)) == str(source.resolve())
    )


def _too_small(recipe: TrainRecipe, source: DataSource) -> tuple[int, int]:
    """How many pictures a build leaves out by default because of their size, and of how many looked at."""
    try:
        sizes = look_at_source(source.path, source_kind(source.path, recipe.source.format), recipe.source).sizes
    except DataError:  # the build says what is wrong
        return 0, 0
    return sum(min(size.width, size.height) < LEAST for size in sizes), len(sizes)


def built_folder(recipe: TrainRecipe, source: DataSource) -> Path:
    """Return where a bare folder's data set is built: beside `out`."""
    number = recipe.sources.index(source)
    return recipe.out.with_name(f"{recipe.out.name}-data{number + 1 if number else ''}")


def built_recipe(recipe: TrainRecipe) -> TrainRecipe:
    """Return the recipe that trains on the data sets that `build_data` builds; without `build`, the recipe itself."""
    bare = bare_sources(recipe) if recipe.build else []
    if not bare:
        return recipe
    sources = [
        source.model_copy(update={"path": built_folder(recipe, source)}) if source in bare else source
        for source in recipe.sources
    ]
    one = len(sources) == 1 and sources[0] == DataSource(path=sources[0].path)
    changed: dict[str, object] = {"data": sources[0].path if one else tuple(sources)}
    if len(bare) == len(sources):
        changed["source"] = recipe.source.model_copy(update={"format": None})  # it was that of the photos
    return recipe.model_copy(update=changed)


def build_data(recipe: TrainRecipe, progress: Progress) -> None:
    """Build, or finish building, a data set of each bare folder.

    Pictures of all sizes are kept, but for those without people; captions beside them are used, otherwise boxes are
    described.

    Raises:
        RecipeError: several processes would build.
        DataError: as of `build_dataset`.
    """
    from fairhuman.data.pipeline.run import Workers, build_dataset
    from fairhuman.data.pipeline.settings import BuildRecipe

    for source in bare_sources(recipe):
        if int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise RecipeError("build=true works in one process; run `fairhuman data build` before `accelerate launch`")
        kind = source_kind(source.path, recipe.source.format)
        captioned = any(row.values.get("caption") for row in source_format(kind).read(source.path, LoadReport()))
        values: dict[str, Any] = {
            "min_side": None,
            "regions": ["face", "hand", "person"],
            "detect": {"regions": _further(_regions(recipe, source))[0]},
            "caption": {"kind": "text" if captioned else "template"},
            "source": recipe.source.model_dump(include=set(SourceSettings.model_fields)),
        }
        settings, workers = config.build(BuildRecipe, values), Workers.choose(None, "native", None)
        build_dataset(source.path, built_folder(recipe, source), settings, workers, progress=progress)
