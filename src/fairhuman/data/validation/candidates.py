"""Candidates of a validation set: read a source, filter the records, decode the pictures; rejects keep their reason."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.filters import PERSON, Clarity, Filter, Measures, active_filters, measure
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.thresholds import harms
from fairhuman.data.sources import source_format, source_kind
from fairhuman.data.sources.own_regions import own_regions
from fairhuman.data.sources.rows import iterate_records, masks_of
from fairhuman.data.validation.looks import PictureInspection, inspect_pictures
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.errors import DataError
from fairhuman.record import Finding, HumanRecord
from fairhuman.utils.journal import Journal

REGIONS = ("face", "hand", PERSON)
Progress = Callable[[str, int, int], None]


@dataclass
class Funnel:
    """Rejected records, stage by stage.

    Attributes:
        rejected: one row per record: `key`, `where`, `stage`, `reason`, `value`.
        stages: name of each stage, and the number of records left after it.
        unknown: for each filter, the number of records that passed because the measure is unknown.
        advice: for each reason of a filter, what to change, with a value that would keep most records.
    """

    rejected: list[dict[str, Any]] = field(default_factory=list)
    stages: list[tuple[str, int]] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    advice: dict[str, str] = field(default_factory=dict)

    def reject(self, record: HumanRecord, stage: str, reason: str, value: Any) -> None:
        """Add a rejected record."""
        row = {"key": record.key, "where": record.location, "stage": stage, "reason": reason, "value": value}
        self.rejected.append(row)

    def advise(self, filters: Sequence[Filter], measures: Sequence[Measures]) -> None:
        """Note what to change where filters reject records with these measures."""
        self.advice |= {harm.reason: harm.advice for harm in harms(filters, measures, "filters.")}

    def reasons(self) -> dict[str, int]:
        """Number of records by reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.rejected).most_common())


def read_candidates(source: Path, settings: ValidationSetSettings, funnel: Funnel) -> dict[str, HumanRecord]:
    """Read the records of a source by key, with all their boxes and painted masks; only headers of pictures are read.

    Raises:
        DataError: the source is unreadable, has no record, or more than `source.max_reject_share` can't be read.
    """
    report = LoadReport()
    try:
        kind = source_format(source_kind(source, settings.source.format))
        root = source if source.is_dir() else source.parent
        rows = list(kind.rows(source, report))
        regions = list(dict.fromkeys([*REGIONS, *own_regions(rows), *(name for row in rows for name in masks_of(row))]))
        records = {
            record.key: record for record in iterate_records(rows, root, kind.picture, regions, settings.source, report)
        }
    except OSError as error:
        raise DataError(f"{error.filename or source}: can't be read: {error.strerror or error}") from error
    skipped = report.skipped()
    total = len(records) + len(skipped)
    report.check_share(settings.source.max_reject_share, total)
    if not records:
        raise DataError(f"{source}: no usable record among {total}")
    for note in skipped:
        row = {"key": None, "where": note.place, "stage": "read", "reason": note.reason, "value": note.value}
        funnel.rejected.append(row)
    funnel.stages += [("found", total), ("readable", len(records))]
    return records


def filter_candidates(
    records: Mapping[str, HumanRecord],
    settings: ValidationSetSettings,
    funnel: Funnel,
    journal: Journal,
    progress: Progress,
) -> tuple[dict[str, HumanRecord], dict[str, PictureInspection]]:
    """The records that pass all filters, and the looks of their pictures.

    Pictures are decoded and their clarity measured only if the record passes the cheap filters, so a percentile of
    clarity is over these records. Of pictures with identical bytes, the first is kept.
    """
    kept = dict(records)
    measures = {key: measure(record) for key, record in kept.items()}
    cheap = [each for each in active_filters(settings.filters, ()) if not isinstance(each, Clarity)]
    funnel.advise(cheap, list(measures.values()))
    for each in cheap:
        kept = _passing(kept, each, measures, funnel)
    looks = _inspect_pictures(kept, settings, funnel, journal, progress)
    kept = {key: kept[key] for key in looks}
    funnel.stages.append(("can be decoded, no duplicate", len(kept)))
    measures = {key: measure(record, looks[key].clarity) for key, record in kept.items()}
    clear = [each for each in active_filters(settings.filters, measures.values()) if isinstance(each, Clarity)]
    funnel.advise(clear, list(measures.values()))
    for each in clear:
        kept = _passing(kept, each, measures, funnel)
    return kept, {key: looks[key] for key in kept}


def _passing(
    records: Mapping[str, HumanRecord], each: Filter, measures: Mapping[str, Measures], funnel: Funnel
) -> dict[str, HumanRecord]:
    passing = {}
    for key, record in records.items():
        rejection = each.judge(measures[key])
        if rejection is None:
            passing[key] = record
        else:
            funnel.reject(record, "filter", rejection.reason, rejection.value)
    funnel.unknown[each.name] = sum(each.value(measures[key]) is None for key in passing)
    funnel.stages.append((each.name, len(passing)))
    return passing


def _inspect_pictures(
    records: Mapping[str, HumanRecord],
    settings: ValidationSetSettings,
    funnel: Funnel,
    journal: Journal,
    progress: Progress,
) -> dict[str, PictureInspection]:
    looks: dict[str, PictureInspection] = {}
    first: dict[str, str] = {}
    found: Iterable[PictureInspection | Finding] = inspect_pictures(
        list(records.values()),
        settings.source.limits,
        journal,
        lambda done: progress("looking at pictures", done, len(records)),
    )
    for (key, record), look in zip(records.items(), found, strict=True):
        if isinstance(look, Finding):
            funnel.reject(record, "look", look.reason, look.value)
        elif look.digest in first:
            funnel.reject(record, "look", "same picture as another record", f"that of {first[look.digest]}")
        else:
            first[look.digest] = key
            looks[key] = look
    return looks
