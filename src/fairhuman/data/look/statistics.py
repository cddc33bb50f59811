"""What is in a data set, in numbers: counts, sizes, areas, captions, scores; and what a build left out on the way."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.data.look.check import Progress
from fairhuman.data.look.columns import read_columns
from fairhuman.data.look.reading import AS_IT_IS, open_dataset, read_report, usable_or_error
from fairhuman.data.look.tally import Numbers, RegionStatistics, Tally
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings
from fairhuman.utils.files import write_json, writing

QUANTILES = (5, 25, 50, 75, 95)  # percent


@dataclass
class Statistics:
    """Of a data set.

    Attributes:
        path, kind: the data set and its format.
        records: usable ones; of a Parquet set with sizes, all rows.
        skipped: records that couldn't be read.
        sides, aspects: shorter side in pixels and width through height, of each record.
        words: of each caption; `empty` captions have none.
        tokens: both tokenizers' larger number, of up to 1,000 captions; empty where nobody asked.
        clarity: of each record where it is known.
        sources, splits: number of records by name.
        regions: by name.
        report: of the build, where it is one.

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

    def summary(self) -> dict[str, Any]:
        """As JSON: counts, means and quantiles."""
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
            **{name: spread(values) for name, values in measured.items()},
            "regions": {name: _region_summary(region) for name, region in self.regions.items()},
            "funnel": None if self.report is None else self.report["funnel"],
            "rejected": None if self.report is None else self.report.get("rejected"),
            "filters": None if self.report is None else self.report["filters"],
        }

    def save(self, path: Path) -> None:
        """Write the summary as JSON, atomically.

        Raises:
            FairHumanError: it can't be written.

        """
        with writing(path):
            write_json(path, self.summary())


def dataset_statistics(
    path: Path,
    settings: SourceSettings = AS_IT_IS,
    regions: Sequence[str] = (),
    tokenizer: str | None = None,
    progress: Progress = lambda _stage, _done, _all: None,
) -> Statistics:
    """Count and measure a data set in any format; no picture is decoded, no record kept.

    Args:
        path: the data set.
        settings: of the source.
        regions: whose boxes are counted beside those of faces, hands and persons.
        tokenizer: model in whose tokens captions are counted, such as a folder or hub id of SDXL; None: in none.
        progress: told how many records were read.

    Raises:
        DataError: it can't be read, or holds no usable record.
        ModelError: there are no such tokenizers.

    """
    dataset = open_dataset(path, settings, regions)
    report, tally = LoadReport(), Tally(dataset.regions)
    for columns in read_columns(dataset, report):
        tally.add(columns)
        progress("read", tally.records, None)
    usable_or_error(dataset, report, tally.records)
    return Statistics(
        path=path,
        kind=dataset.kind,
        records=tally.records,
        skipped=len(report.skipped()),
        sides=tally.joined("sides"),
        aspects=tally.joined("aspects"),
        words=tally.joined("words"),
        empty=tally.empty,
        tokens=_tokens(tally.captions, tokenizer),
        clarity=tally.joined("clarity"),
        sources=tally.sources,
        splits=tally.splits,
        regions=tally.region_statistics(),
        report=read_report(path),
    )


def spread(values: Numbers) -> dict[str, Any] | None:
    """Number, mean, extremes and quantiles of what is finite; None where there is nothing."""
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
        "area_share": spread(region.area_shares),
        "scores": {by: spread(values) for by, values in region.scores.items()},
    }
