"""A data set of any format, read record after record: nothing is asked of all of them, and none is kept."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, picture_name, read_bytes
from fairhuman.data.pipeline.report import REPORT
from fairhuman.data.sources import SourceSettings, iterate_records, source_format, source_kind
from fairhuman.data.sources.check import STAGE, decoded
from fairhuman.data.sources.rows import Row
from fairhuman.errors import DataError
from fairhuman.record import REGION_COLUMNS, Finding, HumanRecord, region_column

REGIONS = tuple(REGION_COLUMNS)
AS_IT_IS = SourceSettings()
THREADS = 4
_AT_ONCE = 16  # pictures in memory


@dataclass(frozen=True)
class DecodedRecord:
    """A record whose picture and painted masks were decoded.

    Attributes:
        row: what the source says, with the columns that a record doesn't have.
        record: as its picture turned out to be.
        content: bytes of the picture.

    """

    row: Row
    record: HumanRecord
    content: bytes

    @property
    def sha256(self) -> bytes:
        """Of the picture's bytes."""
        return hashlib.sha256(self.content).digest()


@dataclass(frozen=True)
class DataSet:
    """Where a data set is, and how it is read; `regions` are those whose boxes are."""

    path: Path
    kind: str
    settings: SourceSettings
    regions: tuple[str, ...] = REGIONS

    @property
    def root(self) -> Path:
        """Folder that its files are in."""
        return self.path if self.path.is_dir() else self.path.parent

    def rows(self, report: LoadReport) -> Iterator[Row]:
        """What it holds, in order; pictures are not read.

        Raises:
            DataError: it can't be read.

        """
        try:
            yield from source_format(self.kind).rows(self.path, report)
        except OSError as error:
            raise DataError(f"{error.filename or self.path}: can't be read: {error.strerror or error}") from error

    def record(self, row: Row, report: LoadReport) -> HumanRecord | None:
        """The record of a row with all its painted masks, the picture's header read; None where it can't be used."""
        regions = dict.fromkeys([*self.regions, *masks_of(row)])
        picture = source_format(self.kind).picture
        captioned = "caption" in row.values
        records = iterate_records([row], self.root, picture, list(regions), self.settings, report, captioned)
        return next(iter(records), None)

    def records(self, report: LoadReport) -> Iterator[tuple[Row, HumanRecord]]:
        """All usable records with their rows; the n-th of a key gets #n, to keep it unique."""
        times: Counter[str] = Counter()
        for row in self.rows(report):
            record = self.record(row, report)
            if record is not None:
                times[record.key] += 1
                n = times[record.key]
                yield row, record if n == 1 else replace(record, key=f"{record.key}#{n}")

    def decoded(self, report: LoadReport) -> Iterator[DecodedRecord]:
        """All records whose pictures can be decoded; a painted mask that can't be is dropped."""
        records = self.records(report)
        with ThreadPoolExecutor(THREADS) as pool:
            while some := list(islice(records, _AT_ONCE)):
                for (row, record), (seen, findings) in zip(some, pool.map(self._decoded, some), strict=True):
                    for finding in findings:
                        report.add(row.location or record.key, STAGE, finding)
                    if seen is not None:
                        yield seen

    def _decoded(self, given: tuple[Row, HumanRecord]) -> tuple[DecodedRecord | None, list[Finding]]:
        row, record = given
        try:
            content = read_bytes(record.image)
            checked, _, findings = decoded(replace(record, image=content), self.settings.limits)
        except PictureError as error:
            return None, [error.finding._replace(value=f"{picture_name(record.image)}: {error.finding.value}")]
        return DecodedRecord(row, replace(checked, image=record.image), content), findings


def open_dataset(path: Path, settings: SourceSettings = AS_IT_IS, regions: Sequence[str] = ()) -> DataSet:
    """The data set at a path, in any format of `fairhuman.data.sources`.

    Args:
        path: a file or folder.
        settings: how it is read.
        regions: whose boxes are read, beside those of `REGIONS` and of its own recipe, where it was built.

    Raises:
        DataError: nothing there can be read.
        RecipeError: `settings.format` is none.

    """
    kind = source_kind(path, settings.format)
    report = read_report(path)
    own = () if report is None else report["recipe"]["regions"]
    return DataSet(path, kind, settings, tuple(dict.fromkeys([*REGIONS, *own, *regions])))


def read_report(path: Path) -> Mapping[str, Any] | None:
    """The report of a build; None where there is none, or a file of that name with something else.

    Raises:
        DataError: it can't be read, or parts of it are missing.

    """
    file = path / REPORT
    if not path.is_dir() or not file.is_file():
        return None
    try:
        report: Any = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(report, dict) or not {"funnel", "recipe"} <= set(report):
            return None
        needed = [report["recipe"]["source"], [str(name) for name in report["recipe"]["regions"]]]
        needed += [(step["stage"], int(step["rows"])) for step in report["funnel"]]
        needed += [
            (rule["name"], rule["unit"], rule["low"], rule["high"], rule["unknown"]) for rule in report["filters"]
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: expected the report of a build, found something else: {error!r}") from error
    return report


def masks_of(row: Row) -> Mapping[str, Any]:
    """Painted masks of a row by region."""
    masks = row.values.get("masks")
    return {name: mask for name, mask in masks.items() if mask is not None} if isinstance(masks, Mapping) else {}


def columns_of(region: str) -> tuple[str, ...]:
    """Columns of a built data set that say something about a region: its boxes, and what a detector said of them."""
    return region_column(region), f"{region}_scores", f"{region}_votes", f"{region}_by"


def usable_or_error(dataset: DataSet, report: LoadReport, number: int) -> None:
    """Refuse a data set without a usable record.

    Raises:
        DataError: with the first reasons.

    """
    if number:
        return
    first = "".join(f"\n  {entry}" for entry in report.skipped()[:10])
    signs = source_format(dataset.kind).signs
    raise DataError(f"{dataset.path}: holds no usable record; read as {dataset.kind}: {signs}{first}")
