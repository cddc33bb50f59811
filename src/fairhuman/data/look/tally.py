"""Accumulate column statistics, with a few numbers per record so that millions of records fit into memory."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray

from fairhuman.data.look.columns import RecordColumns
from fairhuman.data.look.reading import annotation_columns

Numbers = NDArray[np.float32]
CAPTIONS = 1000  # maximum number of captions kept, evenly spaced over all
SOURCE = "source"  # origin of boxes and scores without a detector's name


@dataclass
class RegionStatistics:
    """Statistics of one region.

    Attributes:
        has, none, unknown: number of records with the region (boxes or a painted mask), known to be without it, and
            without annotation.
        painted: number of records with a painted mask.
        boxes: number of records by number of boxes, over records with known boxes.
        area_shares: area of each box / area of its picture, 0..1.
        unusable: number of boxes that aren't four finite numbers or are smaller than a pixel; excluded elsewhere.
        scores: scores of boxes, by detector.
    """

    has: int = 0
    none: int = 0
    unknown: int = 0
    painted: int = 0
    boxes: Counter[int] = field(default_factory=Counter)
    area_shares: Numbers = field(default_factory=lambda: np.zeros(0, np.float32))
    unusable: int = 0
    scores: Mapping[str, Numbers] = field(default_factory=dict)


class Tally:
    """Statistics accumulated so far.

    Attributes:
        records: number of records; `empty`: number of them without a caption.
        sources, splits: number of records by name.
        captions: a subset, evenly spaced over all.
    """

    def __init__(self, regions: Sequence[str]) -> None:
        self.records = self.empty = 0
        self.sources: Counter[str] = Counter()
        self.splits: Counter[str] = Counter()
        self.captions: list[str] = []
        self._next, self._step = 0, 1
        self._parts: dict[str, list[Numbers]] = defaultdict(list)
        self._scores: dict[str, dict[str, list[Numbers]]] = defaultdict(lambda: defaultdict(list))
        self._regions: dict[str, RegionStatistics] = {region: RegionStatistics() for region in regions}

    def add(self, columns: RecordColumns) -> None:
        """Add a chunk of records."""
        table = columns.table
        width_n, height_n = (table.column(name).to_numpy().astype(np.float64) for name in ("width", "height"))
        width_n, height_n = (np.where(side > 0, side, np.nan) for side in (width_n, height_n))
        self._parts["sides"].append(np.minimum(width_n, height_n).astype(np.float32))
        self._parts["aspects"].append((width_n / height_n).astype(np.float32))
        if "clarity" in table.column_names:
            clarity = table.column("clarity").drop_null().to_numpy()
            self._parts["clarity"].append(clarity.astype(np.float32))
        for name, counter in (("source", self.sources), ("split", self.splits)):
            if name in table.column_names:
                values = pyarrow.compute.value_counts(table.column(name)).to_pylist()
                counter.update({str(v["values"]): v["counts"] for v in values if v["values"] is not None})
        self._add_captions(table)
        for region in dict.fromkeys([*self._regions, *columns.painted]):
            self._add_region(region, table, columns.painted.get(region), width_n * height_n)
        self.records += len(table)

    def values(self, name: str) -> Numbers:
        """All values of one measure."""
        return _concatenate(self._parts[name])

    def region_statistics(self) -> Mapping[str, RegionStatistics]:
        """Statistics by region."""
        for name, region in self._regions.items():
            region.area_shares = _concatenate(self._parts[f"area {name}"])
            region.scores = {by: _concatenate(parts) for by, parts in sorted(self._scores[name].items())}
        return self._regions

    def _add_captions(self, table: pyarrow.Table) -> None:
        if "caption" not in table.column_names:
            self.empty += len(table)
            return
        captions = pyarrow.compute.fill_null(table.column("caption"), "")
        trimmed = pyarrow.compute.utf8_trim_whitespace(captions)
        filled = trimmed.filter(pyarrow.compute.greater(pyarrow.compute.utf8_length(trimmed), 0))
        words = pyarrow.compute.list_value_length(pyarrow.compute.utf8_split_whitespace(filled))
        self._parts["words"].append(words.to_numpy().astype(np.float32))
        self.empty += len(table) - len(filled)
        for number in range(self._next - self.records, len(table), self._step):
            self.captions.append(str(captions[number]))
            self._next = self.records + number + self._step
        while len(self.captions) > CAPTIONS:  # keep every second one, so that they stay evenly spaced
            self.captions, self._step = self.captions[::2], 2 * self._step
            self._next = self._step * len(self.captions)

    def _add_region(
        self, name: str, table: pyarrow.Table, painted_n: NDArray[np.bool_] | None, area_n: NDArray[np.float64]
    ) -> None:
        region = self._regions.setdefault(name, RegionStatistics(unknown=self.records))
        column, scores, _, _, by = annotation_columns(name)
        if painted_n is None:
            painted_n = np.zeros(len(table), dtype=bool)
        known_n, count_n = np.zeros(len(table), dtype=bool), np.zeros(len(table), dtype=np.int64)
        if column in table.column_names:
            boxes = table.column(column).combine_chunks()
            known_n = boxes.is_valid().to_numpy(zero_copy_only=False)
            count_n = _lengths(boxes)
            region.boxes.update(dict(enumerate(np.bincount(count_n[known_n]).tolist())))
            self._add_boxes(name, region, boxes, np.repeat(area_n, count_n), _origins(table, by, count_n))
            if scores in table.column_names:
                self._add_scores(name, table, scores, by)
        has_n = (count_n > 0) | painted_n
        region.has += int(has_n.sum())
        region.none += int((known_n & ~has_n).sum())
        region.unknown += int((~known_n & ~has_n).sum())
        region.painted += int(painted_n.sum())

    def _add_boxes(
        self, name: str, region: RegionStatistics, boxes: pyarrow.Array, area_b: NDArray[np.float64], by: Sequence[str]
    ) -> None:
        """Add areas of boxes, and scores given as fifth numbers."""
        inner = boxes.flatten()
        lengths_b, numbers = _lengths(inner), inner.flatten().to_numpy(zero_copy_only=False).astype(np.float64)
        starts_b = np.cumsum(lengths_b) - lengths_b
        x0, y0, x1, y1, score = (
            np.where(lengths_b > place, np.append(numbers, np.nan)[np.minimum(starts_b + place, len(numbers))], np.nan)
            for place in range(5)
        )
        box_area_b = np.where((x1 > x0) & (y1 > y0), (x1 - x0) * (y1 - y0), np.nan)
        usable_b = np.isfinite(box_area_b) & (box_area_b >= 1) & (lengths_b >= 4)
        region.unusable += int((~usable_b).sum())
        self._parts[f"area {name}"].append((box_area_b / area_b)[usable_b].astype(np.float32))
        for origin in set(by) if np.isfinite(score).any() else ():
            chosen_b = np.isfinite(score) & (np.array(by) == origin)
            self._scores[name][origin].append(score[chosen_b].astype(np.float32))

    def _add_scores(self, name: str, table: pyarrow.Table, scores: str, by: str) -> None:
        column = table.column(scores).combine_chunks()
        values = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
        origins = np.array(_origins(table, by, _lengths(column)))
        for origin in set(origins.tolist()):
            scores_of_origin = values[origins == origin]
            self._scores[name][origin].append(scores_of_origin[np.isfinite(scores_of_origin)])


def _lengths(lists: pyarrow.Array) -> NDArray[np.int64]:
    """Number of values in each list, 0 for null."""
    lengths: NDArray[np.int64] = (
        pyarrow.compute.fill_null(pyarrow.compute.list_value_length(lists), 0)
        .to_numpy(zero_copy_only=False)
        .astype(np.int64)
    )
    return lengths


def _origins(table: pyarrow.Table, by: str, count_n: NDArray[np.int64]) -> list[str]:
    """The detector (or source) of each value, with `count_n` values per record."""
    names = table.column(by).to_pylist() if by in table.column_names else [None] * len(table)
    return [str(name or SOURCE) for name, number in zip(names, count_n.tolist(), strict=True) for _ in range(number)]


def _concatenate(parts: Sequence[Numbers]) -> Numbers:
    return np.concatenate([np.zeros(0, np.float32), *parts])
