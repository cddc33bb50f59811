"""Fair update directions for several objectives. Imports torch alone, so it fits into any training loop.

fair = FairBackward(model.parameters(), MinimumPotentialDelay())
step = fair([loss_global, loss_face, loss_hand])      # instead of loss.backward()
"""

from fairhuman.fairness.alpha_fair import AlphaFair
from fairhuman.fairness.backward import FairBackward, Length
from fairhuman.fairness.dynamic_weight_average import DynamicWeightAverage
from fairhuman.fairness.estimators.ema import EmaEstimator
from fairhuman.fairness.estimators.estimator import Estimator, Output
from fairhuman.fairness.estimators.exact import ExactEstimator
from fairhuman.fairness.estimators.fallback import FallbackEstimator
from fairhuman.fairness.estimators.output import OutputEstimator
from fairhuman.fairness.estimators.pairwise import PairwiseEstimator
from fairhuman.fairness.estimators.split import SplitEstimator
from fairhuman.fairness.estimators.tail import TailEstimator
from fairhuman.fairness.fair_step import FairStep
from fairhuman.fairness.linear_scalarization import LinearScalarization
from fairhuman.fairness.minimum_potential_delay import MinimumPotentialDelay
from fairhuman.fairness.nash_mtl import NashMTL
from fairhuman.fairness.random_loss_weighting import RandomLossWeighting
from fairhuman.fairness.rate_floor import RateFloor
from fairhuman.fairness.scale_invariant import ScaleInvariant
from fairhuman.fairness.solver import SolverInfo, solve, solve_info
from fairhuman.fairness.strategies import STRATEGIES, strategy_named
from fairhuman.fairness.strategy import GradientBalancing, LossWeighting, Strategy
from fairhuman.fairness.uncertainty_weighting import UncertaintyWeighting

__all__ = [
    "STRATEGIES",
    "AlphaFair",
    "DynamicWeightAverage",
    "EmaEstimator",
    "Estimator",
    "ExactEstimator",
    "FairBackward",
    "FairStep",
    "FallbackEstimator",
    "GradientBalancing",
    "Length",
    "LinearScalarization",
    "LossWeighting",
    "MinimumPotentialDelay",
    "NashMTL",
    "Output",
    "OutputEstimator",
    "PairwiseEstimator",
    "RandomLossWeighting",
    "RateFloor",
    "ScaleInvariant",
    "SolverInfo",
    "SplitEstimator",
    "Strategy",
    "TailEstimator",
    "UncertaintyWeighting",
    "solve",
    "solve_info",
    "strategy_named",
]
