"""Settings of a comparison in two stages: points are chosen on tuning data, and their fronts drawn on test data."""

from typing import Any, Literal, NamedTuple

from pydantic import Field, model_validator

from fairhuman.compare.margins import Margins
from fairhuman.compare.sampling import PromptSampling
from fairhuman.config import Settings
from fairhuman.evaluate.settings import EvaluateSettings
from fairhuman.regions.settings import GLOBAL

STEPS, COMPUTE = "equal steps", "equal compute"
Word = Literal["better", "worse", "same", "moved along the front"]
REGIONS = "regions"  # mean change of all but the global loss


class Point(NamedTuple):
    """A cell with a learning rate."""

    cell: str
    rate: float

    @property
    def name(self) -> str:
        """Its name in tables and folders."""
        return f"{self.cell}, {self.rate:g}"


class PointSettings(Settings):
    """A cell with a learning rate."""

    cell: str = Field(description="name of a cell")
    learning_rate: float = Field(gt=0.0, description="one of tuning.learning_rates")

    @property
    def point(self) -> Point:
        """The point that they name."""
        return Point(self.cell, self.learning_rate)


class WorldSettings(Settings):
    """Other circumstances in which the untuned point and the tuned rival are trained again, without tuning."""

    train: dict[str, Any] = Field(
        default={}, description="training settings that differ; they overrule those that are shared and the cells'"
    )
    test: str | None = Field(default=None, description="data set, or name of one of `people`; None: the same `test`")


class PredictionSettings(Settings):
    """A number and the verdicts expected of it: confirmed by one of these, refuted by any other except undecided.

    The number is the hypervolume of a family minus the rival's (`family`, `budget`), or a loss of the untuned point
    minus that of the tuned rival (`world`, `loss`).
    """

    family: str | None = Field(default=None, description="family whose hypervolume is compared; None: a loss")
    budget: Literal["equal steps", "equal compute"] | None = Field(
        default=None, description="points that are compared, with a family; None: equal steps"
    )
    world: str | None = Field(
        default=None, description="name of a world, without a family; None or empty: the comparison itself"
    )
    loss: str | None = Field(
        default=None, description="a region, or regions: the mean of all; without a family; None: regions"
    )
    verdict: Word | list[Word] = Field(
        description="what is expected of the family or of the untuned point, compared with the rival; a list: one of it"
    )

    @property
    def number(self) -> tuple[str, str]:
        """What is judged: budget and family, or world and loss."""
        if self.family is not None:
            return self.budget or "equal steps", self.family
        return self.world or "", self.loss or REGIONS

    @property
    def words(self) -> list[Word]:
        """The verdicts that confirm it."""
        return self.verdict if isinstance(self.verdict, list) else [self.verdict]

    @model_validator(mode="after")
    def _one_number(self) -> "PredictionSettings":
        if self.family is not None and not self.world is self.loss is None:
            raise ValueError(
                "is about a family's hypervolume, or about a loss in a world: remove family, or world and loss"
            )
        if self.family is None and self.budget is not None:
            raise ValueError("budget is for the hypervolume of a family: name one, or remove budget")
        if self.family is None and self.loss == GLOBAL:
            raise ValueError("loss must be a region or regions: the global loss is what a point costs")
        if not self.words or (self.family is not None and "moved along the front" in self.words):
            raise ValueError("verdict must be better, worse or same, or of a loss also 'moved along the front'")
        return self


class FrontSampling(PromptSampling):
    """Pictures of the base, the untuned point and the tuned rival, which raises the global loss no more."""

    evaluate: EvaluateSettings = EvaluateSettings()


class FrontSettings(Margins):
    """Two stages: every cell with every learning rate on tuning data, then the points that may lie on a front, tested.

    The plane is the change of the global loss (what a point pays) against the mean change of the other losses (what it
    gains). Which points are tested is written to `chosen.json` before the test data are used. Margins are shares of
    what the tuned rival changes on tuning data or in a world, and of the rival family's hypervolume.
    """

    families: dict[str, list[str] | list[list[str]]] = Field(
        default={},
        description="a family to its cells, in the order of their weights, or to several such rows; its points form "
        "one front; other cells are their own family",
    )
    rival: str = Field(description="family that the other families are compared with, such as fixed weights")
    untuned: PointSettings = Field(description="point that is tested in any case, as what a user gets without a search")
    predictions: list[PredictionSettings] = Field(
        default=[],
        description="numbers that are judged, with the verdicts expected; empty: the hypervolumes of all families, and "
        "the mean of the regions in every world",
    )
    each: int = Field(
        default=6, ge=1, description="points of a family whose hypervolume is compared; the same number of the rival's"
    )
    at_most: int = Field(default=25, ge=2, description="points to test")
    reference: float = Field(
        default=0.005,
        gt=0.0,
        description="rise of the global loss, as a share of the base's, up to which fronts count; the other losses "
        "count from no change",
    )
    worlds: dict[str, WorldSettings] = Field(
        default={}, description="name to other circumstances in which the found points are trained again"
    )
    also: list[PointSettings] = Field(
        default=[],
        description="points that are tested, and trained in every world, beside these two; they aren't judged",
    )
    samples: FrontSampling | None = Field(
        default=None, description="pictures that the untuned point and the tuned rival draw, and their metrics"
    )

    @model_validator(mode="after")
    def _one_family_each(self) -> "FrontSettings":
        named = [cell for family in self.families for cell in self.cells_of(family)]
        if twice := [cell for cell in named if named.count(cell) > 1]:
            raise ValueError(f"families: a cell belongs to one family, found {twice[0]!r} twice")
        numbers = [prediction.number for prediction in self.predictions]
        if len(set(numbers)) < len(numbers):
            raise ValueError("predictions must be about different numbers")
        return self

    def rows(self, family: str) -> list[list[str]]:
        """The rows of a family's cells, each in the order of their weights; one cell is a family of its own."""
        cells = self.families.get(family, [family])
        flat = [cell for cell in cells if isinstance(cell, str)]
        return [flat] if flat else [list(row) for row in cells]

    def cells_of(self, family: str) -> list[str]:
        """The cells of a family."""
        return [cell for row in self.rows(family) for cell in row]

    def family(self, cell: str) -> str:
        """The family of a cell."""
        return next((family for family in self.families if cell in self.cells_of(family)), cell)

    def judges(self, budget: str, family: str) -> bool:
        """Whether the hypervolume of a family is judged, or compared with one that is, at a budget."""
        judged = {one.number for one in self.predictions if one.family is not None}
        among = family == self.rival and budget in {at for at, _ in judged}
        return not self.predictions or (budget, family) in judged or among
