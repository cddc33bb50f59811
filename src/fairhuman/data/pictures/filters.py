"""What makes a picture worth having: one class a rule, each over numbers that were measured once.

A number that isn't known rejects nothing. Thresholds can be changed without measuring again.
"""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field, model_validator

from fairhuman.config import Settings
from fairhuman.record import Box, HumanRecord

CLARITY_PIXELS = 512**2  # of the picture in which clarity is measured
PERSON = "person"
Need = Literal["face", "hand", "face or hand"]


class FilterSettings(Settings):
    """What a picture must be like; null switches a rule off, and bounds themselves are allowed values."""

    min_side: int | None = Field(default=1024, ge=1, description="pixels of the shorter side")
    min_aspect: float | None = Field(default=None, gt=0.0, description="width through height")
    max_aspect: float | None = Field(default=None, gt=0.0, description="width through height")
    needs: tuple[Need, ...] = Field(default=(), description="regions of which there must be at least one each")
    min_persons: int | None = Field(default=None, ge=0)
    max_persons: int | None = Field(default=None, ge=0)
    min_person_share: float | None = Field(default=None, ge=0.0, le=1.0, description="of the picture's area")
    max_person_share: float | None = Field(default=None, ge=0.0, le=1.0, description="of the picture's area")
    min_clarity: float | None = Field(default=None, ge=0.0, description="variance of the Laplacian, grey levels²")
    min_clarity_percentile: float | None = Field(
        default=None, ge=0.0, le=100.0, description="the same as a percentile of the pictures where it is known"
    )

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
    """What the filters look at; None = unknown.

    Attributes:
        width, height: pixels of the upright picture.
        clarity: see `clarity`.
        persons, faces, hands: how many there are.
        person_share: share of the picture, 0..1, inside of the boxes of persons.

    """

    width: int
    height: int
    clarity: float | None = None
    persons: int | None = None
    person_share: float | None = None
    faces: int | None = None
    hands: int | None = None


class Rejection(NamedTuple):
    """Why a filter refuses a picture: a text that is the same for all of them, and the picture's own number."""

    reason: str
    value: float


@dataclass(frozen=True)
class Filter(ABC):
    """A number of the picture that has to lie in [low, high]; None = no bound."""

    low: float | None = None
    high: float | None = None

    name: ClassVar[str]
    unit: ClassVar[str]

    @abstractmethod
    def value(self, measures: Measures) -> float | None:
        """The number, or None where it isn't known."""

    def judge(self, measures: Measures) -> Rejection | None:
        """Why the picture is refused; None where it is good, or where that isn't known."""
        value = self.value(measures)
        if value is None:
            return None
        unit = f" {self.unit}" if self.unit else ""
        if self.low is not None and value < self.low:
            return Rejection(f"{self.name} below {self.low:g}{unit}", value)
        if self.high is not None and value > self.high:
            return Rejection(f"{self.name} above {self.high:g}{unit}", value)
        return None


class ShorterSide(Filter):
    """Resolution."""

    name, unit = "shorter side", "pixels"

    def value(self, measures: Measures) -> float:
        """The smaller of width and height."""
        return min(measures.width, measures.height)


class Aspect(Filter):
    """Shape: 1 = square, more = wide."""

    name, unit = "width through height", ""

    def value(self, measures: Measures) -> float:
        """Width through height."""
        return measures.width / measures.height


class Faces(Filter):
    """Faces that were annotated or found."""

    name, unit = "number of faces", ""

    def value(self, measures: Measures) -> float | None:
        """Their number."""
        return measures.faces


class Hands(Filter):
    """Hands that were annotated or found."""

    name, unit = "number of hands", ""

    def value(self, measures: Measures) -> float | None:
        """Their number."""
        return measures.hands


class FacesAndHands(Filter):
    """Either of the two parts that training cares about."""

    name, unit = "number of faces and hands", ""

    def value(self, measures: Measures) -> float | None:
        """Those known of; where there are none, unknown unless both parts are known."""
        known = [count for count in (measures.faces, measures.hands) if count is not None]
        return sum(known) if any(known) or len(known) == 2 else None


class Persons(Filter):
    """Persons that were annotated or found."""

    name, unit = "number of persons", ""

    def value(self, measures: Measures) -> float | None:
        """Their number."""
        return measures.persons


class PersonShare(Filter):
    """How much of the picture is about people."""

    name, unit = "share covered by persons", ""

    def value(self, measures: Measures) -> float | None:
        """The share, 0..1."""
        return measures.person_share


class Clarity(Filter):
    """Sharpness."""

    name, unit = "clarity", "grey levels²"

    def value(self, measures: Measures) -> float | None:
        """Variance of the Laplacian."""
        return measures.clarity


NEEDS: Mapping[Need, type[Filter]] = {"face": Faces, "hand": Hands, "face or hand": FacesAndHands}


def resolve(settings: FilterSettings, measures: Iterable[Measures]) -> list[Filter]:
    """The filters that are switched on, the cheapest to measure first; a percentile becomes a value.

    Args:
        settings: the thresholds.
        measures: all pictures that the percentile is of; where no clarity is known there is no such filter.

    """
    clarity = settings.min_clarity
    if settings.min_clarity_percentile is not None:
        known = [each.clarity for each in measures if each.clarity is not None]
        clarity = float(np.percentile(known, settings.min_clarity_percentile)) if known else None
    filters: Sequence[Filter] = (
        ShorterSide(low=settings.min_side),
        Aspect(settings.min_aspect, settings.max_aspect),
        *(NEEDS[need](low=1) for need in settings.needs),
        Persons(settings.min_persons, settings.max_persons),
        PersonShare(settings.min_person_share, settings.max_person_share),
        Clarity(low=clarity),
    )
    return [each for each in filters if each.low is not None or each.high is not None]


def measure(record: HumanRecord, clarity: float | None = None) -> Measures:
    """The numbers of a record; its picture isn't opened. A painted mask counts as one face, hand or person."""
    boxes = record.boxes.get(PERSON)
    return Measures(
        width=record.width,
        height=record.height,
        clarity=clarity,
        persons=_count(record, PERSON),
        person_share=None if boxes is None else covered_share(boxes, record.width, record.height),
        faces=_count(record, "face"),
        hands=_count(record, "hand"),
    )


def _count(record: HumanRecord, region: str) -> int | None:
    boxes = record.boxes.get(region)
    if boxes is not None:
        return len(boxes)
    return 1 if record.has(region) else None


def covered_share(boxes: Sequence[Box], width: int, height: int) -> float:
    """Area of the union of boxes through that of the picture, 0..1; boxes lie in the picture."""
    if not boxes:
        return 0.0
    corners_n4 = np.array([(box.x0, box.y0, box.x1, box.y1) for box in boxes])
    corners_n4 = corners_n4[np.argsort(corners_n4[:, 1])]
    edges = np.unique(corners_n4[:, [0, 2]])
    area = 0.0
    for left, right in itertools.pairwise(edges):  # in a strip between two edges only heights count
        strip_n4 = corners_n4[(corners_n4[:, 0] <= left) & (corners_n4[:, 2] >= right)]
        if len(strip_n4):
            reached_n = np.maximum.accumulate(np.concatenate([[0.0], strip_n4[:-1, 3]]))
            heights_n = strip_n4[:, 3] - np.maximum(strip_n4[:, 1], reached_n)
            area += float((right - left) * np.maximum(heights_n, 0.0).sum())
    return min(area / (width * height), 1.0)


def clarity(picture: Image.Image) -> float:
    """Variance of the Laplacian in (grey levels of 0..255)²; blur lowers it, noise raises it.

    Pech-Pacheco et al., Diatom autofocusing in brightfield microscopy: a comparative study, ICPR 2000. The picture is
    first brought to 512² pixels in its own aspect, so that pictures of all sizes compare as if seen at one size: the
    grain of a large photo doesn't count as detail, and a small one is as unclear as it looks when enlarged.
    """
    scale = (CLARITY_PIXELS / (picture.width * picture.height)) ** 0.5
    size = (max(3, round(picture.width * scale)), max(3, round(picture.height * scale)))
    grey_hw = np.asarray(picture.convert("L").resize(size, Image.Resampling.BICUBIC), dtype=np.float32)
    sides_hw = grey_hw[:-2, 1:-1] + grey_hw[2:, 1:-1] + grey_hw[1:-1, :-2] + grey_hw[1:-1, 2:]
    return float((sides_hw - 4.0 * grey_hw[1:-1, 1:-1]).var(dtype=np.float64))
