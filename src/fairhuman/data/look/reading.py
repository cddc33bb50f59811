"""Stream the records of a data set of any format, without checks over all records and without keeping them."""

import hashlib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
from pydantic import Field

from fairhuman.config import Settings
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, picture_name, read_bytes
from fairhuman.data.pipeline.report import REPORT
from fairhuman.data.sources import SourceSettings, source_format, source_kind
from fairhuman.data.sources.check import STAGE, THREADS, decode_record
from fairhuman.data.sources.columns import ABOUT_REGIONS
from fairhuman.data.sources.edits import read_edits
from fairhuman.data.sources.own_regions import own_regions, own_regions_of_tables
from fairhuman.data.sources.rows import MAX_TEXT, RecordReader, Row, keyed_rows, masks_of, read_limited, row_key
from fairhuman.errors import DataError
from fairhuman.record import IGNORE, REGION_COLUMNS, Finding, HumanRecord, region_column
from fairhuman.regions.boxes import shorten
from fairhuman.utils.parse import parse_json

REGIONS = tuple(REGION_COLUMNS)
DEFAULT_SETTINGS = SourceSettings()
# Settings of a source that a build alone follows, with what they are where nothing is said.
BUILD_ALONE: Mapping[str, str] = {"mask": IGNORE, "alpha": "background"}
_CHUNK = 16  # pictures in memory


class LookSettings(Settings):
    """How `fairhuman data check`, `show` and `stats` read a data set. `source.max_reject_share` doesn't apply."""

    source: SourceSettings = SourceSettings()
    regions: tuple[str, ...] = Field(
        default=(), description="regions to read besides face, hand, person and those that the data set has boxes of"
    )


@dataclass(frozen=True)
class DecodedRecord:
    """A record whose picture and painted masks could be decoded, and which has the picture's real size.

    `row` includes columns that aren't in the record; `content` is the bytes of the picture.
    """

    row: Row
    record: HumanRecord
    content: bytes

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the picture's bytes."""
        return hashlib.sha256(self.content).digest()


@dataclass(frozen=True)
class DataSet:
    """A data set, and how to read it.

    Attributes:
        regions: whose boxes are read.
        captioned: whether a row without a column of captions is noted too.
    """

    path: Path
    kind: str
    settings: SourceSettings
    regions: tuple[str, ...] = REGIONS
    captioned: bool = False

    @property
    def root(self) -> Path:
        """Folder of the data set's files."""
        return self.path if self.path.is_dir() else self.path.parent

    def rows(self, report: LoadReport) -> Iterator[Row]:
        """All rows in order, without reading pictures.

        Raises:
            DataError: the data set can't be read.
        """
        return source_format(self.kind).read(self.path, report)

    def record(self, row: Row, report: LoadReport) -> HumanRecord | None:
        """The record of a row with all its painted masks; reads the picture's header. None if it can't be used."""
        regions = dict.fromkeys([*self.regions, *masks_of(row)])
        picture = source_format(self.kind).picture
        captioned = self.captioned or "caption" in row.values
        key = row_key(row, picture)
        return RecordReader(row, self.root, list(regions), self.settings, report).read(key, picture, captioned)

    def records(self, report: LoadReport) -> Iterator[tuple[Row, HumanRecord]]:
        """All usable records with their rows, with the keys of `keyed_rows`."""
        for key, row in keyed_rows(self.rows(report), source_format(self.kind).picture):
            record = self.record(row, report)
            if record is not None:
                yield row, replace(record, key=key)

    def decoded_records(self, report: LoadReport) -> Iterator[DecodedRecord]:
        """All records whose pictures can be decoded; painted masks that can't be decoded are dropped."""
        records = self.records(report)
        with ThreadPoolExecutor(THREADS) as pool:
            while chunk := list(islice(records, _CHUNK)):
                for (row, record), (result, findings) in zip(chunk, pool.map(self._decode, chunk), strict=True):
                    for finding in findings:
                        report.add(row.location or record.key, STAGE, finding)
                    if result is not None:
                        yield result

    def _decode(self, item: tuple[Row, HumanRecord]) -> tuple[DecodedRecord | None, list[Finding]]:
        row, record = item
        try:
            content = read_bytes(record.image)
            checked, _, findings = decode_record(replace(record, image=content), self.settings.limits)
        except PictureError as error:
            return None, [error.finding._replace(value=f"{picture_name(record.image)}: {error.finding.value}")]
        return DecodedRecord(row, replace(checked, image=record.image), content), findings


def open_dataset(path: Path, settings: SourceSettings = DEFAULT_SETTINGS, regions: Sequence[str] = ()) -> DataSet:
    """Open a data set in any format of `fairhuman.data.sources`.

    Boxes are read of `regions` besides `REGIONS`, those of a build's report, and every other column of boxes; to find
    those, all rows are read once.

    Raises:
        DataError: the path doesn't exist or holds no known format.
        RecipeError: `settings.format` is unknown.
    """
    kind = source_kind(path, settings.format)
    report = read_report(path)
    built = () if report is None else report.get("regions", report["recipe"]["regions"])
    dataset = DataSet(path, kind, settings)
    own = _own_regions(dataset)
    return replace(dataset, regions=tuple(dict.fromkeys([*REGIONS, *built, *own, *regions])))


def _own_regions(dataset: DataSet) -> tuple[str, ...]:
    """Columns of boxes of regions that aren't ours, and regions that were changed by hand, also to none there."""
    changed = read_edits(dataset.path).regions()
    if dataset.kind != "parquet":
        return (*own_regions(dataset.rows(LoadReport())), *changed)
    try:
        return (*own_regions_of_tables(dataset.path), *changed)
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{dataset.path}: not a readable Parquet file ({error})") from error


def read_report(path: Path) -> Mapping[str, Any] | None:
    """The report of a build; None if there is none, or if the file is something else.

    Raises:
        DataError: the report can't be read, or parts of it are missing.
    """
    file = path / REPORT
    if not path.is_dir() or not file.is_file():
        return None
    try:
        report: Any = parse_json(read_limited(file, MAX_TEXT))
        if not isinstance(report, dict) or not {"funnel", "recipe"} <= set(report):
            return None
        _check_report(report)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: expected the report of a build, found something else: {error!r}") from error
    return report


def _check_report(report: Mapping[str, Any]) -> None:
    """Raise a TypeError, ValueError or KeyError if a part of a build's report is missing or of another type."""
    recipe = _of(dict, report["recipe"])
    _of(dict, recipe["source"])
    for regions in (recipe["regions"], report.get("regions", [])):
        for name in _of(list, regions):
            _of(str, name)
    if not _of(list, report["funnel"]):
        raise ValueError("the funnel is empty")
    for step in report["funnel"]:
        _of(str, _of(dict, step)["stage"])
        _of(int, step["rows"])
    for reasons in _of(dict, report.get("rejected", {})).values():
        for number in _of(dict, reasons).values():
            _of(int, number)
    for rule in _of(list, report["filters"]):
        _of(str, _of(dict, rule)["name"])
        _of(str, rule["unit"]), _of(float | int | str, rule["unknown"])
        _of(float | int | None, rule["low"]), _of(float | int | None, rule["high"])


def _of(kind: Any, value: Any) -> Any:
    if not isinstance(value, kind):
        expected = getattr(kind, "__name__", str(kind))
        raise TypeError(f"expected a value of type {expected}, found {shorten(repr(value))}")
    return value


class AnnotationColumns(NamedTuple):
    """Columns of a built data set about a region; `scores`, `votes` and `persons` have one value a box."""

    boxes: str
    scores: str
    votes: str
    persons: str
    by: str

    @property
    def of_boxes(self) -> tuple[str, ...]:
        """Those with one value a box."""
        return self.scores, self.votes, self.persons


def annotation_columns(region: str) -> AnnotationColumns:
    """Columns of a built data set about a region."""
    own = (f"{region}_{what}" for what in ABOUT_REGIONS)
    return AnnotationColumns(region_column(region), *own)


def ignored_by_build(path: Path, settings: SourceSettings) -> list[str]:
    """Say for each setting that a build alone follows, and that isn't the one of the build at `path`, how to rebuild.

    Empty if `path` is no data set that was built here.

    Raises:
        DataError: its report can't be read.
    """
    fields = SourceSettings.model_fields
    asked = {name: value for name in BUILD_ALONE if (value := getattr(settings, name)) != fields[name].default}
    report = read_report(path) if asked else None
    if report is None:
        return []
    lines = []
    for name, value in asked.items():
        was = report["recipe"]["source"].get(name) or BUILD_ALONE[name]
        if value != was:
            words = [
                "fairhuman",
                "data",
                "build",
                source_of_build(path),
                str(path),
                "--recipe",
                str(path / "recipe.yaml"),
            ]
            lines.append(
                f"{path}: source.{name}={value} has no effect on a data set that is built, and this one was built with "
                f"{name}={was}: rebuild it with `{shlex.join([*words, f'source.{name}={value}'])}`"
            )
    return lines


def source_of_build(path: Path) -> str:
    """The absolute path of a build's source; `SOURCE` if it isn't known."""
    try:
        return str(parse_json((path / "source.json").read_text(encoding="utf-8"))["source"])
    except (OSError, ValueError, KeyError, TypeError):
        return "SOURCE"


def require_usable(dataset: DataSet, report: LoadReport, number: int) -> None:
    """Reject a data set without a usable record.

    Raises:
        DataError: `number` is 0; names the first reasons.
    """
    if number:
        return
    first = "".join(f"\n  {entry}" for entry in report.skipped()[:10])
    signs = source_format(dataset.kind).signs
    raise DataError(f"{dataset.path}: no usable record; read as {dataset.kind}: {signs}{first}")
