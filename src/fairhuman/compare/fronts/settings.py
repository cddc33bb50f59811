"""Settings of a comparison in two stages: points are chosen on tuning data, and their fronts drawn on test data."""

from typing import Any

from pydantic import Field, model_validator

from fairhuman.config import Settings


class PointSettings(Settings):
    """A cell with a learning rate."""

    cell: str = Field(description="name of a cell")
    learning_rate: float = Field(gt=0.0, description="one of tuning.learning_rates")


class WorldSettings(Settings):
    """Other circumstances in which the untuned point and the tuned ones are trained again, without tuning."""

    train: dict[str, Any] = Field(default={}, description="training settings that differ from the shared ones")
    test: str | None = Field(default=None, description="data set, or name of one of `people`; None: the same `test`")


class FrontSettings(Settings):
    """Two stages: every cell with every learning rate on tuning data, then the points that may lie on a front, tested.

    The plane is the change of the global loss (what a point pays) against the mean change of the other losses (what it
    gains). Which points are tested is written to `chosen.json` before the test data are used.
    """

    families: dict[str, list[str]] = Field(
        default={}, description="a family to its cells, whose points form one front; other cells are their own family"
    )
    rival: str = Field(description="family that the other families are compared with, such as fixed weights")
    untuned: PointSettings = Field(description="point that is tested in any case, as what a user gets without tuning")
    at_most: int = Field(default=25, ge=2, description="points to test")
    reference: float = Field(
        default=0.005,
        gt=0.0,
        description="rise of the global loss, as a share of the base's, up to which fronts count; the other losses "
        "count from no change",
    )
    margin: float = Field(
        default=0.1,
        gt=0.0,
        description="differences within ± this share of the effect of training are equal; the effect is that of the "
        "chosen points on tuning data",
    )
    worlds: dict[str, WorldSettings] = Field(
        default={}, description="name to other circumstances in which the found points are trained again"
    )

    @model_validator(mode="after")
    def _one_family_each(self) -> "FrontSettings":
        named = [cell for cells in self.families.values() for cell in cells]
        if twice := [cell for cell in named if named.count(cell) > 1]:
            raise ValueError(f"families: a cell belongs to one family, found {twice[0]!r} twice")
        return self

    def family(self, cell: str) -> str:
        """The family of a cell."""
        return next((family for family, cells in self.families.items() if cell in cells), cell)
