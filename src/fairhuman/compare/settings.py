"""A comparison: cells (a strategy, a rank, any settings of training) over seeds, all else the same."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, field_validator, model_validator

from fairhuman import config
from fairhuman.compare.paper.settings import CostSettings
from fairhuman.config import Settings
from fairhuman.errors import RecipeError
from fairhuman.synth.settings import SynthSettings
from fairhuman.train.recipe import TrainRecipe

CELL = re.compile(r"[\w.,=+× -]{1,60}")
BASE, EXPECTED = "base", "expected"
OWN = ("out", "seed", "validation.data", "validation.every")  # what the comparison sets itself


class TuningSettings(Settings):
    """How cells get their own learning rates, by one rule.

    Among rates whose change of the global loss on the tuning data is at most `max_global`, the one with the lowest sum
    of the changes of all other objectives; where there is none, the one with the lowest change of the global loss.
    """

    data: str = Field(description="data set, or name of one of `people`; never the one that is reported on")
    learning_rates: list[float] = Field(min_length=1)
    seed: int = Field(default=0, ge=0)
    max_global: float = Field(default=0.005, description="0.005 = half a percent above the base")
    same: dict[str, list[str]] = Field(
        default={}, description="a cell to those that take its learning rate, to differ from it in their settings alone"
    )

    @property
    def lenders(self) -> dict[str, str]:
        """A cell to the one whose learning rate it takes."""
        return {cell: lender for lender, cells in self.same.items() for cell in cells}

    def runs_of(self, cells: Collection[str]) -> int:
        """How many runs find the learning rates of `cells`."""
        return len(self.learning_rates) * (len(cells) - len(self.lenders))


class GridSettings(Settings):
    """Pictures of the base and every cell for the same prompts and conditions, with the same noise."""

    data: str = Field(
        description="data set, or name of one of `people`, a dozen pictures: every caption is a prompt, and pose and "
        "depth are what cells follow that follow one"
    )
    steps: int = Field(default=30, ge=1, description="of UniPC")
    guidance: float = Field(default=7.5, ge=1.0)
    seed: int = Field(default=0, ge=0, description="of the noise")
    zoom_on: str | None = Field(
        default=None,
        description="cell, or 'base', in whose pictures faces and hands are found; 'expected': `data`'s boxes",
    )


class CompareRecipe(Settings):
    """Everything about a comparison.

    Runs of one seed differ in their cell alone: order of pictures, mirroring, noise and timesteps are the same.
    """

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"processes", "results"})

    out: Path
    results: Path | None = Field(
        default=None,
        description="report, numbers and the losses of runs that ended; None: in `out`, where the runs are",
    )
    train: dict[str, Any] = Field(description="settings of training that all runs share")
    cells: dict[str, dict[str, Any]] = Field(min_length=1, description="name to the settings in which it differs")
    against: str | dict[str, list[str]] | None = Field(
        default=None, description="the cell that all others are compared with, or a cell to those compared with it"
    )
    seeds: list[int] = Field(default=[1, 2, 3, 4, 5], min_length=1)
    tuning: TuningSettings | None = None
    test: str = Field(description="data set, or name of one of `people`: the losses that are reported")
    people: dict[str, SynthSettings] = Field(default={}, description="sets of synthetic people to render")
    grid: GridSettings | None = Field(default=None, description="also pictures, by the first seed's weights")
    cost: CostSettings | None = Field(default=None, description="also what LoRA and MoLE cost at inference")
    margin: float = Field(default=0.02, gt=0, description="changes within ± this count as the same, of the base's loss")
    processes: int = Field(default=2, ge=1, description="runs at once, a thread each")

    @field_validator("cells")
    @classmethod
    def _names(cls, cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
        for name in cells:
            if not CELL.fullmatch(name):
                raise ValueError(f"a cell's name must be 1 to 60 letters, digits, spaces or .,=+×_-, found {name!r}")
        if taken := [name for name in (BASE, EXPECTED) if name in cells]:
            raise ValueError(f"a cell can't be named {taken[0]!r}, which means something else here")
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
            for cell, lender in self.tuning.lenders.items():
                if not {cell, lender} <= self.cells.keys():
                    known = ", ".join(self.cells)
                    raise ValueError(f"tuning.same must name cells, which are {known}; found {cell!r} like {lender!r}")
                if lender in self.tuning.lenders:
                    raise ValueError(f"tuning.same: {lender!r} has no learning rate of its own for {cell!r} to take")
        return self

    @property
    def contrasts(self) -> dict[str, list[str]]:
        """A cell to those that are compared with it."""
        if isinstance(self.against, str):
            return {self.against: [cell for cell in self.cells if cell != self.against]}
        return self.against or {}

    @property
    def results_folder(self) -> Path:
        """Where report, numbers and losses are."""
        return self.results or self.out

    def data(self, name: str) -> Path:
        """The folder of a data set: one of `people`, or a path."""
        return self.out / "people" / name if name in self.people else Path(name)

    def run(self, cell: str, seed: int, rate: float | None, split: str) -> TrainRecipe:
        """The training run of a cell and seed; `rate` None keeps the learning rate of `train` and the cell.

        Raises:
            RecipeError: a setting that training doesn't have, or one that the comparison sets itself.

        """
        values: dict[str, Any] = config.merge(self.train, self.cells[cell])
        for name in OWN:
            section, _, key = name.rpartition(".")
            if key in (values.get(section, {}) if section else values):
                raise RecipeError(f"compare: {name} is set by the comparison, take it out of train and cells")
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
    """A cell's name as part of a folder's."""
    return re.sub(r"[^\w.+=-]+", "-", name.casefold()).strip("-")


class DrawSettings(Settings):
    """How the models of a grid draw."""

    EXECUTION: ClassVar[frozenset[str]] = frozenset({"processes"})

    resolution: int = Field(default=1024, ge=8, multiple_of=8, description="pixels a side")
    steps: int = Field(default=30, ge=1, description="of UniPC")
    guidance: float = Field(default=7.5, ge=1.0)
    seed: int = Field(default=0, ge=0, description="of the noise")
    processes: int = Field(default=2, ge=1, description="models that draw at once, a thread each")
