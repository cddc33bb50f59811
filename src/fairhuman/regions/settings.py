"""Settings of regions: which have their own objective, and how boxes are drawn as masks."""

from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from fairhuman.config import Settings


class MaskSettings(Settings):
    """How boxes are drawn as masks. Painted masks are used unchanged and take precedence over boxes."""

    shape: Literal["rectangle", "ellipse"] = Field(default="rectangle", description="the box, or the ellipse inside it")
    padding: float = Field(
        default=0.0, ge=0.0, le=10.0, description="margin added on each side, as a share of the box's longer side"
    )
    soft_edge: float = Field(
        default=0.0, ge=0.0, le=256.0, description="pixels: sigma of a Gaussian that softens the edge"
    )
    painted: bool = Field(default=True, description="whether a painted mask takes precedence over boxes")


GLOBAL = "global"
Normalize = Literal["area", "image"]


class RegionSettings(Settings):
    """The objectives besides the global one, and how their losses are normalised."""

    names: tuple[str, ...] = Field(default=("face", "hand"), description="face, hand, or any annotated region")
    normalize: Normalize = Field(
        default="area",
        description="denominator of a region's loss: its area, or the area of the whole picture as in the paper",
    )
    scale: Mapping[str, float] = Field(default_factory=dict, description="factor c of each objective's loss")
    mask: MaskSettings = MaskSettings()

    @field_validator("names")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if GLOBAL in names or len(set(names)) < len(names) or not all(names):
            raise ValueError(f"must be distinct, not empty and not {GLOBAL!r}")
        return names

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: Mapping[str, float]) -> Mapping[str, float]:
        if not all(value > 0.0 for value in scale.values()):
            raise ValueError(f"factors must be > 0, not {dict(scale)}")
        return scale

    @property
    def objectives(self) -> tuple[str, ...]:
        """All objectives, the global one first."""
        return (GLOBAL, *self.names)

    def factors(self) -> tuple[float, ...]:
        """Return the factor c of each of the K objectives.

        Raises:
            ValueError: `scale` names an unknown objective.
        """
        unknown = sorted(set(self.scale) - set(self.objectives))
        if unknown:
            raise ValueError(f"regions.scale names {unknown[0]!r}, the objectives are {', '.join(self.objectives)}")
        return tuple(self.scale.get(name, 1.0) for name in self.objectives)
