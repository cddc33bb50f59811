"""Where records come from: one file a format, one table of them."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fairhuman.data.report import LoadReport
from fairhuman.data.sources.imagefolder import METADATA, has_pictures, read_imagefolder
from fairhuman.data.sources.parquet import parquet_files, read_parquet
from fairhuman.data.sources.rows import STAGE, SourceSettings
from fairhuman.errors import DataError
from fairhuman.record import Finding, HumanRecord

__all__ = ["READERS", "SourceSettings", "read_imagefolder", "read_parquet", "read_source", "source_kind"]

Reader = Callable[[Path, Sequence[str], SourceSettings, LoadReport], list[HumanRecord]]
READERS: Mapping[str, Reader] = {"imagefolder": read_imagefolder, "parquet": read_parquet}


def source_kind(path: Path) -> str:
    """Name of the reader for what is at a path.

    Raises:
        DataError: if nothing there can be read.

    """
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    if any((path / name).is_file() for name in METADATA):
        return "imagefolder"
    if parquet_files(path):
        return "parquet"
    if path.is_dir() and has_pictures(path):
        return "imagefolder"
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
        DataError: no records; a required column or a region that no record has; more than
            `max_reject_share` skipped.

    """
    own = LoadReport()
    try:
        records = READERS[source_kind(path)](path, regions, settings, own)
        _warn_of_duplicates(records, own)
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


def _warn_of_duplicates(records: Sequence[HumanRecord], report: LoadReport) -> None:
    """Note pictures with the same bytes; only those of the same length are read."""
    by_length: dict[int, list[HumanRecord]] = defaultdict(list)
    for record in records:
        length = len(record.image) if isinstance(record.image, bytes) else record.image.stat().st_size
        by_length[length].append(record)
    first_seen: dict[bytes, HumanRecord] = {}
    for alike in by_length.values():
        for record in alike if len(alike) > 1 else ():
            content = record.image if isinstance(record.image, bytes) else record.image.read_bytes()
            first = first_seen.setdefault(hashlib.sha256(content).digest(), record)
            if first is not record:
                report.add(
                    record.location,
                    STAGE,
                    Finding("warned", "same picture as another record", f"that of {first.location}"),
                )
