"""The condition tier: pose and depth of every kept row."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow

from fairhuman.data.condition.conditions import ConditionInputs, Conditions, open_conditions
from fairhuman.data.condition.people import PEOPLE_TYPE
from fairhuman.data.condition.settings import ConditionSettings
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.rows import RowReader
from fairhuman.data.pipeline.tier import ProcessRows, TierResult, TierRow, cuda_device
from fairhuman.detect.guard import Guarded
from fairhuman.detect.worker import Failure
from fairhuman.utils.parse import parse_json

BATCH = 8
SECONDS = 300.0
Estimate = Callable[[list[ConditionInputs]], list[Conditions] | Failure]


@dataclass(frozen=True)
class ConditionTier:
    """Estimates the conditions that the source lacks."""

    reader: RowReader
    condition: ConditionSettings

    name: ClassVar[str] = "condition"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ("check",)

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The settings that determine the results."""
        return self.condition.decisive()

    @property
    def gpu(self) -> str | None:
        """The CUDA device of the depth model."""
        return None if self.condition.depth is None else cuda_device(self.condition.depth.device)

    @property
    def columns(self) -> Sequence[tuple[str, pyarrow.DataType]]:
        """Columns of the table."""
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
        """Conversions and oddities that a row of the table notes."""
        return {(action, reason) for action, reason, _ in parse_json(row["findings"])}

    @contextmanager
    def open(self) -> Iterator[ProcessRows]:
        """Start a separate process for the models, since native code may crash."""
        with Guarded(partial(open_conditions, self.condition), SECONDS) as guarded:
            yield partial(self._process, guarded.call)

    def _process(
        self, estimate: Callable[[list[ConditionInputs]], list[Conditions] | Failure], items: Sequence[TierRow]
    ) -> list[TierResult]:
        results: list[TierResult] = []
        for first in range(0, len(items), BATCH):
            inputs = [self._inputs(item) for item in items[first : first + BATCH]]
            found = iter(self._estimate(estimate, [one for one in inputs if isinstance(one, ConditionInputs)]))
            results += [one if isinstance(one, TierResult) else _result(next(found)) for one in inputs]
        return results

    def _inputs(self, item: TierRow) -> ConditionInputs | TierResult:
        check = item.earlier["check"]
        try:
            record = self.reader.checked(item.row, check)
            picture = np.asarray(self.reader.decoded(record, check))
        except PictureError as error:
            return TierResult.failure(error)
        return ConditionInputs(picture, record.pose, record.depth, record.depth_kind)

    @staticmethod
    def _estimate(estimate: Estimate, inputs: list[ConditionInputs]) -> list[Conditions | Failure]:
        """Estimate a batch; if the models fail on it, retry its pictures one by one to find the bad one."""
        found = estimate(inputs) if inputs else []
        if not isinstance(found, Failure):
            return [*found]
        if len(inputs) == 1:
            return [found]
        return [one for each in inputs for one in ConditionTier._estimate(estimate, [each])]


def _result(found: Conditions | Failure) -> TierResult:
    if isinstance(found, Failure):
        return TierResult({}, "failed", "no conditions", found.reason)
    columns: dict[str, Any] = {name: getattr(found, name) for name in ("pose", "pose_png", "depth_png", "depth_kind")}
    by = {"pose_by": found.pose_by or None, "depth_by": found.depth_by or None}
    return TierResult({**columns, **by, "findings": json.dumps(found.findings)})
