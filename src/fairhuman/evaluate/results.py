"""Results of an evaluation: metrics of each method, differences between methods, values of single pictures."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from fairhuman.evaluate.people.detections import ImageDetections
from fairhuman.evaluate.pictures import EvalImage
from fairhuman.stats.bootstrap import Array
from fairhuman.stats.paired import Difference, Measured, Values, holm, paired_difference, ratio

Methods = Mapping[str, Sequence[EvalImage]]
WHOLE = "whole picture"  # what metrics of whole pictures judge


@dataclass(frozen=True)
class Metric:
    """Description of a metric.

    Attributes:
        name: heading in tables.
        better: which direction is better.
        what: what it measures, in one sentence.
        blind: what it does not capture, in one sentence.
        form: number format where there is no interval; otherwise the interval decides on the digits.
        by_picture: whether values of single pictures are meaningful, so that the report shows the lowest and highest.
        judges: what the verdict says of it, such as `faces`; None: the metric itself; empty: not part of the verdict.
    """

    name: str
    better: Literal["higher", "lower"]
    what: str
    blind: str
    form: str = "{:.4g}"
    by_picture: bool = False
    judges: str | None = None


@dataclass(frozen=True)
class MetricResult:
    """A metric's value for one method."""

    metric: Metric
    method: str
    measured: Measured


@dataclass(frozen=True)
class Contrast:
    """Difference between two methods; `corrected` is p after Holm's correction for all contrasts of the evaluation."""

    metric: Metric
    method: str
    against: str
    difference: Difference
    corrected: float = float("nan")


@dataclass
class EvaluationResults:
    """All results, in the order of measurement.

    Attributes:
        results: values of each metric and method.
        contrasts: differences between methods.
        columns: values of single pictures, by method and metric.
        warnings: caveats for the reader.
        detections: detected faces and hands of each picture, by method; empty if no metric needed them.
        seconds: by task, number of pictures timed and seconds per picture; cached results are not counted.
        peak_mb: peak memory, see `pace.peak_mb`.
    """

    results: list[MetricResult] = field(default_factory=list)
    contrasts: list[Contrast] = field(default_factory=list)
    columns: dict[str, dict[str, Array]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    detections: dict[str, list[ImageDetections]] = field(default_factory=dict)
    seconds: dict[str, tuple[int, float]] = field(default_factory=dict)
    peak_mb: float = float("nan")

    def add_scores(
        self, metric: Metric, scores: Mapping[str, tuple[Values, Values]], methods: Methods, against: str | None
    ) -> None:
        """Add Σ numerator / Σ denominator of each method (`stats.paired.ratio`), and contrasts on shared pictures."""
        for method, (tops_n, bottoms_n) in scores.items():
            groups = [picture.group for picture in methods[method]]
            self.results.append(MetricResult(metric, method, ratio(tops_n, bottoms_n, groups)))
            columns = self.columns.setdefault(method, {})
            columns[metric.name] = np.asarray(tops_n, np.float64)
            if not np.array_equal(bottoms_n, np.ones(len(tops_n))):
                columns[f"{metric.name}: of"] = np.asarray(bottoms_n, np.float64)
        if against is None:
            return
        for method in scores:
            if method != against:
                places = shared_indices(methods[method], methods[against])
                a, b = _taken(scores[method], places[0]), _taken(scores[against], places[1])
                groups = [methods[method][row].group for row in places[0]]
                self.contrasts.append(Contrast(metric, method, against, paired_difference(a, b, groups)))

    def corrected(self) -> list[Contrast]:
        """The contrasts with p-values corrected by Holm's method."""
        ps = holm([contrast.difference.p for contrast in self.contrasts])
        return [replace(contrast, corrected=p) for contrast, p in zip(self.contrasts, ps, strict=True)]


def shared_indices(a: Sequence[EvalImage], b: Sequence[EvalImage]) -> tuple[list[int], list[int]]:
    """Indices of the pictures that both methods have: of the same `group` and `sample`."""
    places_a, places_b = _places(a), _places(b)
    both = [place for place in places_a if place in places_b]
    return [places_a[place] for place in both], [places_b[place] for place in both]


def _places(pictures: Sequence[EvalImage]) -> dict[tuple[str, tuple[int, int], int], int]:
    counts: Counter[tuple[str, tuple[int, int]]] = Counter()
    places = {}
    for row, picture in enumerate(pictures):
        key = (picture.group, picture.sample)
        places[*key, counts[key]] = row  # the second of a key is of another run in the same folder
        counts[key] += 1
    return places


def _taken(pair: tuple[Values, Values], rows: Sequence[int]) -> tuple[Array, Array]:
    tops_n, bottoms_n = (np.asarray(column, np.float64)[list(rows)] for column in pair)
    return tops_n, bottoms_n
