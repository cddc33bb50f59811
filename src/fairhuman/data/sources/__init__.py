"""Where records come from: one file a format, one table of them."""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairhuman.data.report import LoadReport
from fairhuman.data.sources.folder import folder_rows, has_pictures
from fairhuman.data.sources.imagefolder import METADATA, has_metadata, imagefolder_rows
from fairhuman.data.sources.parquet import parquet_files, parquet_rows
from fairhuman.data.sources.rows import STAGE, Row, SourceSettings, records_from_rows
from fairhuman.data.stored import PictureError, byte_length, read_bytes
from fairhuman.errors import DataError
from fairhuman.record import Finding, HumanRecord

__all__ = ["SOURCES", "Source", "SourceSettings", "read_source", "source_kind"]


@dataclass(frozen=True)
class Source:
    """A format.

    Attributes:
        matches: whether what is at a path has it; looks at names, reads no records.
        rows: what it holds, in an order that is the same each time; findings of lines that give no row go into
            the report. Pictures are not read.
        picture: column of the picture: a path relative to the folder, {bytes, path}, a `Span` or a `Cell`.

    """

    matches: Callable[[Path], bool]
    rows: Callable[[Path, LoadReport], Iterator[Row]]
    picture: str = "image"


# In order: the first that matches is taken.
SOURCES: Mapping[str, Source] = {
    "imagefolder": Source(has_metadata, imagefolder_rows, "file_name"),
    "parquet": Source(lambda path: bool(parquet_files(path)), parquet_rows),
    "folder": Source(has_pictures, folder_rows, "file_name"),
}


def source_kind(path: Path) -> str:
    """Name of the format of what is at a path.

    Raises:
        DataError: if nothing there can be read.

    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    for name, source in SOURCES.items():
        if source.matches(path):
            return name
    raise DataError(f"{path}: expected {', '.join(METADATA)}, *.parquet or pictures; found none of them")


def read_source(path: Path, regions: Sequence[str], settings: SourceSettings, report: LoadReport) -> list[HumanRecord]:
    """Read all usable records of a source, in its order.

    Headers of the pictures are read, nothing is decoded: see `check_records` for that. Findings go into the
    report, also when the source is refused.

    Args:
        path: a folder or a Parquet file; the kind is chosen by what is there.
        regions: names of the regions to read; `face` and `hand` are in the columns `faces` and `hands`,
            another in its own column.
        settings: of the source.
        report: gets a note for everything that was skipped, dropped, converted or is odd.

    Raises:
        DataError: unreadable; no records; a required column or a region that no record has; more than
            `max_reject_share` skipped.

    """
    own = LoadReport()
    try:
        source = SOURCES[source_kind(path)]
        root = path if path.is_dir() else path.parent
        records = records_from_rows(source.rows(path, own), root, source.picture, regions, settings, own)
        records = _compare_pictures(records, own)
    except OSError as error:
        raise DataError(f"{error.filename or path}: can't be read: {error.strerror or error}") from error
    finally:
        report.extend(sorted(own.notes, key=lambda entry: (entry.file, entry.line or 0)))
    total = len(records) + len(own.skipped())
    own.check_share(settings.max_reject_share, total)
    if not records:
        raise DataError(f"{path}: holds no usable record ({total} were found)")
    for region in regions:
        if not any(record.annotated(region) for record in records):
            raise DataError(
                f"{path}: no record annotates the region '{region}' (null everywhere): "
                "leave it out of the objectives, or annotate some pictures"
            )
    return records


def _compare_pictures(records: Sequence[HumanRecord], report: LoadReport) -> list[HumanRecord]:
    """Note pictures with the same bytes; only those of the same length are read.

    Returns:
        The records without those whose picture can't be read, or is no longer there.

    """
    found: list[tuple[HumanRecord, int]] = []
    for record in records:
        try:
            found.append((record, byte_length(record.image)))
        except PictureError as error:
            report.add(record.location, STAGE, error.finding)
    of_length = Counter(length for _, length in found)
    kept: list[HumanRecord] = []
    first_seen: dict[bytes, HumanRecord] = {}
    for record, length in found:
        if of_length[length] > 1:
            try:
                digest = hashlib.sha256(read_bytes(record.image)).digest()
            except PictureError as error:
                report.add(record.location, STAGE, error.finding)
                continue
            first = first_seen.setdefault(digest, record)
            if first is not record:
                same = Finding("warned", "same picture as another record", f"that of {first.location}")
                report.add(record.location, STAGE, same)
        kept.append(record)
    return kept
