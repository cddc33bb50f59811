"""The caption tier: a caption for every kept row."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pyarrow
from PIL import Image

from fairhuman.config import Settings
from fairhuman.data.caption import open_captioner
from fairhuman.data.caption.item import Caption, Captioner, CaptionItem
from fairhuman.data.caption.settings import CaptionSettings
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.pipeline.rows import RowReader
from fairhuman.data.pipeline.tier import ProcessRows, TierResult, TierRow, cuda_device
from fairhuman.detect.overlap import non_maximum_suppression
from fairhuman.detect.worker import Failure
from fairhuman.record import HumanRecord

SAME_FACE = 0.25  # intersection over union above which two boxes are one face, found twice


@dataclass(frozen=True)
class CaptionTier:
    """Writes captions with one captioner.

    Only the template, which is cheap, uses the number of detected persons and faces; so new detectors don't require new
    captions of a model.
    """

    reader: RowReader
    caption: CaptionSettings
    detected: bool

    name: ClassVar[str] = "caption"
    version: ClassVar[int] = 1

    @property
    def needs(self) -> tuple[str, ...]:
        """Detections matter for the template only."""
        return ("check", "detect") if self.detected and self.caption.kind == "template" else ("check",)

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The settings that determine the results."""
        section: Settings | None = getattr(self.caption, self.caption.kind, None)
        own = section.decisive() if section is not None else None
        return {"kind": self.caption.kind, "tokens": self.caption.tokens.decisive(), self.caption.kind: own}

    @property
    def gpu(self) -> str | None:
        """The CUDA device of a model that runs here."""
        return cuda_device(self.caption.transformers.device) if self.caption.kind == "transformers" else None

    @property
    def columns(self) -> Sequence[tuple[str, pyarrow.DataType]]:
        """Columns of the table; `tokens` holds the counts of both tokenizers."""
        tokens = pyarrow.list_(pyarrow.int32())
        return [
            ("caption", pyarrow.string()),
            ("caption_by", pyarrow.string()),
            ("tokens", tokens),
            ("cut", pyarrow.bool_()),
            ("over", pyarrow.bool_()),
        ]

    def findings(self, row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Conversions and oddities that a row of the table notes."""
        if row["cut"]:
            yield "converted", "caption cut to the limit of tokens"
        if row["over"]:
            yield "warned", "caption has more tokens than the model reads"

    @contextmanager
    def open(self) -> Iterator[ProcessRows]:
        """Load the captioner."""
        with open_captioner(self.caption) as captioner:
            yield partial(self._process, captioner)

    def _process(self, captioner: Captioner, items: Sequence[TierRow]) -> list[TierResult]:
        results: list[TierResult] = []
        for first in range(0, len(items), captioner.batch_size):
            results += self._batch(captioner, items[first : first + captioner.batch_size])
        return results

    def _batch(self, captioner: Captioner, items: Sequence[TierRow]) -> list[TierResult]:
        results: dict[int, TierResult] = {}
        caption_items: dict[int, CaptionItem] = {}
        for item in items:
            check = item.earlier["check"]
            try:
                record = self.reader.checked(item.row, check)
            except PictureError as error:
                results[item.row.id] = TierResult.failure(error)
                continue
            attributes = dict(record.attributes)
            people = _people(check, item.earlier.get("detect", {}))
            if people is not None:
                attributes.setdefault("persons", people)
            picture = partial(self._picture, item, record, results)
            caption_items[item.row.id] = CaptionItem(item.row.key, record.caption, attributes, picture=picture)
        for identity, answer in zip(caption_items, captioner.caption(list(caption_items.values())), strict=True):
            results.setdefault(identity, self._result(captioner, answer))
        return [results[item.row.id] for item in items]

    def _picture(self, item: TierRow, record: HumanRecord, results: dict[int, TierResult]) -> Image.Image:
        """Decode the picture on demand; if that fails, the error becomes the result of this row."""
        try:
            return self.reader.decoded(record, item.earlier["check"])
        except PictureError as error:
            results[item.row.id] = TierResult.failure(error)
            raise

    @staticmethod
    def _result(captioner: Captioner, answer: Caption | Failure) -> TierResult:
        if isinstance(answer, Failure):
            return TierResult({}, "failed", "no caption", answer.reason)
        return TierResult(
            {
                "caption": answer.text,
                "caption_by": captioner.name,
                "tokens": list(answer.tokens),
                "cut": answer.cut,
                "over": answer.over,
            }
        )


def _people(check: Mapping[str, Any], detect: Mapping[str, Any]) -> int | None:
    """How many people a picture shows at least: as many as persons, as faces apart from each other, and one for hands.

    The source's boxes count before the detector's. None where nothing was found and persons are unknown.
    """
    persons, faces, hands = (check.get(name) or detect.get(name) for name in ("persons", "faces", "hands"))
    faces_n4 = np.array([box[:4] for box in faces or ()], dtype=np.float64).reshape(-1, 4)
    apart = non_maximum_suppression(faces_n4, np.zeros(len(faces_n4)), SAME_FACE)
    people = max(len(persons or ()), len(apart), 1 if hands else 0)
    unknown = check.get("persons") is None and detect.get("persons") is None
    return None if not people and unknown else people
