"""Strengths of methods from pairwise choices with ties.

Davidson's model (On extending the Bradley-Terry model to accommodate ties, JASA 65(329), 1970): with strengths
θ_i = ln π_i and a tie parameter ν = e^δ,

    P(i beats j) = π_i / (π_i + π_j + ν √(π_i π_j)),   P(tie) = ν √(π_i π_j) / (π_i + π_j + ν √(π_i π_j)),

which is a multinomial logit with utilities θ_i, θ_j and δ + (θ_i + θ_j) / 2. Its log-likelihood is concave.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from fairhuman.stats.bootstrap import Array
from fairhuman.stats.estimate import Estimate
from fairhuman.study.answers import Vote
from fairhuman.study.intervals import half_width, index_keys, two_way_variance

Places = NDArray[np.int64]

PRIOR = 0.01  # λ in -λ/2 (Σθ² + δ²): a normal prior of standard deviation 10 around "no difference"


@dataclass(frozen=True, slots=True)
class Strengths:
    """Strengths of methods.

    Attributes:
        of: θ by method with 95 % interval, in natural logarithms that sum to 0; n counts the method's votes.
        ties: ν; 0 if no vote is a tie.
        connected: False if some methods were never compared, not even indirectly; then only the prior relates them.
    """

    of: dict[str, Estimate]
    ties: float
    connected: bool


@dataclass(frozen=True, slots=True)
class _Likelihood:
    """The model for comparisons c of two methods, with outcomes o: first wins, second wins, tie.

    Attributes:
        features_cof: coefficients of each outcome's utility on the parameters: θ of all methods and, with ties, δ.
        outcome_c: observed outcomes.
        tied: whether any outcome is a tie; otherwise ties have probability 0.
    """

    features_cof: Array
    outcome_c: Places
    tied: bool

    def chances(self, parameters_f: Array) -> Array:
        """Probabilities [C, 3]."""
        utilities_co = self.features_cof @ parameters_f
        weights_co = np.exp(utilities_co - utilities_co.max(axis=1, keepdims=True))
        if not self.tied:
            weights_co[:, 2] = 0.0
        return np.asarray(weights_co / weights_co.sum(axis=1, keepdims=True))

    def pulls(self, parameters_f: Array) -> Array:
        """Score vectors: gradient of each comparison's log-likelihood [C, F]."""
        chosen_cf = self.features_cof[np.arange(len(self.outcome_c)), self.outcome_c]
        return np.asarray(chosen_cf - np.einsum("co,cof->cf", self.chances(parameters_f), self.features_cof))

    def loss(self, parameters_f: Array) -> float:
        """Negative log posterior, up to a constant."""
        chosen_c = self.chances(parameters_f)[np.arange(len(self.outcome_c)), self.outcome_c]
        return float(PRIOR / 2 * parameters_f @ parameters_f - np.log(chosen_c).sum())

    def slope(self, parameters_f: Array) -> Array:
        """Gradient of the loss."""
        return np.asarray(PRIOR * parameters_f - self.pulls(parameters_f).sum(axis=0))

    def curvature(self, parameters_f: Array) -> Array:
        """Hessian of the loss."""
        chances_co = self.chances(parameters_f)
        means_cf = np.einsum("co,cof->cf", chances_co, self.features_cof)
        squares_ff = np.einsum("co,cof,cog->fg", chances_co, self.features_cof, self.features_cof)
        return np.asarray(PRIOR * np.eye(len(parameters_f)) + squares_ff - means_cf.T @ means_cf)

    def maximize(self) -> Array:
        """Parameters [F] that minimise the loss."""
        start_f = np.zeros(self.features_cof.shape[2])
        options = {"gtol": 1e-8 * max(1, len(self.outcome_c))}
        found = minimize(self.loss, start_f, jac=self.slope, hess=self.curvature, method="trust-exact", options=options)
        return np.asarray(found.x)


def fit_strengths(votes: Sequence[Vote], methods: Sequence[str]) -> Strengths:
    """Strengths by maximum likelihood with a weak prior, and their intervals.

    A method that always wins would have infinite strength under the likelihood alone; the prior with standard deviation
    10 keeps it finite and is otherwise negligible. With a single method or no votes, all strengths are 0.

    With more than two pictures, ranks give a comparison of each pair; where only the best one is chosen, that is a win
    over each other one, and a tie a tie of every pair.
    Intervals are θ ± t √V with a sandwich estimate of V: the model's Hessian around the two-way clustered variance of
    `fairhuman.study.intervals`, so that several comparisons from one vote count once.
    """
    rows = _comparisons(votes, methods)
    first_c, second_c, outcome_c, vote_c = np.array(rows, np.int64).reshape(-1, 4).T
    tied = bool((outcome_c == 2).any())
    model = _Likelihood(_features(first_c, second_c, len(methods), tied), outcome_c, tied)
    found_f = model.maximize()
    influence_vf = np.zeros((len(votes), len(found_f)))
    np.add.at(influence_vf, vote_c, model.pulls(found_f) @ np.linalg.inv(model.curvature(found_f)))
    theta_m = found_f[: len(methods)] - found_f[: len(methods)].mean()
    of = {
        method: _estimate(votes, method, float(theta_m[place]), influence_vf[:, place])
        for place, method in enumerate(methods)
    }
    return Strengths(of, float(np.exp(found_f[-1])) if tied else 0.0, _connected(first_c, second_c, len(methods)))


def _estimate(votes: Sequence[Vote], method: str, value: float, influence_v: Array) -> Estimate:
    seen = sum(method in vote.shown for vote in votes)
    people, items = [vote.participant for vote in votes], [vote.item for vote in votes]
    counts = index_keys(people)[1], index_keys(items)[1]
    if not seen or min(counts) < 2:
        return Estimate(value, np.nan, np.nan, seen)
    variance = two_way_variance(influence_v, people, items)
    half = half_width(variance, *counts)
    return Estimate(value, value - half, value + half, seen, float(np.sqrt(variance)))


def _comparisons(votes: Sequence[Vote], methods: Sequence[str]) -> list[tuple[int, int, int, int]]:
    """Rows of (first method, second method, outcome, index of the vote); 0 = first wins, 1 = second wins, 2 = tie."""
    number = {method: place for place, method in enumerate(methods)}
    rows = []
    for place, vote in enumerate(votes):
        for at, a in enumerate(vote.shown):
            for b in vote.shown[at + 1 :]:
                score = vote.against(a, b)
                if score is not None:
                    rows.append((number[a], number[b], 2 if score == 0.5 else int(score == 0), place))
    return rows


def _features(first_c: Places, second_c: Places, methods: int, tied: bool) -> Array:
    """Coefficients of each outcome's utility [C, 3 outcomes, θ of all methods and, with ties, δ]."""
    features_cof = np.zeros((len(first_c), 3, methods + tied))
    every = np.arange(len(first_c))
    features_cof[every, 0, first_c] = 1.0
    features_cof[every, 1, second_c] = 1.0
    features_cof[every, 2, first_c] = 0.5
    features_cof[every, 2, second_c] = 0.5
    if tied:
        features_cof[:, 2, -1] = 1.0
    return features_cof


def _connected(first_c: Places, second_c: Places, methods: int) -> bool:
    reached = {0}
    for _ in range(methods):
        for a, b in set(zip(first_c.tolist(), second_c.tolist(), strict=True)):
            if a in reached or b in reached:
                reached |= {a, b}
    return len(reached) == methods
