"""Tiers with constant results and shards without pictures, to measure the machinery alone. Fast to import."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar

from fairhuman.data.pipeline.check import CheckTier
from fairhuman.data.pipeline.detect import DetectTier
from fairhuman.data.pipeline.tier import ProcessRows, TierResult, TierRow
from fairhuman.data.pipeline.write import ShardWriter


@dataclass(frozen=True)
class ConstantCheck(CheckTier):
    """Returns what a check would, without looking at the picture."""

    @contextmanager
    def open(self) -> Iterator[ProcessRows]:
        yield lambda items: [self.constant(item) for item in items]

    def constant(self, item: TierRow) -> TierResult:
        columns = {"location": item.row.location, "width": 512, "height": 512, "clarity": 300.0}
        columns |= {"sha256": item.row.id.to_bytes(8, "big") * 4, "phash": item.row.id, "masks": []}
        return TierResult({**columns, "findings": "[]"})


@dataclass(frozen=True)
class ConstantDetect(DetectTier):
    """Returns one face and two hands, without looking at the picture."""

    name: ClassVar[str] = "detect"

    @contextmanager
    def open(self) -> Iterator[ProcessRows]:
        columns: dict[str, Any] = {"persons": [[100.0, 50.0, 400.0, 512.0, 0.9]], "person_by": "constant"}
        columns |= {"faces": [[200.0, 80.0, 290.0, 190.0, 0.9]], "face_by": "constant"}
        columns |= {"hands": [[90.0, 300.0, 140.0, 350.0, 0.9]] * 2, "hand_votes": [3, 4], "hand_by": "constant"}
        yield lambda items: [TierResult(columns) for _ in items]


class EmptyShards(ShardWriter):
    """Writes shards with all columns except the pictures."""

    def _row(self, row: Any, found: Any) -> dict[str, Any]:
        known = {name: found["detect"][name] for name in ("faces", "hands", "persons")}
        return {"key": row.key, "width": found["check"]["width"], "height": found["check"]["height"], **known}
