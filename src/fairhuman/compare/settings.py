"""Settings of a comparison: cells (a strategy, a rank, any training settings) over seeds, all else equal."""

import re
from collections.abc import Collection, Sequence
from itertools import combinations, product
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field, PrivateAttr, field_validator, model_validator

from fairhuman import config
from fairhuman.compare.fronts.settings import FrontSettings
from fairhuman.compare.margins import Margins
from fairhuman.compare.paper.settings import CostSettings
from fairhuman.config import Settings
from fairhuman.errors import RecipeError
from fairhuman.models.settings import BaseSettings
from fairhuman.regions.settings import RegionSettings
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.levels import Dropped, Level, recipe_of
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import FairnessSettings
from fairhuman.utils.parse import as_typed

CELL = re.compile(r"[\w.,=+× -]{1,60}")
BASE, EXPECTED = "base", "expected"
MAX_ROWS = 64  # of a grid
ON_GPUS = "on GPUs at most one on each, unless the model ships"
RESERVED = ("out", "seed", "validation.data", "validation.every")  # set by the comparison itself


class TuningSettings(Settings):
    """Rule by which each cell gets its own learning rate.

    Among the rates whose global loss on the tuning data changes by at most `max_global`, take the one with the lowest
    sum of changes in the other objectives; if there is none, the one with the lowest change in the global loss.
    """

    data: str = Field(description="data set, or name of one of `people`; must differ from `test`")
    learning_rates: list[float] = Field(min_length=1, description="learning rates to try")
    seed: int = Field(default=0, ge=0, description="seed of the tuning runs")
    max_global: float = Field(default=0.005, description="allowed rise of the global loss; 0.005 = 0.5 % of the base's")
    same: dict[str, list[str]] = Field(
        default={}, description="a cell to the cells that use its learning rate instead of their own"
    )

    @property
    def rate_sources(self) -> dict[str, str]:
        """A cell to the cell whose learning rate it uses."""
        return {cell: lender for lender, cells in self.same.items() for cell in cells}

    def runs_of(self, cells: Collection[str]) -> int:
        """Number of tuning runs for `cells`."""
        return len(self.learning_rates) * (len(cells) - len(self.rate_sources))


class GridSettings(Settings):
    """Pictures of the base and every cell for the same prompts and conditions, with the same noise."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"batch_size"})

    data: str = Field(
        description="small data set, or name of one of `people`; its captions are the prompts, its pose and depth the "
        "conditions"
    )
    steps: int = Field(default=30, ge=1, description="UniPC steps")
    guidance: float | None = Field(default=None, ge=1.0, description="as in `fairhuman sample`; None: the base's own")
    seed: int = Field(default=0, ge=0, description="seed of the noise")
    zoom_on: str | None = Field(
        default=None,
        description="cell or 'base' whose faces and hands define the close-ups; 'expected': boxes of `data`",
    )
    batch_size: int = Field(default=4, ge=1, description="pictures per batch; changes the speed, not the noise")


class CompareRecipe(Margins):
    """Recipe of a comparison.

    Runs with the same seed differ only in their cell: data order, mirroring, noise and timesteps are the same.
    """

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"processes", "results"})
    KIND: ClassVar[str] = "comparison"

    out: Path = Field(description="folder of runs and rendered people; run the same command again to resume")
    results: Path | None = Field(
        default=None,
        description="folder of report, numbers and losses of finished runs; None: `out`, where the runs are",
    )
    train: dict[str, Any] = Field(description="training settings that all runs share")
    cells: dict[str, dict[str, Any]] = Field(min_length=1, description="cell to the settings in which it differs")
    against: str | dict[str, list[str]] | None = Field(
        default=None, description="reference cell for all others, or a reference cell to the cells compared with it"
    )
    seeds: list[int] = Field(
        default=[1, 2, 3, 4, 5], min_length=1, description="seeds of training; every cell is trained with each"
    )
    tuning: TuningSettings | None = None
    test: str = Field(description="data set, or name of one of `people`, for the reported losses")
    people: dict[str, SynthSettings] = Field(default={}, description="sets of synthetic people to render")
    grid: GridSettings | None = Field(default=None, description="grid of pictures, with the first seed's weights")
    cost: CostSettings | None = Field(default=None, description="inference cost of LoRA and MoLE")
    front: FrontSettings | None = Field(
        default=None,
        description="two stages instead of one learning rate a cell: choose points, then test their fronts",
    )
    processes: int = Field(default=2, ge=1, description=f"parallel runs, one thread each; {ON_GPUS}")

    # Files that the recipe extends, its own, and the command line, each with its settings; empty: not from a file.
    _given: list[tuple[str, dict[str, Any]]] = PrivateAttr(default_factory=list)

    @classmethod
    def load(cls, path: Path, overrides: Sequence[str] = ()) -> Self:
        """Read a recipe as `config.load` does, and keep what was given where: see `train/levels.py`."""
        _check_kind(path, overrides, cls.KIND)
        recipe = config.load(cls, path, overrides)
        files = [(str(file), values) for file, values in config.read_levels(path)]
        recipe._given = [*files, (config.COMMAND_LINE, config.overridden({}, overrides))]
        return recipe

    @field_validator("cells")
    @classmethod
    def _names(cls, cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in cells:
            if not CELL.fullmatch(name):
                raise ValueError(f"a cell's name must be 1 to 60 letters, digits, spaces or .,=+×_-, found {name!r}")
        if taken := [name for name in (BASE, EXPECTED) if name in cells]:
            raise ValueError(f"a cell can't be named {taken[0]!r}, which is reserved")
        slugs = [slug(name) for name in cells]
        if len(set(slugs)) < len(slugs):
            raise ValueError(f"names of cells must differ in more than spaces and case, found {', '.join(cells)}")
        return cells

    @model_validator(mode="after")
    def _whole(self) -> "CompareRecipe":
        for against, others in self.contrasts.items():
            for name in (against, *others):
                if name not in self.cells:
                    raise ValueError(f"against must name cells, which are {', '.join(self.cells)}; found {name!r}")
            if against in others:
                raise ValueError(f"against compares {against!r} with itself")
        if self.grid is not None and self.grid.zoom_on not in (None, BASE, EXPECTED, *self.cells):
            known = ", ".join([BASE, EXPECTED, *self.cells])
            raise ValueError(f"grid.zoom_on must be one of {known}; found {self.grid.zoom_on!r}")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, found {self.seeds}")
        if self.tuning is not None:
            if self.tuning.data == self.test:
                raise ValueError(f"tuning.data and test must differ, both are {self.test!r}: no tuning on the test set")
            for cell, lender in self.tuning.rate_sources.items():
                if not {cell, lender} <= self.cells.keys():
                    known = ", ".join(self.cells)
                    raise ValueError(f"tuning.same must name cells, which are {known}; found {cell!r} like {lender!r}")
                if lender in self.tuning.rate_sources:
                    raise ValueError(f"tuning.same: {lender!r} has no learning rate of its own that {cell!r} could use")
        return self

    @model_validator(mode="after")
    def _one_length(self) -> "CompareRecipe":
        strategies = {cell: config.merge(self.train, own).get("strategy", "mpd") for cell, own in self.cells.items()}
        lengths = {cell: self._length(cell) for cell in self.cells}
        for against, others in self.contrasts.items():
            for cell in others:
                if strategies[cell] != strategies[against] and lengths[cell] != lengths[against]:
                    raise ValueError(
                        f"strategies are compared at the same length: {against!r} has {lengths[against]}, {cell!r} has "
                        f"{lengths[cell]}; give both one, and compare the other one within a strategy"
                    )
        return self

    @model_validator(mode="after")
    def _same_regions(self) -> "CompareRecipe":
        regions = {cell: self._region_names(cell) for cell in self.cells}
        first, its = next(iter(regions.items()))
        for cell, own in regions.items():
            if own != its:
                raise ValueError(
                    "cells are compared by the losses of the same regions, in the same order: regions.names is "
                    f"{as_typed(its)} in {first!r} and {as_typed(own)} in {cell!r}; give all cells the same, and "
                    "compare the others on their own"
                )
        return self

    @model_validator(mode="after")
    def _fronts_are_fair(self) -> "CompareRecipe":
        front, tuning = self.front, self.tuning
        if front is None:
            return self
        if tuning is None:
            raise ValueError("front chooses points on tuning data: give tuning.data and tuning.learning_rates")
        margins = any(getattr(self, name) != field.default for name, field in Margins.model_fields.items())
        if tuning.rate_sources or self.contrasts or self.grid or margins:
            raise ValueError(
                "front tests points, not cells, and has margins of its own: remove tuning.same, against, grid, margin "
                "and global_margin"
            )
        if tuning.seed in self.seeds:
            raise ValueError(f"front tests with fresh seeds: tuning.seed {tuning.seed} must not be one of seeds")
        self._check_families(front)
        for setting, point in (("untuned", front.untuned), *(("also", one) for one in front.also)):
            if point.cell not in self.cells:
                raise ValueError(f"front.{setting}.cell must be one of {', '.join(self.cells)}; found {point.cell!r}")
            if point.learning_rate not in tuning.learning_rates:
                rates = ", ".join(f"{rate:g}" for rate in tuning.learning_rates)
                raise ValueError(
                    f"front.{setting}.learning_rate must be one of tuning.learning_rates, {rates}; found "
                    f"{point.learning_rate:g}"
                )
        lengths = {self._length(cell): cell for cell in self.cells}
        if len(lengths) > 1:
            (one, a), (other, b), *_ = lengths.items()
            raise ValueError(f"front compares all cells at one length: {a!r} has {one}, {b!r} has {other}")
        self._check_names(front, tuning)
        self._check_strangers(front, tuning)
        return self

    def _check_families(self, front: FrontSettings) -> None:
        for family in front.families:
            cells = front.cells_of(family)
            for cell in cells:
                if cell not in self.cells:
                    known = ", ".join(self.cells)
                    raise ValueError(f"front.families must name cells, which are {known}; found {cell!r}")
            if family in self.cells and family not in cells:
                raise ValueError(
                    f"front.families: {family!r} is a cell that isn't in the family of its name; name the family "
                    "otherwise"
                )
        families = dict.fromkeys(map(front.family, self.cells))
        if front.rival not in families:
            raise ValueError(f"front.rival must be one of the families {', '.join(families)}; found {front.rival!r}")
        others = [family for family in families if family != front.rival]
        for one in front.predictions:
            if one.family is not None and one.family not in others:
                raise ValueError(f"front.predictions: family must be one of {', '.join(others)}; found {one.family!r}")
            if one.family is not None and len(front.cells_of(one.family)) != len(front.cells_of(front.rival)):
                raise ValueError(
                    f"front.predictions: a family is judged beside as many cells: {one.family!r} has "
                    f"{len(front.cells_of(one.family))}, {front.rival!r} {len(front.cells_of(front.rival))}"
                )
            if one.world and one.world not in front.worlds:
                raise ValueError(
                    f"front.predictions: world must be one of {', '.join(front.worlds)}; found {one.world!r}"
                )

    def _check_names(self, front: FrontSettings, tuning: TuningSettings) -> None:
        """Points are cells of the test, named after world, cell and learning rate."""
        taken: dict[str, str] = {}
        for world in ("", *front.worlds):
            for cell in self.cells:
                for rate in tuning.learning_rates:
                    name = f"{world}, {cell}, {rate:g}" if world else f"{cell}, {rate:g}"
                    if not CELL.fullmatch(name):
                        raise ValueError(
                            f"{'front.worlds' if world else 'cells'}: points are named after world, cell and learning "
                            "rate, at most 60 letters, digits, spaces or .,=+×_- together; found "
                            f"{name!r}, {len(name)} characters"
                        )
                    other = taken.setdefault(slug(name), name)
                    if other != name:
                        raise ValueError(
                            "front.worlds and cells: names of points must differ in more than spaces and case, found "
                            f"{other!r} and {name!r}"
                        )

    def _check_strangers(self, front: FrontSettings, tuning: TuningSettings) -> None:
        """No data set is used for two of training, tuning and test. Rendered people of one seed are the same persons,
        so the sets of a front need seeds of their own, too.
        """
        worlds = front.worlds
        trained = [config.merge(self.train, own).get("data") for own in (*self.cells.values(), {})]
        trained += [world.train.get("data") for world in worlds.values()]
        tests = {"test": self.test}
        tests |= {f"front.worlds.{name}.test": world.test for name, world in worlds.items() if world.test is not None}
        if front.samples is not None:
            tests["front.samples.data"] = front.samples.data
        steered = [config.merge(self.train, own).get("steer") for own in self.cells.values()]
        steering = [str(one["data"]) for one in steered if isinstance(one, dict) and one.get("data")]
        roles: list[dict[str, str]] = [
            {f"training data {place!r}": place for data in trained for place in _paths(data)},
            {f"tuning.data {tuning.data!r}": tuning.data},
            {f"{name} {place!r}": place for name, place in tests.items()},
            {f"steer.data {place!r}": place for place in steering},
        ]
        for one, another in combinations(roles, 2):
            for (name, a), (second, b) in product(one.items(), another.items()):
                first, last = (self.data(place).resolve() for place in (a, b))
                if first.is_relative_to(last) or last.is_relative_to(first):
                    raise ValueError(
                        f"front trains, steers, tunes and tests on different data: {name} and {second} overlap"
                    )
        seeds: dict[int, str] = {}
        for name, people in self.people.items():
            other = seeds.setdefault(people.seed, name)
            if other != name:
                raise ValueError(
                    f"front tests on other persons: people {other!r} and {name!r} both have the seed {people.seed}"
                )

    def _length(self, cell: str) -> str:
        """`fairness.length` of a cell, and the radius where it has one, as typed on the command line."""
        given = config.merge(self.train, self.cells[cell]).get("fairness")
        defaults = {name: FairnessSettings.model_fields[name].default for name in ("length", "radius")}
        found = {**defaults, **(given if isinstance(given, dict) else {})}
        radius = f"{found['radius']:g}" if isinstance(found["radius"], int | float) else str(found["radius"])
        named = f"fairness.length={found['length']}"
        return named if found["length"] == "scalarized" else f"{named} fairness.radius={radius}"

    def _region_names(self, cell: str) -> Any:
        """`regions.names` of a cell, as given; a list where they are one."""
        given = config.merge(self.train, self.cells[cell]).get("regions")
        names = given.get("names") if isinstance(given, dict) else None
        names = RegionSettings.model_fields["names"].default if names is None else names
        return list(names) if isinstance(names, tuple) else names

    @property
    def contrasts(self) -> dict[str, list[str]]:
        """A reference cell to the cells that are compared with it."""
        if isinstance(self.against, str):
            return {self.against: [cell for cell in self.cells if cell != self.against]}
        return self.against or {}

    @property
    def other_data(self) -> list[str]:
        """Names of the data sets besides those trained on."""
        sections = (self.tuning, self.grid, self.front.samples if self.front is not None else None)
        worlds = self.front.worlds.values() if self.front is not None else ()
        own = [section.data for section in sections if section is not None]
        return [self.test, *own, *(world.test for world in worlds if world.test is not None)]

    @property
    def comparisons(self) -> dict[str, "CompareRecipe"]:
        """The comparisons to run, by name."""
        return {"": self}

    @property
    def results_folder(self) -> Path:
        """Folder of report, numbers and losses."""
        return self.results or self.out

    def data(self, name: str) -> Path:
        """Path of a data set or of one of `people`."""
        return self.out / "people" / name if name in self.people else Path(name)

    def run(self, cell: str, seed: int, rate: float | None, split: str) -> TrainRecipe:
        """The training recipe of a cell and seed; `rate` None keeps the learning rate of `train` and the cell.

        Raises:
            RecipeError: a setting that training doesn't have, that the comparison sets itself, or that has no effect.
        """
        return self._run(cell, seed, rate, split)[0]

    def _run(self, cell: str, seed: int, rate: float | None, split: str) -> tuple[TrainRecipe, list[Dropped]]:
        """The training recipe of a cell and seed, and the shared settings that have no effect in it."""
        values: dict[str, Any] = config.merge(self.train, self.cells[cell])
        for name in RESERVED:
            section, _, key = name.rpartition(".")
            if key in (values.get(section, {}) if section else values):
                raise RecipeError(f"compare: {name} is set by the comparison; remove it from train and cells")
        changed = f"-{rate:g}" if rate is not None else ""
        data = self.test if split == "test" or self.tuning is None else self.tuning.data
        own: dict[str, Any] = {
            "out": str(self.out / "runs" / split / f"{slug(cell)}{changed}-seed-{seed}"),
            "seed": seed,
            "data": self._places(values.get("data")),
            **self._steering(cell, values.get("steer")),
            **({"learning_rate": rate} if rate is not None else {}),
            "validation": {"data": str(self.data(data)), "every": values.get("steps", 0)},
        }
        return recipe_of(config.merge(values, own), [*self._levels(cell), Level("", own, 4)], f"cell {cell!r}")

    def _steering(self, cell: str, steer: Any) -> dict[str, Any]:
        """What a cell is steered by, with people by name in place of their path.

        Raises:
            RecipeError: it would be steered by the pictures that it is measured on.
        """
        if not isinstance(steer, dict) or steer.get("at_most") is None:
            return {}
        data = steer.get("data")
        if data is None or data in (self.test, self.tuning.data if self.tuning is not None else None):
            raise RecipeError(
                f"cell {cell!r}: steer.data must be a data set of its own, as losses are compared on `test` and "
                f"tuning.data; found {as_typed(data)}"
            )
        return {"steer": {"data": str(self.data(str(data)))}}

    def _places(self, data: Any) -> Any:
        """The data of a run, one set or several, with people by name in place of their paths."""
        if isinstance(data, list):
            return [{**one, "path": self._places(one.get("path"))} if isinstance(one, dict) else one for one in data]
        return None if data is None else str(self.data(str(data)))

    def _levels(self, cell: str) -> list[Level]:
        """Where a cell's settings were given: shared ones, then its own; ranks as in `train/levels.py`."""
        *extended, own, typed = self._given or [("", {"train": self.train, "cells": self.cells}), ("", {})]
        shared = [Level(f"train of {place}", values.get("train") or {}, 0) for place, values in extended]
        shared += [Level("train", own[1].get("train") or {}, 1), Level(typed[0], typed[1].get("train") or {}, 3)]
        cells = [Level(place, (values.get("cells") or {}).get(cell) or {}, 2) for place, values in extended]
        cells += [Level(f"cell {cell!r}", (own[1].get("cells") or {}).get(cell) or {}, 2)]
        cells += [Level(typed[0], (typed[1].get("cells") or {}).get(cell) or {}, 3)]
        return [*shared, *cells]

    def notes(self) -> list[str]:
        """Say which settings are left out of which cells, as they have no effect there; errors as `run`."""
        cells_of: dict[tuple[str, str], list[str]] = {}
        for cell in self.cells:
            for one in self._run(cell, self.seeds[0], None, "test")[1]:
                cells_of.setdefault((one.place, f"{one.setting}={as_typed(one.value)}"), []).append(cell)
        return [
            f"{place}: {setting} has no effect in {'cell' if len(cells) == 1 else 'the cells'} {', '.join(cells)} and "
            "is left out there"
            for (place, setting), cells in cells_of.items()
        ]


def _check_kind(path: Path, overrides: Sequence[str], kind: str) -> None:
    """Refuse a recipe of a training run in one sentence instead of a line a setting."""
    given = config.overridden(config.read(path), overrides)
    if "cells" not in given and given.keys() & (TrainRecipe.model_fields.keys() - CompareRecipe.model_fields.keys()):
        raise RecipeError(f"{path}: this is a recipe of `fairhuman train`; a {kind} has `cells`")
    if "sampling" in given and kind == CompareRecipe.KIND:
        raise RecipeError(f"{path}: this is a recipe of `fairhuman reproduce`, as it has `sampling`")


def _paths(data: Any) -> list[str]:
    """The places of a run's data, one set or several."""
    if isinstance(data, list):
        return [str(one["path"]) for one in data if isinstance(one, dict) and "path" in one]
    return [] if data is None else [str(data)]


def slug(name: str) -> str:
    """A cell's name as a folder name."""
    return re.sub(r"[^\w.+=-]+", "-", name.casefold()).strip("-")


class DrawSettings(Settings):
    """Sampling settings for the models of a grid."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"processes", "batch_size"})

    resolution: int = Field(default=1024, ge=8, multiple_of=8, description="width and height in pixels")
    steps: int = Field(default=30, ge=1, description="UniPC steps")
    guidance: float | None = Field(default=None, ge=1.0, description="as in `fairhuman sample`; None: the base's own")
    seed: int = Field(default=0, ge=0, description="seed of the noise")
    base: BaseSettings = BaseSettings()
    batch_size: int = Field(default=4, ge=1, description="pictures per batch; changes the speed, not the noise")
    processes: int = Field(default=2, ge=1, description=f"models that sample in parallel, one thread each; {ON_GPUS}")
