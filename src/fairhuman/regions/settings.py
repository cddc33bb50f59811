"""Settings of regions: which have their own objective, and how boxes are drawn as masks."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from pydantic import Field, field_validator, model_validator

from fairhuman.config import Settings
from fairhuman.record import IGNORE, REGION_COLUMNS


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


GLOBAL, PRIOR = "global", "prior"
BUT_THE_LARGEST = " but the largest"
Normalize = Literal["area", "image"]


class RegionSettings(Settings):
    """The objectives besides the global one, and how their losses are normalised."""

    names: tuple[str, ...] = Field(default=("face", "hand"), description="face, hand, or any annotated region")
    normalize: Normalize = Field(
        default="area",
        description="denominator of a region's loss: its area, or that of the whole picture as in the paper's code",
    )
    scale: Mapping[str, float] = Field(
        default_factory=dict,
        description="factor c of each objective's loss. With ls, above 1 favours an objective; with mpd, below 1 does, "
        "as a factor c is a preference 1/c; nash ignores it",
    )
    mask: MaskSettings = MaskSettings()
    prior: bool = Field(
        default=False,
        description="of kind lora: hold the prediction outside of the regions to that of the base without the LoRA, as "
        "an objective `prior` of its own; costs one more forward pass a step",
    )
    ignore: tuple[str, ...] = Field(
        default=(),
        description="what counts for no objective besides the region 'ignore': other regions of the data set, such as "
        "[watermark], or all boxes of a region but its largest, such as ['faces but the largest']",
    )

    @field_validator("names")
    @classmethod
    def _distinct(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if GLOBAL in names or len(set(names)) < len(names) or not all(names):
            raise ValueError(f"must be distinct, not empty and not {GLOBAL!r}")
        if IGNORE in names:
            raise ValueError(f"{IGNORE!r} counts for no objective and is always read; leave it out")
        return names

    @field_validator("ignore", mode="before")
    @classmethod
    def _rules(cls, rules: object) -> object:
        """A single rule may stand without a list; `none` or null is no rule; `faces ...` is `face ...`."""
        if rules in (None, "none", ["none"]):
            return ()
        found = (rules,) if isinstance(rules, str) else rules
        return tuple(map(_rule, found)) if isinstance(found, list | tuple) else rules

    @model_validator(mode="after")
    def _held_outside_of_regions(self) -> "RegionSettings":
        if self.prior and not self.names:
            raise ValueError("prior holds what lies outside of the regions, so names must have at least one region")
        if self.prior and PRIOR in self.names:
            raise ValueError(f"prior=true is the objective {PRIOR!r}: rename the region {PRIOR!r}, or set prior=false")
        return self

    @model_validator(mode="after")
    def _trained_or_ignored(self) -> "RegionSettings":
        for rule in self.ignore:
            if rule in self.names:
                raise ValueError(f"{rule!r} is in regions.names and in regions.ignore: take it out of one")
        return self

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: Mapping[str, float]) -> Mapping[str, float]:
        if not all(value > 0.0 for value in scale.values()):
            raise ValueError(f"factors must be > 0, not {dict(scale)}")
        return scale

    @property
    def ignored(self) -> tuple[str, ...]:
        """The regions that count for no objective."""
        return (IGNORE, *(rule for rule in self.ignore if not rule.endswith(BUT_THE_LARGEST)))

    @property
    def ruled(self) -> tuple[str, ...]:
        """The regions that `ignore` names, of which all or some boxes are ignored."""
        return tuple(dict.fromkeys(rule.removesuffix(BUT_THE_LARGEST) for rule in self.ignore))

    @property
    def objectives(self) -> tuple[str, ...]:
        """All objectives whose target is the data, the global one first: those that have a held-out loss."""
        return (GLOBAL, *self.names)

    @property
    def step_objectives(self) -> tuple[str, ...]:
        """All objectives of a step: `objectives`, and `prior` if there is one."""
        return (*self.objectives, PRIOR) if self.prior else self.objectives

    def factors(self) -> tuple[float, ...]:
        """Return the factor c of each of the K objectives.

        Raises:
            ValueError: `scale` names an unknown objective.
        """
        return by_objective("regions.scale", self.scale, self.step_objectives)


def by_objective(setting: str, values: Mapping[str, float], objectives: Sequence[str]) -> tuple[float, ...]:
    """Return a setting's value for each objective, 1 where it has none.

    Raises:
        ValueError: it names an unknown objective.
    """
    check_objectives(setting, values, objectives)
    return tuple(values.get(name, 1.0) for name in objectives)


def check_objectives(setting: str, named: Iterable[str], objectives: Sequence[str]) -> None:
    """Check that a setting names known objectives alone.

    Raises:
        ValueError: it names an unknown one.
    """
    unknown = sorted(set(named) - set(objectives))
    if unknown:
        raise ValueError(f"{setting} names {unknown[0]!r}, the objectives are {', '.join(objectives)}")


def _rule(rule: object) -> object:
    """A rule with the name of its region instead of that of its column."""
    if not isinstance(rule, str):
        return rule  # pydantic names its type
    text = " ".join(rule.split())
    name = text.removesuffix(BUT_THE_LARGEST)
    if not name or name == IGNORE or " but " in name:
        raise ValueError(f"must be a region, or a region and '{BUT_THE_LARGEST.strip()}', not {rule!r}")
    regions = {column: region for region, column in REGION_COLUMNS.items()}
    return regions.get(name, name) + text.removeprefix(name)
