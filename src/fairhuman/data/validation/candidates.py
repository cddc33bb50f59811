"""Candidates of a validation set: read a source, filter the records, decode the pictures, detect what filters need.

Rejected records keep their reason.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.filters import (
    PERSON,
    Clarity,
    ClarityPercentile,
    Filter,
    Measures,
    active_filters,
    measure,
)
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.thresholds import harms
from fairhuman.data.sources import source_format, source_kind
from fairhuman.data.sources.own_regions import own_regions
from fairhuman.data.sources.rows import iterate_records, masks_of
from fairhuman.data.validation.boxes import FoundBoxes, find_boxes
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
        unknown: for each filter, the number of records that passed although it couldn't judge them.
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

    def advise(self, filters: Sequence[Filter], measures: Sequence[Measures], unknown_kept: bool) -> None:
        """Note what to change where filters reject records with these measures."""
        found = harms(filters, measures, "filters.", unknown_kept)
        self.advice |= {harm.reason: harm.advice for harm in found}

    def reasons(self) -> dict[str, int]:
        """Number of records by reason, most frequent first."""
        return dict(Counter(row["reason"] for row in self.rejected).most_common())


def read_candidates(source: Path, settings: ValidationSetSettings, funnel: Funnel) -> dict[str, HumanRecord]:
    """Read the records of a source by key, with all their boxes and painted masks; only headers of pictures are read.

    Raises:
        DataError: the source is unreadable, has no record, or more than `source.max_reject_share` can't be read.
    """
    report = LoadReport()
    kind = source_format(source_kind(source, settings.source.format))
    root = source if source.is_dir() else source.parent
    rows = list(kind.read(source, report))
    regions = list(dict.fromkeys([*REGIONS, *own_regions(rows), *(name for row in rows for name in masks_of(row))]))
    records = {
        record.key: record for record in iterate_records(rows, root, kind.picture, regions, settings.source, report)
    }
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


@dataclass(frozen=True)
class Candidates:
    """Records that pass all filters, by key; the looks of their pictures, and the boxes that were detected."""

    records: Mapping[str, HumanRecord]
    looks: Mapping[str, PictureInspection]
    found: FoundBoxes


def filter_candidates(
    records: Mapping[str, HumanRecord],
    settings: ValidationSetSettings,
    funnel: Funnel,
    journal: Journal,
    progress: Progress,
) -> Candidates:
    """The records that pass all filters.

    What is cheap comes first: filters of what the source knows, then pictures are decoded, and of those with identical
    bytes the first is kept; then detectors look for what filters don't know yet. A percentile of clarity is over the
    records that pass all that.

    Raises:
        DetectorError: a detector can't be loaded.
    """
    filtering = _Filtering(records, settings, funnel)
    rules = active_filters(settings.filters, ())
    counting = [each for each in rules if not isinstance(each, Clarity)]
    late = [each for each in counting if filtering.can_detect(each)]
    filtering.apply(counting, waiting=late)
    looks = _inspect_pictures(filtering.kept, settings, funnel, journal, progress)
    filtering.kept = {key: filtering.kept[key] for key in looks}
    funnel.stages.append(("can be decoded, no duplicate", len(looks)))
    filtering.measures = {key: measure(record, looks[key].clarity) for key, record in filtering.kept.items()}
    filtering.apply([each for each in rules if isinstance(each, Clarity)])
    digests = {key: looks[key].digest for key in filtering.kept}
    found = filtering.detect(late, digests, lambda done, total: progress("detecting people", done, total))
    filtering.apply(late, "after detection", failures=found.failures)
    sharp = active_filters(settings.filters, (filtering.measures[key] for key in filtering.kept))
    filtering.apply([each for each in sharp if isinstance(each, ClarityPercentile)])
    return Candidates(filtering.kept, {key: looks[key] for key in filtering.kept}, found)


class _Filtering:
    """Records that are left, and what is known about them."""

    def __init__(self, records: Mapping[str, HumanRecord], settings: ValidationSetSettings, funnel: Funnel) -> None:
        self.kept = dict(records)
        self.measures = {key: measure(record) for key, record in records.items()}
        self.settings, self.funnel = settings, funnel
        self.unknown_kept = settings.filters.unknown == "keep"

    def can_detect(self, rule: Filter) -> bool:
        """Whether there are detectors of what a filter counts."""
        kinds = self.settings.detect.kinds if self.settings.detect is not None else {}
        return any(part in kinds for part in rule.parts)

    def apply(
        self,
        rules: Sequence[Filter],
        stage: str = "",
        waiting: Sequence[Filter] = (),
        failures: Mapping[str, str] | None = None,
    ) -> None:
        """Apply filters one after the other; a `waiting` one keeps what it can't judge yet."""
        left = [self.measures[key] for key in self.kept]
        self.funnel.advise([rule for rule in rules if rule not in waiting], left, self.unknown_kept)
        self.funnel.advise(waiting, left, True)
        for rule in rules:
            self._apply(rule, rule in waiting, failures or {})
            self.funnel.stages.append((f"{rule.name}, {stage}" if stage else rule.name, len(self.kept)))

    def _apply(self, rule: Filter, waiting: bool, failures: Mapping[str, str]) -> None:
        passing, unjudged = {}, 0
        for key, record in self.kept.items():
            known = rule.value(self.measures[key]) is not None
            rejection = rule.judge(self.measures[key])
            if rejection is not None:
                self.funnel.reject(record, "filter", rejection.reason, rejection.value)
            elif known or waiting or self.unknown_kept:
                passing[key], unjudged = record, unjudged + (not known and not waiting)
            else:
                self.funnel.reject(record, "filter", rule.unjudged, failures.get(key))
        self.kept = passing
        if not waiting:
            self.funnel.unknown[rule.name] = unjudged

    def detect(
        self, rules: Sequence[Filter], digests: Mapping[str, str], progress: Callable[[int, int], None]
    ) -> FoundBoxes:
        """Detect what these filters count in the records that they can't judge, and measure these anew."""
        if self.settings.detect is None:
            return FoundBoxes()
        kinds, wanted = self.settings.detect.kinds, {}
        for key, record in self.kept.items():
            asked = {part for rule in rules if rule.value(self.measures[key]) is None for part in rule.parts}
            if parts := [part for part in kinds if part in asked and not record.annotated(part)]:
                wanted[key] = parts
        limits = self.settings.source.limits
        found = find_boxes(self.kept, digests, wanted, self.settings.detect, limits, progress)
        for key, boxes in found.boxes.items():
            seen = replace(self.kept[key], boxes={**self.kept[key].boxes, **boxes})
            self.measures[key] = measure(seen, self.measures[key].clarity)
        return found


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
