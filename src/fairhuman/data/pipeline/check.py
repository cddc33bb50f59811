"""The check tier: decode a picture, hash its bytes and measure it."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import pyarrow
from PIL import Image

from fairhuman.data.pictures.decode import pixel_digest
from fairhuman.data.pictures.filters import clarity
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.pipeline.rows import BOXES, RowReader, boxes_to_lists
from fairhuman.data.pipeline.tier import ProcessRows, TierResult, TierRow
from fairhuman.data.sources.check import NO_SUBJECT, decode_record
from fairhuman.data.sources.rows import EMPTY_CAPTION
from fairhuman.errors import FairHumanError
from fairhuman.record import SUBJECT, region_column
from fairhuman.utils.parse import parse_json


@dataclass(frozen=True)
class CheckTier:
    """Reads, decodes and measures a picture, and keeps its annotations.

    Attributes:
        reader: reader of the source's rows.
        perceptual: whether to compute the 64-bit perceptual hash, used to find near duplicates.
    """

    reader: RowReader
    perceptual: bool = False

    name: ClassVar[str] = "check"
    version: ClassVar[int] = 1
    needs: ClassVar[tuple[str, ...]] = ()
    gpu: ClassVar[None] = None

    @property
    def decisive(self) -> Mapping[str, Any]:
        """The settings that determine the results."""
        source = self.reader.source
        limits, regions = source.limits.decisive(), self.reader.regions
        own: dict[str, Any] = {"regions": regions, "empty_means": source.empty_means, "limits": limits}
        own |= {"mask": source.mask} if source.mask is not None else {}
        own |= {"alpha": source.alpha} if source.alpha != "background" else {}
        return own | ({"perceptual": True} if self.perceptual else {})

    @property
    def columns(self) -> Sequence[tuple[str, pyarrow.DataType]]:
        """Columns of the table; `findings` is JSON."""
        return [
            ("location", pyarrow.string()),
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            ("sha256", pyarrow.binary()),
            ("phash", pyarrow.uint64()),
            ("clarity", pyarrow.float64()),
            *((region_column(region), BOXES) for region in self.reader.regions),
            ("masks", pyarrow.list_(pyarrow.string())),
            ("findings", pyarrow.string()),
        ]

    def findings(self, row: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Conversions and oddities that a row of the table notes; a source's lack of a caption is none, since each kept
        row gets one.
        """
        found = {(action, reason) for action, reason, _ in parse_json(row["findings"]) if action != "skipped"}
        return found - {EMPTY_CAPTION[:2]}

    @contextmanager
    def open(self) -> Iterator[ProcessRows]:
        """Open the tier; it loads nothing."""
        yield lambda items: [self._check(item) for item in items]

    def _check(self, item: TierRow) -> TierResult:
        report = LoadReport()
        record = self.reader.read(item.row, report)
        findings: list[tuple[str, ...]] = [(note.action, note.reason, note.value) for note in report.notes]
        columns: dict[str, Any] = {"location": item.row.location}
        try:
            if record is None:
                skipped = report.skipped()[-1]
                raise PictureError(skipped.reason, skipped.value)
            content = read_bytes(record.image)
            checked, picture, found = decode_record(replace(record, image=content), self.reader.source.limits)
        except PictureError as error:
            columns["findings"] = json.dumps(findings)
            return TierResult(columns, "rejected", error.finding.reason, error.finding.value)
        masks = {*checked.masks, *({SUBJECT} if NO_SUBJECT in found else ())}  # a black mask says that there is none
        columns |= {
            "width": checked.width,
            "height": checked.height,
            "sha256": pixel_digest(content),
            "phash": _perceptual_hash(picture) if self.perceptual else None,
            "clarity": clarity(picture),
            "masks": sorted(masks),
            "findings": json.dumps([*findings, *found]),
        }
        columns |= {region_column(region): boxes_to_lists(checked.boxes[region]) for region in self.reader.regions}
        return TierResult(columns)


def _perceptual_hash(picture: Image.Image) -> int:
    try:
        import imagehash
    except ImportError as error:
        raise FairHumanError(f"duplicates=near needs ImageHash: pip install 'fairhuman[data]' ({error})") from error
    return int(str(imagehash.phash(picture)), 16)
