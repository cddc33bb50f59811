"""The last tier: pose and depth of every kept row."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow

from fairhuman.data.condition import PEOPLE_TYPE, ConditionInputs, Conditions, ConditionSettings, open_conditions
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.rows import RowReader
from fairhuman.data.pipeline.tier import Look, TierResult, TierRow
from fairhuman.detect.guard import Guarded
from fairhuman.detect.worker import Failure

BATCH = 8
SECONDS = 300.0
Estimate = Callable[[list[ConditionInputs]], list[Conditions] | Failure]


@dataclass(frozen=True)
class ConditionTier:
    """Estimates what the source doesn't have."""

    reader: RowReader
    condition: ConditionSettings

    name: ClassVar[str] = "condition"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("check",)

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The settings that the results depend on."""
        return self.condition.decisive()

    @property
    def columns(self) -> Sequence[tuple[str, pyarrow.DataType]]:
        """Of its table."""
        return [
            ("pose", PEOPLE_TYPE),
            ("pose_png", pyarrow.binary()),
            ("pose_by", pyarrow.string()),
            ("depth_png", pyarrow.binary()),
            ("depth_kind", pyarrow.string()),
            ("depth_by", pyarrow.string()),
            ("findings", pyarrow.string()),
        ]

    def findings(self, row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """What a row of the table says was changed or is odd."""
        return {(action, reason) for action, reason, _ in json.loads(row["findings"])}

    @contextmanager
    def open(self) -> Iterator[Look]:
        """A process for the models, which native code may kill."""
        with Guarded(partial(open_conditions, self.condition), SECONDS) as guarded:
            yield partial(self._look, guarded.call)

    def _look(
        self, estimate: Callable[[list[ConditionInputs]], list[Conditions] | Failure], items: Sequence[TierRow]
    ) -> list[TierResult]:
        results: list[TierResult] = []
        for first in range(0, len(items), BATCH):
            given = [self._given(item) for item in items[first : first + BATCH]]
            found = iter(self._estimated(estimate, [one for one in given if isinstance(one, ConditionInputs)]))
            results += [one if isinstance(one, TierResult) else _result(next(found)) for one in given]
        return results

    def _given(self, item: TierRow) -> ConditionInputs | TierResult:
        check = item.earlier["check"]
        try:
            record = self.reader.checked(item.row, check)
            picture = np.asarray(self.reader.decoded(record, check))
        except PictureError as error:
            return TierResult.failure(error)
        return ConditionInputs(picture, record.pose, record.depth, record.depth_kind)

    @staticmethod
    def _estimated(estimate: Estimate, given: list[ConditionInputs]) -> list[Conditions | Failure]:
        """A batch that the models don't survive is tried picture by picture, so that one of them is to blame."""
        found = estimate(given) if given else []
        if not isinstance(found, Failure):
            return [*found]
        if len(given) == 1:
            return [found]
        return [one for each in given for one in ConditionTier._estimated(estimate, [each])]


def _result(found: Conditions | Failure) -> TierResult:
    if isinstance(found, Failure):
        return TierResult({}, "failed", "no conditions", found.reason)
    columns: dict[str, Any] = {name: getattr(found, name) for name in ("pose", "pose_png", "depth_png", "depth_kind")}
    by = {"pose_by": found.pose_by or None, "depth_by": found.depth_by or None}
    return TierResult({**columns, **by, "findings": json.dumps(found.findings)})
