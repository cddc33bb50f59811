"""Recipe of a reproduction: the cells of a comparison, and the pictures and tables that are made of them."""

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from fairhuman.compare.sampling import PromptSampling
from fairhuman.compare.settings import CompareRecipe
from fairhuman.evaluate.settings import EvaluateSettings

Table = Literal["Table 2", "Table 3"]
Closed = Literal["HanDiffuser", "HyperHuman"]
FIGURES: Mapping[Closed, str] = {"HanDiffuser": "Figure 1", "HyperHuman": "Figure 2"}
Start = Literal["training", "pictures", "report"]  # what a command begins with; what comes before is used as it is
ONE_RATE, OWN_RATES = "one learning rate", "own learning rates"


class TableSampling(PromptSampling):
    """How the pictures of the tables are drawn: with every cell, seed and LoRA weight, from the same noise."""

    lora_weights: list[float] = Field(default=[1.0], min_length=1, description="weights with which LoRAs are used")

    @field_validator("lora_weights")
    @classmethod
    def _distinct(cls, weights: list[float]) -> list[float]:
        if len(set(weights)) < len(weights):
            raise ValueError(f"must differ, found {weights}")
        return weights


class ReproduceRecipe(CompareRecipe):
    """Recipe of `fairhuman reproduce`: a comparison, and what its tables and figures are made of.

    Every cell is trained with the learning rate of `train`, as in the paper; with `tuning` also with its own.
    """

    KIND: ClassVar[str] = "reproduction"

    sampling: TableSampling
    evaluate: EvaluateSettings = EvaluateSettings()
    tables: dict[Table, list[str]] = Field(
        default={}, description="a table to the cells that are its rows; without any, all cells are rows of Table 2"
    )
    closed: dict[Closed, Path] = Field(
        default={}, description="pictures with captions of the closed methods of Figures 1 and 2, each in a folder"
    )
    figure_rows: int = Field(default=6, ge=1, le=64, description="prompts in a figure, drawn at random")

    @model_validator(mode="after")
    def _rows_are_cells(self) -> "ReproduceRecipe":
        if self.grid is not None:
            raise ValueError("grid belongs to compare; here figures are made of the pictures of `sampling`: remove it")
        if self.front is not None:
            raise ValueError("front belongs to compare: remove it, or run fairhuman compare")
        for table, cells in self.tables.items():
            for cell in cells:
                if cell not in self.cells:
                    raise ValueError(
                        f"tables: {table} must name cells, which are {', '.join(self.cells)}, not {cell!r}"
                    )
        return self

    @property
    def other_data(self) -> list[str]:
        """Names of the data sets besides those trained on."""
        return [*super().other_data, self.sampling.data, *map(str, self.closed.values())]

    @property
    def rows(self) -> dict[Table, list[str]]:
        """The cells of each table."""
        return self.tables or {"Table 2": list(self.cells)}

    def reference_cell(self, table: Table) -> str:
        """The cell that the others of a table are compared with: the first of `against` that is a row, else a row."""
        rows = self.rows[table]
        return next((cell for cell in self.contrasts if cell in rows), rows[0])

    @property
    def comparisons(self) -> dict[str, CompareRecipe]:
        """The comparisons to run: at one learning rate, and at tuned ones if there is `tuning`."""
        shared = self.model_copy(update={"tuning": None})
        return {ONE_RATE: shared} if self.tuning is None else {ONE_RATE: shared, OWN_RATES: self}
