"""Settings of a comparison: cells (a strategy, a rank, any training settings) over seeds, all else equal."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from fairhuman import config
from fairhuman.compare.paper.settings import CostSettings
from fairhuman.config import Settings
from fairhuman.errors import RecipeError
from fairhuman.models.settings import BaseSettings
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.recipe import TrainRecipe

CELL = re.compile(r"[\w.,=+× -]{1,60}")
BASE, EXPECTED = "base", "expected"
MAX_ROWS = 64  # of a grid
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

    data: str = Field(
        description="small data set, or name of one of `people`; its captions are the prompts, its pose and depth the "
        "conditions"
    )
    steps: int = Field(default=30, ge=1, description="UniPC steps")
    guidance: float = Field(default=7.5, ge=1.0, description="classifier-free guidance; 1 = none")
    seed: int = Field(default=0, ge=0, description="seed of the noise")
    zoom_on: str | None = Field(
        default=None,
        description="cell or 'base' whose faces and hands define the close-ups; 'expected': boxes of `data`",
    )


class CompareRecipe(Settings):
    """Recipe of a comparison.

    Runs with the same seed differ only in their cell: data order, mirroring, noise and timesteps are the same.
    """

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"processes", "results"})

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
    margin: float = Field(
        default=0.02, gt=0, description="differences within ± this share of the base's loss are equal"
    )
    processes: int = Field(default=2, ge=1, description="parallel runs, one thread each")

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

    @property
    def contrasts(self) -> dict[str, list[str]]:
        """A reference cell to the cells that are compared with it."""
        if isinstance(self.against, str):
            return {self.against: [cell for cell in self.cells if cell != self.against]}
        return self.against or {}

    @property
    def other_data(self) -> list[str]:
        """Names of the data sets besides those trained on."""
        sections = (self.tuning, self.grid)
        return [self.test, *(section.data for section in sections if section is not None)]

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
            RecipeError: a setting that training doesn't have, or that the comparison sets itself.
        """
        values: dict[str, Any] = config.merge(self.train, self.cells[cell])
        for name in RESERVED:
            section, _, key = name.rpartition(".")
            if key in (values.get(section, {}) if section else values):
                raise RecipeError(f"compare: {name} is set by the comparison; remove it from train and cells")
        changed = f"-{rate:g}" if rate is not None else ""
        values["out"] = str(self.out / "runs" / split / f"{slug(cell)}{changed}-seed-{seed}")
        values["seed"] = seed
        values["data"] = str(self.data(str(values["data"]))) if "data" in values else None
        if rate is not None:
            values["learning_rate"] = rate
        data = self.test if split == "test" or self.tuning is None else self.tuning.data
        steps = int(values.get("steps", TrainRecipe.model_fields["steps"].default))
        held_out = {"data": str(self.data(data)), "every": steps}
        values["validation"] = {**values.get("validation", {}), **held_out}
        return config.build(TrainRecipe, values, origin=f"cell {cell!r}")


def slug(name: str) -> str:
    """A cell's name as a folder name."""
    return re.sub(r"[^\w.+=-]+", "-", name.casefold()).strip("-")


class DrawSettings(Settings):
    """Sampling settings for the models of a grid."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"processes"})

    resolution: int = Field(default=1024, ge=8, multiple_of=8, description="width and height in pixels")
    steps: int = Field(default=30, ge=1, description="UniPC steps")
    guidance: float = Field(default=7.5, ge=1.0, description="classifier-free guidance; 1 = none")
    seed: int = Field(default=0, ge=0, description="seed of the noise")
    base: BaseSettings = BaseSettings()
    processes: int = Field(default=2, ge=1, description="models that sample in parallel, one thread each")
