"""Summary of a finished data set of synthetic people."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet

from fairhuman.report.text import percent
from fairhuman.synth.render import REGIONS


@dataclass(frozen=True, slots=True)
class PeopleSummary:
    """Counts over the tables of a set.

    Attributes:
        faces, hands: number of boxes.
        visible: mean visible share in [0, 1] of each region, by the names in `REGIONS`.
        degraded: number of pictures with degraded faces and hands.
    """

    pictures: int
    faces: int
    hands: int
    visible: Mapping[str, float]
    degraded: int

    def lines(self) -> list[str]:
        """The counts as two lines of text."""
        degraded = f", faces and hands degraded in {self.degraded}" if self.degraded else ""
        shares = ", ".join(f"{name.replace('_', ' ')} {percent(share)}" for name, share in self.visible.items())
        return [
            f"{self.pictures} pictures, {self.faces} faces, {self.hands} hands{degraded}",
            f"visible on average: {shares}",
        ]


def summarize_people(out: Path) -> PeopleSummary:
    """Read the small columns of `out/data/*.parquet`."""
    table = pyarrow.parquet.read_table(
        out / "data", columns=["faces", "hands", "visibility", "degraded"], page_checksum_verification=True
    )
    visibility = table["visibility"].combine_chunks()
    return PeopleSummary(
        pictures=len(table),
        faces=pc.sum(pc.list_value_length(table["faces"])).as_py(),
        hands=pc.sum(pc.list_value_length(table["hands"])).as_py(),
        visible={name: pc.mean(visibility.field(name)).as_py() for name in REGIONS},
        degraded=pc.sum(table["degraded"]).as_py(),
    )
