"""The one row type that every part speaks: a picture of people, its caption, its regions."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

Action = Literal["skipped", "warned", "dropped", "converted"]
DepthKind = Literal["relative", "metric_mm"]

# These regions have a plural column in the data set's format; any other region is found under its own name.
REGION_COLUMNS: Mapping[str, str] = {"face": "faces", "hand": "hands", "person": "persons"}


class Finding(NamedTuple):
    """What was done to one item, and why.

    `action` is `skipped` (a whole record left out), `dropped` (a box, a mask, a field left out),
    `converted` (used after a change) or `warned` (used as it is). `reason` is one of few fixed texts, so
    that reasons can be counted; `value` shows the case.
    """

    action: Action
    reason: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """`length` bytes of a file from `offset` on: a member of a tar, a value in an Arrow table."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class TableCell:
    """A picture inside a Parquet table: `row` of the file, from 0; `field` is its column, then names within that."""

    path: Path
    row: int
    field: tuple[str, ...]


Stored = Path | bytes | FileSpan | TableCell


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A region inside a picture whose pixels are class numbers: where it holds one of `labels`."""

    stored: Stored
    labels: tuple[int, ...]


Painted = Stored | LabelMap


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright picture; 0 is the outer edge of the first pixel, y grows down."""

    x0: float
    y0: float
    x1: float
    y1: float
    score: float | None = None

    @property
    def area(self) -> float:
        """Area in square pixels."""
        return (self.x1 - self.x0) * (self.y1 - self.y0)


@dataclass(frozen=True, slots=True)
class HumanRecord:
    """One picture with all that is known about it.

    Attributes:
        key: unique in its source.
        image: a file, the bytes of one, or where they are in a larger file.
        width, height: size in pixels of the *upright* picture (after its EXIF orientation).
        caption: may be empty.
        boxes: region name to boxes; None = not annotated (unknown), () = annotated and there is none.
        masks: region name to a painted mask of the picture's size, white = region, or a map of labels. A
            painted mask wins over boxes.
        pose, depth: conditions, kept as the source has them.
        depth_kind: what the numbers of `depth` are; see `fairhuman.data.condition.depth`.
        attributes: what else its source says, by name; as the source has it.
        location: where the record was read, such as `metadata.jsonl:12`, for messages.

    """

    key: str
    image: Stored
    width: int
    height: int
    caption: str
    boxes: Mapping[str, tuple[Box, ...] | None] = field(default_factory=dict)
    masks: Mapping[str, Painted] = field(default_factory=dict)
    pose: Stored | list[Any] | None = None
    depth: Stored | list[Any] | None = None
    depth_kind: DepthKind = "relative"
    source: str = ""
    split: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    location: str = ""

    def annotated(self, region: str) -> bool:
        """Whether it is known where the region is, or that there is none."""
        return region in self.masks or self.boxes.get(region) is not None

    def has(self, region: str) -> bool:
        """Whether the region is known to be in the picture (a painted mask counts, even a black one)."""
        return region in self.masks or bool(self.boxes.get(region))


def region_column(region: str) -> str:
    """Name of the column that holds the boxes of a region: `faces`, `hands`, or the region's own name."""
    return REGION_COLUMNS.get(region, region)
