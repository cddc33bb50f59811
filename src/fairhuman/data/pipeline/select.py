"""Select the rows to keep: filters and duplicates, using the measures in the tables."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np

from fairhuman.data.pictures.filters import Filter, FilterSettings, Measures, active_filters, measures_of
from fairhuman.data.pictures.thresholds import KEPT, Harm, harms
from fairhuman.data.pipeline.manifest import Block
from fairhuman.data.pipeline.rows import boxes_from_lists
from fairhuman.data.pipeline.tier import TierTable
from fairhuman.record import REGION_COLUMNS

Duplicates = Literal["keep", "exact", "near"]
HASH_BITS = 64


class RejectedRow(NamedTuple):
    """A rejected row and the reason."""

    key: str
    location: str
    stage: str
    reason: str
    value: str


@dataclass
class Selection:
    """The kept rows, and the reasons for the rejected ones.

    Attributes:
        kept: blocks of the kept rows.
        sized: blocks of the rows that pass the filters of size, which come first: the others need no detection.
        rejected: the rejected rows, in order.
        filters: the filters with their thresholds.
        unknown: for each filter, the number of rows that it couldn't judge because the measure is unknown.
        masks: names of the painted masks of the kept rows.
        findings: number of rows by action and reason.
        harms: what each filter by itself leaves out, if all filters together leave out more than 90 %.
    """

    kept: list[Block] = field(default_factory=list)
    sized: list[Block] = field(default_factory=list)
    rejected: list[RejectedRow] = field(default_factory=list)
    filters: Sequence[Filter] = ()
    unknown: Counter[str] = field(default_factory=Counter)
    masks: set[str] = field(default_factory=set)
    findings: Counter[tuple[str, str]] = field(default_factory=Counter)
    harms: Sequence[Harm] = ()


def select(
    blocks: Sequence[Block],
    check: TierTable,
    detect: TierTable | None,
    filters: FilterSettings,
    duplicates: Duplicates = "exact",
    near_bits: int = 3,
    complete: bool = True,
) -> Selection:
    """Select rows by filters and duplicates; of duplicates that pass the filters, the first one is kept.

    Args:
        blocks: all rows of the source.
        check, detect: tables that cover these rows; None: nothing was detected.
        filters: thresholds.
        duplicates: `exact` rejects pictures with identical bytes, `near` also pictures whose perceptual hashes differ
            in at most `near_bits` of 64 bits.
        near_bits: 0..15.
        complete: whether the tables hold all that will be known; if not, rows that a filter can't judge yet are kept.
    """
    selection = Selection()
    unknown_kept = filters.unknown == "keep" or not complete

    def measures() -> Iterator[Measures]:
        return (row.measures for _, rows in _rows(blocks, check, detect) for row in rows if row.measures is not None)

    selection.filters = active_filters(filters, measures())
    index = _DuplicateIndex(duplicates, near_bits)
    of_size = [rule for rule in selection.filters if rule.of_size]
    for block, rows in _rows(blocks, check, detect):
        kept, sized = np.ones(len(rows), dtype=bool), np.zeros(len(rows), dtype=bool)
        for place, row in enumerate(rows):
            selection.findings.update(row.findings)
            if row.measures is not None:
                sized[place] = all(rule.judge(row.measures) is None for rule in of_size)
            cause = row.rejection or _judge(row.measures, selection, unknown_kept) or index.judge(row)
            if cause is not None:
                kept[place] = False
                selection.rejected.append(RejectedRow(row.key, row.location, *cause))
            else:
                selection.masks |= row.masks
        selection.kept.append(Block(block.number, block.ids[kept]))
        selection.sized.append(Block(block.number, block.ids[sized]))
    filtered = sum(each.stage == "filter" for each in selection.rejected)
    if filtered > KEPT * (filtered + sum(len(block.ids) for block in selection.kept)):
        selection.harms = harms(selection.filters, list(measures()), unknown_kept=unknown_kept)
    return selection


class _Cause(NamedTuple):
    stage: str
    reason: str
    value: str


@dataclass(frozen=True)
class _Row:
    key: str
    location: str
    sha256: bytes
    phash: int | None
    measures: Measures | None
    rejection: _Cause | None
    masks: frozenset[str]
    findings: frozenset[tuple[str, str]]


def _rows(blocks: Sequence[Block], check: TierTable, detect: TierTable | None) -> Iterator[tuple[Block, list[_Row]]]:
    """The data about every row, block by block, in the order of their ids."""
    read_check, read_detect = check.reader(), detect.reader() if detect is not None else None
    findings = check.tier.findings
    for block in blocks:
        checks = read_check(block.number)
        detections = read_detect(block.number) if read_detect is not None else {}
        yield (
            block,
            [
                _row(checks[identity], detections.get(identity, {}), frozenset(findings(checks[identity])))
                for identity in block.ids.tolist()
            ],
        )


def _row(check: Mapping[str, Any], detect: Mapping[str, Any], findings: frozenset[tuple[str, str]]) -> _Row:
    rejection = next(
        (
            _Cause(stage, row["reason"], row["value"])
            for stage, row in (("check", check), ("detect", detect))
            if row and row["status"] != "ok"
        ),
        None,
    )
    measures = None if rejection is not None else _measures(check, detect)
    masks = frozenset(check["masks"] or ())
    return _Row(check["key"], check["location"], check["sha256"], check["phash"], measures, rejection, masks, findings)


def _measures(check: Mapping[str, Any], detect: Mapping[str, Any]) -> Measures:
    boxes = {
        region: boxes_from_lists(check[column] if check.get(column) is not None else detect.get(column))
        for region, column in REGION_COLUMNS.items()
    }
    return measures_of(check["width"], check["height"], check["clarity"], boxes, check["masks"])


def _judge(measures: Measures | None, selection: Selection, unknown_kept: bool) -> _Cause | None:
    if measures is None:
        return None
    for rule in selection.filters:
        if rule.value(measures) is None:
            selection.unknown[rule.name] += 1
            if not unknown_kept:
                return _Cause("filter", rule.unjudged, "")
        rejection = rule.judge(measures)
        if rejection is not None:
            return _Cause("filter", rejection.reason, f"{rejection.value:.6g}")
    return None


class _DuplicateIndex:
    """Index of the pictures kept so far.

    Two hashes that differ in at most k bits agree in at least one of k + 1 parts of the 64 bits, so only hashes with a
    common part are compared.
    """

    def __init__(self, duplicates: Duplicates, near_bits: int) -> None:
        if not 0 <= near_bits <= 15:
            raise ValueError(f"near_bits must be in 0..15, not {near_bits}")
        self._exact: dict[bytes, str] | None = None if duplicates == "keep" else {}
        self._near_bits = near_bits
        edges = np.linspace(0, HASH_BITS, near_bits + 2).round().astype(int).tolist()
        self._parts = [(low, (1 << (high - low)) - 1) for low, high in pairwise(edges)]
        self._near: list[dict[int, list[tuple[int, str]]]] | None = (
            [{} for _ in self._parts] if duplicates == "near" else None
        )

    def judge(self, row: _Row) -> _Cause | None:
        """The cause if the picture is a duplicate; otherwise add it to the index and return None."""
        if self._exact is not None:
            first = self._exact.setdefault(row.sha256[:16], row.key)
            if first != row.key:
                return _Cause("duplicate", "same picture as another", f"that of {first}")
        return self._judge_near(row) if self._near is not None else None

    def _judge_near(self, row: _Row) -> _Cause | None:
        assert self._near is not None
        assert row.phash is not None
        buckets = [
            table.setdefault((row.phash >> shift) & mask, [])
            for table, (shift, mask) in zip(self._near, self._parts, strict=True)
        ]
        for phash, key in (entry for bucket in buckets for entry in bucket):
            bits = (phash ^ row.phash).bit_count()
            if bits <= self._near_bits:
                return _Cause("duplicate", "nearly the same picture as another", f"that of {key}, {bits} bits differ")
        for bucket in buckets:
            bucket.append((row.phash, row.key))
        return None
