"""Numbers published in the FairHuman supplement, and a sheet with our numbers in separate columns.

Source: FairHuman, "Boosting Hand and Face Quality in Human Image Generation with Minimum Potential Delay Fairness in
Diffusion Models", supplementary material, Table 1 (memory and speed) and Table 2 (strategies). The tables of the main
article are not included.
"""

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from fairhuman.compare.paper.settings import SetupSettings

SOURCE = "FairHuman, supplementary material"
ABSENT = "Table 3 (LoRA ranks 64, 128, 256) is not included: it is in the main article, not in the supplement."
Better = Literal["higher", "lower"]


class PublishedCell(NamedTuple):
    """A cell of a published table, such as `PublishedCell("Table 2", "SI", "FID")`."""

    table: str
    row: str
    column: str


class Column(NamedTuple):
    """Unit of a column, and which direction is better."""

    unit: str
    better: Better


@dataclass(frozen=True, slots=True)
class CostRow:
    """A variant in Table 1: memory beyond the base's, counted at SDXL's shape in MiB, and time as a multiple of it.

    `published_mb` and `published_time` are None for what the paper doesn't have, `time` if it wasn't measured.
    """

    variant: str
    fp16_mib: float
    fp32_mib: float
    published_mb: float | None
    time: float | None
    published_time: float | None


@dataclass(frozen=True, slots=True)
class OurTable:
    """Our numbers for some cells of one table, in the units of its columns, and our set-up.

    `note`: sentences on where they come from, or on results of ours that have no cell in the table; may be empty.
    `variants`: for Table 1, memory and time of all variants that we measure.
    """

    setup: SetupSettings
    values: Mapping[tuple[str, str], float]
    note: str = ""
    variants: tuple[CostRow, ...] = ()


@dataclass(frozen=True, slots=True)
class SheetRow:
    """One published number and ours, which is None if not measured."""

    table: str
    row: str
    column: str
    unit: str
    better: Better
    published: float
    ours: float | None


@dataclass(frozen=True, slots=True)
class SetupDifference:
    """One aspect of both set-ups; `ours` is None without numbers of ours, `same` means identical wording."""

    table: str
    aspect: str
    published: str
    ours: str | None
    same: bool


@dataclass(frozen=True, slots=True)
class PaperSheet:
    """All published numbers with ours, and the differences in set-up; JSON via `dataclasses.asdict`.

    `notes` and `variants`: those of `OurTable`, by table. `absent`: published tables that are not included.
    """

    source: str
    rows: tuple[SheetRow, ...]
    differences: tuple[SetupDifference, ...]
    notes: Mapping[str, str]
    variants: Mapping[str, tuple[CostRow, ...]]
    absent: str


# The paper writes MB; its figures are those of our counts in MiB, see `ExtraMemory`.
COLUMNS: Mapping[str, Mapping[str, Column]] = {
    "Table 1": {"Extra Memory Usage": Column("MiB", "lower"), "Inference Time": Column("times", "lower")},
    "Table 2": {
        "HPS": Column("%", "higher"),
        "IR": Column("%", "higher"),
        "FID": Column("", "lower"),
        "Hand Confi.": Column("%", "higher"),
        "Face Confi.": Column("%", "higher"),
    },
}

_NUMBERS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "Table 1": {"MoLE": (2611.75, 3.0), "Ours": (1413.12, 1.4)},
    "Table 2": {
        "LS": (32.60, 153.23, 47.22, 93.70, 84.82),
        "DWA": (32.53, 152.58, 46.34, 93.40, 84.86),
        "UW": (32.61, 152.82, 47.42, 93.76, 84.15),
        "RLW": (32.58, 154.56, 47.90, 93.80, 84.24),
        "SI": (32.52, 154.58, 46.01, 93.99, 85.31),
        "Nash-MTL": (32.63, 153.11, 47.50, 93.68, 84.33),
        "MPD-FairGrad": (32.73, 154.60, 46.11, 94.03, 85.34),
    },
}

PUBLISHED: Mapping[PublishedCell, float] = {
    PublishedCell(table, row, column): value
    for table, rows in _NUMBERS.items()
    for row, values in rows.items()
    for column, value in zip(COLUMNS[table], values, strict=True)
}

PAPER_SETUPS: Mapping[str, SetupSettings] = {
    "Table 1": SetupSettings(
        model="SDXL with a LoRA (rank 256 in its section 3; whether fused or not isn't stated), and with MoLE",
        data="none needed",
        scale="30 steps of UniPCMultistepScheduler; size, number of pictures, repeats and device aren't stated for "
        "the table (section 3: 1024 x 1024, one A800 of 80 GB)",
        metrics="extra memory in MB (by our counts MiB), what is counted and in which precision isn't stated; time as "
        "a multiple, of the base presumably; no spread is given",
    ),
    "Table 2": SetupSettings(
        model="SDXL with a LoRA of rank 256, learning rate 1e-5, Adam",
        data="trained on filtered CosmicMan and BodyHands, validated on prompts and pictures from MoLE's "
        "human-in-the-scene set",
        scale="50k steps at 1024 x 1024; 5k of 23,411 validation pictures drawn at random; number of seeds isn't "
        "stated, no spread is given",
        metrics="HPS and ImageReward in %, versions not stated in the supplement; FID against the validation "
        "pictures; hand confidence is MediaPipe's handedness score, face confidence a mean over detections, and "
        "pictures without any count in neither (read in the official code)",
    ),
}


def paper_sheet(ours: Mapping[str, OurTable]) -> PaperSheet:
    """The published tables with our numbers in separate columns.

    Args:
        ours: our numbers by table, `"Table 1"` or `"Table 2"`; values by (row, column) as named in the paper.

    Raises:
        ValueError: unknown table, row or column, or a value that isn't finite.
    """
    values = {
        PublishedCell(table, *place): value for table, each in ours.items() for place, value in each.values.items()
    }
    for table in ours:
        _check_known(table, COLUMNS, "table")
    for cell, value in values.items():
        _check_known(cell.row, _NUMBERS[cell.table], f"row of {cell.table}")
        _check_known(cell.column, COLUMNS[cell.table], f"column of {cell.table}")
        if not math.isfinite(value):
            raise ValueError(f"{cell.table}, {cell.row}, {cell.column}: our value must be finite, got {value}")
    rows = [
        SheetRow(*cell, *COLUMNS[cell.table][cell.column], published, values.get(cell))
        for cell, published in PUBLISHED.items()
    ]
    differences = [
        _difference(table, aspect, ours.get(table)) for table in PAPER_SETUPS for aspect in SetupSettings.model_fields
    ]
    notes = {table: each.note for table, each in ours.items() if each.note}
    variants = {table: each.variants for table, each in ours.items() if each.variants}
    return PaperSheet(SOURCE, tuple(rows), tuple(differences), notes, variants, ABSENT)


def _difference(table: str, aspect: str, ours: OurTable | None) -> SetupDifference:
    published: str = getattr(PAPER_SETUPS[table], aspect)
    own: str | None = None if ours is None else getattr(ours.setup, aspect)
    return SetupDifference(table, aspect, published, own, own == published)


def _check_known(name: str, known: Mapping[str, object], what: str) -> None:
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.0)
        raise ValueError(f"unknown published {what}: {name!r}; the nearest is {near[0]!r}")
