"""Filters of records, one class each, over measures that are computed once.

A filter can't judge a picture whose measure is unknown; `FilterSettings.unknown` says what becomes of it. Thresholds
can be changed without measuring again.
"""

import itertools
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from fairhuman.config import Settings
from fairhuman.record import Box, HumanRecord

CLARITY_PIXELS = 512**2  # size of the resized picture on which clarity is measured
PERSON = "person"
Need = Literal["face", "hand", "face or hand", "people"]


class FilterSettings(Settings):
    """Filters of records; null switches one off, and bounds are inclusive."""

    min_side: int | None = Field(default=1024, ge=1, description="pixels of the shorter side")
    min_aspect: float | None = Field(default=None, gt=0.0, description="width / height")
    max_aspect: float | None = Field(default=None, gt=0.0, description="width / height")
    needs: tuple[Need, ...] | None = Field(
        default=None,
        description="what a picture must have, at least one of each; people: a person, a face or a hand; null: people "
        "where detectors of a build run, otherwise nothing",
    )
    min_persons: int | None = Field(default=None, ge=0, description="number of persons in a picture")
    max_persons: int | None = Field(default=None, ge=0, description="number of persons in a picture")
    min_person_share: float | None = Field(
        default=None, ge=0.0, le=1.0, description="share of the picture's area covered by persons"
    )
    max_person_share: float | None = Field(
        default=None, ge=0.0, le=1.0, description="share of the picture's area covered by persons"
    )
    min_clarity: float | None = Field(default=None, ge=0.0, description="variance of the Laplacian, grey levels²")
    min_clarity_percentile: float | None = Field(
        default=None, ge=0.0, le=100.0, description="min_clarity as a percentile over the pictures with known clarity"
    )
    unknown: Literal["reject", "keep"] = Field(
        default="reject", description="pictures that a filter can't judge, as nothing says how many people are in them"
    )

    @property
    def required(self) -> tuple[Need, ...]:
        """What a picture must have."""
        return self.needs or ()

    @model_validator(mode="after")
    def _in_order(self) -> "FilterSettings":
        for name in ("aspect", "persons", "person_share"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(f"min_{name} must be at most max_{name}, found {low:g} and {high:g}")
        if self.min_clarity is not None and self.min_clarity_percentile is not None:
            raise ValueError("give min_clarity or min_clarity_percentile, not both")
        return self


@dataclass(frozen=True, slots=True)
class Measures:
    """The measures that filters use; None = unknown.

    Attributes:
        width, height: pixels of the upright picture.
        clarity: see `clarity`.
        persons, faces, hands: counts.
        person_share: share of the picture, 0..1, inside the boxes of persons.
    """

    width: int
    height: int
    clarity: float | None = None
    persons: int | None = None
    person_share: float | None = None
    faces: int | None = None
    hands: int | None = None


class Rejection(NamedTuple):
    """Why a filter rejects a picture: the reason, without the value so that reasons can be counted, and the value."""

    reason: str
    value: float


@dataclass(frozen=True)
class Filter:
    """A measure of the picture, by default a field of `Measures`, that must lie in [low, high]; None = no bound."""

    low: float | None = None
    high: float | None = None

    name: ClassVar[str]
    unit: ClassVar[str]
    settings: ClassVar[tuple[str, str]]
    """Settings of `low` and `high`; empty where a filter has no such bound."""
    suggests: ClassVar[bool] = True
    """Whether the settings are values of the measure, so that another one can be suggested."""
    of_size: ClassVar[bool] = False
    """Whether a picture's header tells the measure, so that nothing needs to be detected first."""
    field: ClassVar[str]
    parts: ClassVar[tuple[str, ...]] = ()
    """Regions whose boxes the measure counts."""

    def value(self, measures: Measures) -> float | None:
        """The measure, or None if unknown."""
        found: float | None = getattr(measures, self.field)
        return found

    def judge(self, measures: Measures) -> Rejection | None:
        """Why the picture is rejected; None if it passes or the measure is unknown."""
        value = self.value(measures)
        if value is None:
            return None
        below, above = self.reasons
        if self.low is not None and value < self.low:
            return Rejection(below, value)
        if self.high is not None and value > self.high:
            return Rejection(above, value)
        return None

    @property
    def unjudged(self) -> str:
        """The reason of a picture that is rejected because its measure is unknown."""
        return f"{self.name} unjudged"

    @property
    def reasons(self) -> tuple[str, str]:
        """Why it rejects a picture: the measure is too low, or too high."""
        unit = f" {self.unit}" if self.unit else ""
        below, above = (f"{bound:g}" if bound is not None else "" for bound in (self.low, self.high))
        return f"{self.name} below {below}{unit}", f"{self.name} above {above}{unit}"


class ShorterSide(Filter):
    """Resolution."""

    name, unit, settings = "shorter side", "pixels", ("min_side", "")
    of_size = True

    def value(self, measures: Measures) -> float:
        """The smaller of width and height."""
        return min(measures.width, measures.height)


class Aspect(Filter):
    """Aspect ratio: 1 = square, more = wide."""

    name, unit, settings = "width through height", "", ("min_aspect", "max_aspect")
    of_size = True

    def value(self, measures: Measures) -> float:
        """Width / height."""
        return measures.width / measures.height


class Faces(Filter):
    """Number of faces, annotated or detected."""

    name, unit, settings, field = "number of faces", "", ("needs", ""), "faces"
    suggests, parts = False, ("face",)


class Hands(Filter):
    """Number of hands, annotated or detected."""

    name, unit, settings, field = "number of hands", "", ("needs", ""), "hands"
    suggests, parts = False, ("hand",)


class FacesAndHands(Filter):
    """Number of faces and hands together."""

    name, unit, settings = "number of faces and hands", "", ("needs", "")
    suggests = False
    parts: ClassVar[tuple[str, ...]] = ("face", "hand")

    def value(self, measures: Measures) -> float | None:
        """Sum of the known counts; a sum of 0 is unknown unless both counts are known."""
        known = [count for count in (measures.faces, measures.hands) if count is not None]
        return sum(known) if any(known) or len(known) == 2 else None


class Relevance(FacesAndHands):
    """Whether there are people: number of persons, faces and hands together."""

    name, parts = "relevance", ("face", "hand", PERSON)

    def value(self, measures: Measures) -> float | None:
        """Sum of the known counts; a sum of 0 is unknown unless that of persons is known, or those of faces and hands.

        Persons may be unknown: a detector of faces and one of hands that find nothing say enough.
        """
        found = super().value(measures)
        return found if measures.persons is None else (found or 0) + measures.persons

    @property
    def reasons(self) -> tuple[str, str]:
        """No people, whatever the bound."""
        return "relevance: no person, face or hand", ""


class Persons(Filter):
    """Number of persons, annotated or detected."""

    name, unit, settings, field = "number of persons", "", ("min_persons", "max_persons"), "persons"
    parts = (PERSON,)


class PersonShare(Filter):
    """Share of the picture covered by persons, 0..1."""

    name, unit, field = "share covered by persons", "", "person_share"
    settings = ("min_person_share", "max_person_share")
    parts = (PERSON,)


class Clarity(Filter):
    """Sharpness: variance of the Laplacian."""

    name, unit, settings, field = "clarity", "grey levels²", ("min_clarity", ""), "clarity"


class ClarityPercentile(Clarity):
    """Sharpness; `low` comes from a percentile."""

    settings, suggests = ("min_clarity_percentile", ""), False


NEEDS: Mapping[Need, type[Filter]] = {"face": Faces, "hand": Hands, "face or hand": FacesAndHands, "people": Relevance}


def active_filters(settings: FilterSettings, measures: Iterable[Measures]) -> list[Filter]:
    """The filters that are switched on, the cheapest to measure first; a percentile is converted to a value.

    Args:
        settings: the thresholds.
        measures: of all pictures, to compute the percentile; if no clarity is known, there is no clarity filter.
    """
    clarity = Clarity(low=settings.min_clarity)
    if settings.min_clarity_percentile is not None:
        known = [each.clarity for each in measures if each.clarity is not None]
        clarity = ClarityPercentile(float(np.percentile(known, settings.min_clarity_percentile)) if known else None)
    filters: Sequence[Filter] = (
        ShorterSide(low=settings.min_side),
        Aspect(settings.min_aspect, settings.max_aspect),
        *(NEEDS[need](low=1) for need in settings.required),
        Persons(settings.min_persons, settings.max_persons),
        PersonShare(settings.min_person_share, settings.max_person_share),
        clarity,
    )
    return [each for each in filters if each.low is not None or each.high is not None]


def measure(record: HumanRecord, clarity: float | None = None) -> Measures:
    """Measure a record without opening its picture; see `measures_of`."""
    return measures_of(record.width, record.height, clarity, record.boxes, record.masks)


def measures_of(
    width: int, height: int, clarity: float | None, boxes: Mapping[str, Sequence[Box] | None], painted: Container[str]
) -> Measures:
    """Count what boxes and painted masks of the regions show; where there are no boxes, a painted mask counts as one.

    Args:
        width, height: pixels of the upright picture.
        clarity: see `clarity`; None: unknown.
        boxes: by region; None: unknown.
        painted: regions with a painted mask.
    """

    def number(region: str) -> int | None:
        found = boxes.get(region)
        return len(found) if found is not None else 1 if region in painted else None

    persons = boxes.get(PERSON)
    share = None if persons is None else covered_share(persons, width, height)
    return Measures(width, height, clarity, number(PERSON), share, number("face"), number("hand"))


def covered_share(boxes: Sequence[Box], width: int, height: int) -> float:
    """Area of the union of boxes / area of the picture, 0..1; boxes must lie inside the picture."""
    if not boxes:
        return 0.0
    corners_n4 = np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes])
    corners_n4 = corners_n4[np.argsort(corners_n4[:, 1])]
    edges = np.unique(corners_n4[:, [0, 2]])
    area = 0.0
    for left, right in itertools.pairwise(edges):  # within a strip between two edges, only heights differ
        strip_n4 = corners_n4[(corners_n4[:, 0] <= left) & (corners_n4[:, 2] >= right)]
        if len(strip_n4):
            reached_n = np.maximum.accumulate(np.concatenate([[0.0], strip_n4[:-1, 3]]))
            heights_n = strip_n4[:, 3] - np.maximum(strip_n4[:, 1], reached_n)
            area += float((right - left) * np.maximum(heights_n, 0.0).sum())
    return min(area / (width * height), 1.0)


def clarity(picture: Image.Image) -> float:
    """Variance of the Laplacian in (grey levels of 0..255)²; blur lowers it, noise raises it.

    Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy: a comparative study, ICPR 2000. The picture is
    first resized to 512² pixels, keeping its aspect ratio, so that pictures of different sizes are comparable: the
    grain of a large photo doesn't count as detail, and a small photo counts as blurred as it looks when enlarged.
    """
    scale = (CLARITY_PIXELS / (picture.width * picture.height)) ** 0.5
    size = (max(3, round(picture.width * scale)), max(3, round(picture.height * scale)))
    grey_hw = np.asarray(picture.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    sides_hw = grey_hw[:-2, 1:-1] + grey_hw[2:, 1:-1] + grey_hw[1:-1, :-2] + grey_hw[1:-1, 2:]
    return float((sides_hw - 4.0 * grey_hw[1:-1, 1:-1]).var(dtype=np.float64))
