"""The record type shared by all packages: a picture of people, its caption and its regions."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

Action = Literal["skipped", "warned", "dropped", "converted"]
DepthKind = Literal["relative", "metric_mm"]

# These regions have a plural column name in the data set's format; any other region's column has the region's name.
REGION_COLUMNS: Mapping[str, str] = {"face": "faces", "hand": "hands", "person": "persons"}
CONDITIONS: Mapping[str, int] = {"pose": 3, "depth": 1}  # to the number of channels in a sample
IGNORE = "ignore"  # the region that counts for no objective
SUBJECT = "subject"  # the region of the one mask that other trainers know
CLOSEUP_OF = "closeup_of"  # attribute of a close-up: key of the picture that it was cut from


class Finding(NamedTuple):
    """An action taken on one item while reading data, and its reason.

    `action` is `skipped` (a whole record left out), `dropped` (a box, a mask, a field left out),
    `converted` (used after a change) or `warned` (used as it is). `reason` is one of a small set of fixed texts, so
    that reasons can be counted; `value` shows the offending value.
    """

    action: Action
    reason: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class FileSpan:
    """`length` bytes of a file starting at `offset`: a member of a tar, a value in an Arrow table."""

    path: Path
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class TableCell:
    """A picture in a Parquet table: `row` counts from 0; `field` is the column, then the names of nested fields."""

    path: Path
    row: int
    field: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CopiedCell(FileSpan):
    """A copy of a table's cell in a file; for its digest see `fairhuman.data.pictures.stored.copy_digest`."""

    cell: TableCell
    digest: str


Stored = Path | bytes | FileSpan | TableCell


@dataclass(frozen=True, slots=True)
class LabelMap:
    """A region of a label map (a picture whose pixels are class numbers): the pixels with one of `labels`."""

    stored: Stored
    labels: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class DerivedMask:
    """A mask that a picture holds in another way than white = region.

    Attributes:
        stored: the picture.
        alpha: read its opacity (opaque = region) instead of its brightness.
        inverted: the region is what is black, or transparent.
        size: (width, height) to which the mask is resized; None: as it is.
    """

    stored: Stored
    alpha: bool = False
    inverted: bool = False
    size: tuple[int, int] | None = None


MaskSource = Stored | LabelMap | DerivedMask


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle in pixels of the upright picture; 0 is the outer edge of the first pixel, y points down."""

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
    """One picture with all its annotations.

    Attributes:
        key: unique within its source.
        image: a file, its bytes, or their location in a larger file.
        width, height: size in pixels of the *upright* picture (after its EXIF orientation).
        caption: may be empty.
        boxes: region name to boxes; None = not annotated (unknown), () = annotated as absent.
        masks: region name to a painted mask of the picture's size, white = region, to a label map or to a derived
            mask. A painted mask takes precedence over boxes, except for the region `ignore`, where both count.
        pose, depth: conditions, as stored in the source.
        depth_kind: meaning of the values in `depth`; see `fairhuman.data.condition.depth`.
        attributes: other fields of the source, by name and unchanged.
        location: where the record was read, such as `metadata.jsonl:12`; used in messages.
        repeats: how often an epoch contains the record, ≥ 1.
        origin: key of the record that shows the same photo: that of a close-up, or an earlier one with the same bytes;
            None: there is none. Records of one photo are held out together.
    """

    key: str
    image: Stored
    width: int
    height: int
    caption: str
    boxes: Mapping[str, tuple[Box, ...] | None] = field(default_factory=dict)
    masks: Mapping[str, MaskSource] = field(default_factory=dict)
    pose: Stored | list[Any] | None = None
    depth: Stored | list[Any] | None = None
    depth_kind: DepthKind = "relative"
    source: str = ""
    split: str | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict)
    location: str = ""
    repeats: int = 1
    origin: str | None = None

    def annotated(self, region: str) -> bool:
        """Whether the region is annotated: its place is known, or its absence."""
        return region in self.masks or self.boxes.get(region) is not None

    def has(self, region: str) -> bool:
        """Whether the region is known to be in the picture (a painted mask counts, even an all-black one)."""
        return region in self.masks or bool(self.boxes.get(region))


def mask_picture(mask: MaskSource) -> Stored:
    """The picture that a mask is read from."""
    return mask.stored if isinstance(mask, LabelMap | DerivedMask) else mask


def stored_pictures(record: HumanRecord, conditions: Sequence[str] = ()) -> Iterator[Any]:
    """Where the pictures of a record are: its own, its masks', and those of the conditions `pose` and `depth`."""
    yield record.image
    yield from map(mask_picture, record.masks.values())
    yield from (getattr(record, name) for name in conditions)


def region_column(region: str) -> str:
    """Name of the column with the boxes of a region: `faces`, `hands`, ..., or the region's own name."""
    return REGION_COLUMNS.get(region, region)
