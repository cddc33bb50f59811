"""The detection tier: faces, hands and persons that the source doesn't annotate."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow

from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.rows import BOXES, RowReader, boxes_to_lists
from fairhuman.data.pipeline.tier import ProcessRows, TierResult, TierRow
from fairhuman.detect.guard import Guarded
from fairhuman.detect.settings import BUNDLED, DetectSettings, Part, detector_names, open_detectors
from fairhuman.detect.worker import Failure
from fairhuman.record import region_column

SECONDS = 120.0  # time limit of one picture


@dataclass(frozen=True)
class DetectTier:
    """Detects the parts that are unknown; parts that the source annotates are skipped.

    `masked`: whether a part with a painted mask, but without boxes, is detected.
    """

    reader: RowReader
    detect: DetectSettings
    masked: bool = False

    name: ClassVar[str] = "detect"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("check",)
    gpu: ClassVar[None] = None

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The settings that determine the results, and the versions of models that don't ship."""
        kinds, names = self.detect.kinds, detector_names(self.detect)
        own = {part: name for part, name in names.items() if kinds[part] != BUNDLED}
        masked = {"masked": True} if self.masked else {}
        return {**self.detect.decisive(), **masked, **({"detectors": own} if own else {})}

    @property
    def columns(self) -> Sequence[tuple[str, pyarrow.DataType]]:
        """Columns of the table: boxes with scores, votes of voting detectors; null where nothing had to be detected."""
        columns = []
        for part in self.detect.kinds:
            columns += [(region_column(part), BOXES), (f"{part}_by", pyarrow.string())]
            columns += [(f"{part}_votes", pyarrow.list_(pyarrow.int32()))]
        return columns

    def findings(self, row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:  # noqa: ARG002 - the protocol's signature
        """None: detectors convert nothing."""
        return ()

    @contextmanager
    def open(self) -> Iterator[ProcessRows]:
        """Start a separate process for the detectors, since native code may crash."""
        names = detector_names(self.detect)
        with Guarded(partial(open_detectors, self.detect), SECONDS) as guarded:
            yield lambda items: [self._detect(item, guarded, names) for item in items]

    def _detect(self, item: TierRow, guarded: Guarded[Any, Any], names: Mapping[Part, str]) -> TierResult:
        check = item.earlier["check"]
        missing = [
            part
            for part in self.detect.kinds
            if check.get(region_column(part)) is None and (self.masked or part not in check["masks"])
        ]
        if not missing:
            return TierResult()
        try:
            record = self.reader.checked(item.row, check)
            picture = np.asarray(self.reader.decoded(record, check))
        except PictureError as error:
            return TierResult.failure(error)
        found = guarded.call(picture)
        if isinstance(found, Failure):
            return TierResult({}, "failed", "detector failed", found.reason)
        columns: dict[str, Any] = {}
        for part in missing:
            columns[f"{part}_by"] = names[part]
            columns[region_column(part)] = boxes_to_lists([one.box for one in found[part]])
            if any(one.votes is not None for one in found[part]):
                columns[f"{part}_votes"] = [one.votes for one in found[part]]
        return TierResult(columns)
