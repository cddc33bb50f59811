"""Estimators: compute a step's direction from its losses, exactly or at the cost of ordinary training."""

from fairhuman.fairness.estimators.ema import EmaEstimator
from fairhuman.fairness.estimators.estimator import Estimator, GramEstimate, MicroBatch, Output
from fairhuman.fairness.estimators.exact import ExactEstimator
from fairhuman.fairness.estimators.fallback import FallbackEstimator
from fairhuman.fairness.estimators.output import OutputEstimator
from fairhuman.fairness.estimators.pairwise import PairwiseEstimator
from fairhuman.fairness.estimators.split import SplitEstimator
from fairhuman.fairness.estimators.tail import TailEstimator

__all__ = [
    "EmaEstimator",
    "Estimator",
    "ExactEstimator",
    "FallbackEstimator",
    "GramEstimate",
    "MicroBatch",
    "Output",
    "OutputEstimator",
    "PairwiseEstimator",
    "SplitEstimator",
    "TailEstimator",
]
