"""Scores over all pictures, with intervals over pictures."""

from collections.abc import Sequence

import numpy as np

from fairhuman.evaluate.people.strict import StrictScores
from fairhuman.stats.bootstrap import Array, pooled_ratio
from fairhuman.stats.estimate import Estimate


def confidence_n(scores: StrictScores) -> Array:
    """Confidence of each picture; NaN where nothing is expected or that isn't known."""
    empty_n = np.full(len(scores.expected_n), np.nan)
    return np.divide(scores.quality_n, scores.expected_n, out=empty_n, where=scores.expected_n > 0)


def confidence(scores: StrictScores) -> Estimate:
    return _known_ratio(scores, scores.quality_n, scores.expected_n)


def detection_rate(scores: StrictScores) -> Estimate:
    return _known_ratio(scores, scores.matched_n, scores.expected_n)


def precision(scores: StrictScores) -> Estimate:
    return _known_ratio(scores, scores.matched_n, scores.matched_n + scores.extra_n)


def best(scores: StrictScores) -> Estimate:
    return pooled_ratio(scores.best_n, np.ones(len(scores.best_n)))


def _known_ratio(scores: StrictScores, top_n: Array, bottom_n: Array) -> Estimate:
    known_n = ~np.isnan(scores.expected_n)
    return pooled_ratio(top_n[known_n], bottom_n[known_n])


def official_confidence(scores: Sequence[Sequence[float]]) -> Estimate:
    """Mean over all detections of all pictures, misses skipped, with its interval over pictures."""
    return pooled_ratio([sum(picture) for picture in scores], [float(len(picture)) for picture in scores])
