"""Statistics of a data set: counts, sizes, areas, captions, scores, and a build's rejected records."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.data.look.check import Progress
from fairhuman.data.look.columns import read_columns
from fairhuman.data.look.reading import DEFAULT_SETTINGS, open_dataset, read_report, require_usable
from fairhuman.data.look.tally import Numbers, RegionStatistics, Tally
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings
from fairhuman.data.sources.counts import alike_captions
from fairhuman.record import region_column
from fairhuman.report.text import plural
from fairhuman.utils.files import write_json, writing

QUANTILES = (5, 25, 50, 75, 95)  # percent


@dataclass
class Statistics:
    """Statistics of a data set.

    Attributes:
        path, kind: the data set and its format.
        records: number of usable records; in Parquet tables with sizes, of all rows.
        skipped: number of records that couldn't be read.
        sides, aspects: shorter side in pixels and width / height of each record.
        words: number of words of each non-empty caption; `empty` is the number of empty ones.
        tokens: the larger count of the two tokenizers, of up to 1,000 captions; empty without a tokenizer.
        clarity: clarity of each record with a known value.
        sources, splits: number of records by name.
        regions: statistics by region.
        report: report of the build, if the data set is one.
        captions: up to 1,000 of them, evenly spaced.
    """

    path: Path
    kind: str
    records: int
    skipped: int
    sides: Numbers
    aspects: Numbers
    words: Numbers
    empty: int
    tokens: Numbers
    clarity: Numbers
    sources: Counter[str]
    splits: Counter[str]
    regions: Mapping[str, RegionStatistics]
    report: Mapping[str, Any] | None
    captions: Sequence[str] = ()

    def summary(self) -> dict[str, Any]:
        """Counts, means and quantiles, JSON-serializable."""
        measured = {
            "shorter_side": self.sides,
            "width_through_height": self.aspects,
            "caption_words": self.words,
            "caption_tokens": self.tokens,
            "clarity": self.clarity,
        }
        return {
            "path": str(self.path),
            "format": self.kind,
            "records": self.records,
            "skipped": self.skipped,
            "empty_captions": self.empty,
            "sources": dict(self.sources),
            "splits": dict(self.splits),
            **{name: describe(values) for name, values in measured.items()},
            "regions": {name: _region_summary(region) for name, region in self.regions.items()},
            "funnel": None if self.report is None else self.report["funnel"],
            "rejected": None if self.report is None else self.report.get("rejected"),
            "filters": None if self.report is None else self.report["filters"],
        }

    def regions_line(self) -> str:
        """In how many pictures each region is, such as `faces in 37 of 40 pictures, hands in 22`."""
        of = f" of {plural(self.records, 'picture')}"
        found = [f"{region_column(name)} in {region.has}" for name, region in self.regions.items()]
        return ", ".join([f"{text}{'' if number else of}" for number, text in enumerate(found)])

    def caption_lines(self) -> list[str]:
        """A line if few of the captions differ."""
        written = self.report is not None and self.report["recipe"].get("caption", {}).get("kind") == "template"
        return alike_captions(self.captions, " by the template" if written else "")

    def save(self, path: Path) -> None:
        """Write the summary as JSON, atomically.

        Raises:
            FairHumanError: the file can't be written.
        """
        with writing(path):
            write_json(path, self.summary())


def dataset_statistics(
    path: Path,
    settings: SourceSettings = DEFAULT_SETTINGS,
    regions: Sequence[str] = (),
    tokenizer: str | None = None,
    progress: Progress = lambda _stage, _done, _all: None,
) -> Statistics:
    """Compute statistics of a data set in any format, without decoding pictures or keeping records.

    Boxes are counted of `regions` besides faces, hands and persons. Tokens of captions are counted by the tokenizers of
    the model `tokenizer`, such as a folder or hub id of SDXL; None: not at all. `progress` is called with the number of
    records read.

    Raises:
        DataError: the data set can't be read, or has no usable record.
        ModelError: the tokenizers can't be loaded.
    """
    dataset = open_dataset(path, settings, regions)
    report, tally = LoadReport(), Tally(dataset.regions)
    for columns in read_columns(dataset, report):
        tally.add(columns)
        progress("read", tally.records, None)
    require_usable(dataset, report, tally.records)
    return Statistics(
        path=path,
        kind=dataset.kind,
        records=tally.records,
        skipped=len(report.skipped()),
        sides=tally.values("sides"),
        aspects=tally.values("aspects"),
        words=tally.values("words"),
        empty=tally.empty,
        tokens=_tokens(tally.captions, tokenizer),
        clarity=tally.values("clarity"),
        sources=tally.sources,
        splits=tally.splits,
        regions=tally.region_statistics(),
        report=read_report(path),
        captions=tally.captions,
    )


def describe(values: Numbers) -> dict[str, Any] | None:
    """Number, mean, extremes and quantiles of the finite values; None if there are none."""
    known = values[np.isfinite(values)].astype(np.float64)
    if not len(known):
        return None
    quantiles = {f"p{q}": float(np.percentile(known, q)) for q in QUANTILES}
    return {"n": len(known), "mean": float(known.mean()), "min": known.min(), **quantiles, "max": known.max()}


def _tokens(captions: Sequence[str], tokenizer: str | None) -> Numbers:
    if tokenizer is None:
        return np.zeros(0, np.float32)
    from fairhuman.data.caption.settings import TokenSettings
    from fairhuman.data.caption.tokens import TokenBudget

    budget = TokenBudget.load(TokenSettings(model=tokenizer))
    return np.array([max(budget.count(caption)) for caption in captions if caption.strip()], dtype=np.float32)


def _region_summary(region: RegionStatistics) -> dict[str, Any]:
    return {
        "has": region.has,
        "none": region.none,
        "unknown": region.unknown,
        "painted": region.painted,
        "boxes": sum(number * records for number, records in region.boxes.items()),
        "unusable_boxes": region.unusable,
        "boxes_per_record": {str(number): records for number, records in sorted(region.boxes.items()) if records},
        "area_share": describe(region.area_shares),
        "scores": {by: describe(values) for by, values in region.scores.items()},
    }
