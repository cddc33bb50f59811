"""Base of all amortised estimators: periodic exact steps (audits) calibrate and evaluate the estimate."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist
from torch import Tensor, nn

from fairhuman.fairness.estimators.estimator import Estimator, GramEstimate, MicroBatch, WeightRule
from fairhuman.fairness.estimators.exact import ExactEstimator
from fairhuman.fairness.estimators.pairwise import PairwiseEstimator

Exact = ExactEstimator | PairwiseEstimator


class AuditedEstimator(Estimator):
    """Takes every `every`-th step exactly, starting with the first, and measures the estimate against it.

    Args:
        parameters: the parameters to differentiate with respect to.
        every: interval between exact steps; 0: never.
        exact: the estimator for exact steps; None: `ExactEstimator`, which holds K gradients.
    """

    accumulates = False

    def __init__(self, parameters: Sequence[nn.Parameter], every: int, exact: Exact | None = None) -> None:
        if every < 0:
            raise ValueError(f"every must be >= 0, got {every}")
        self.exact: Exact = exact or ExactEstimator(parameters)
        self.parameters = self.exact.parameters
        self.every = every
        self.steps = 0

    @property
    def auditing(self) -> bool:
        """Whether this step is taken exactly."""
        return self.every > 0 and self.steps % self.every == 0

    def begin(self, weigh: WeightRule, group: dist.ProcessGroup | None) -> None:
        """Start a step."""
        self._weigh, self._group = weigh, group
        self.exact.begin(weigh, group)
        self._reset()

    def add(self, micro: MicroBatch) -> None:
        """Add a micro-batch."""
        self._add(micro)
        if self.auditing:
            self.exact.add(micro)

    def finish(self, scale: float) -> GramEstimate:
        """Return the estimated direction or, in an audit, the exact one."""
        self._scale = scale
        if not self.auditing:
            estimate = self._estimate()
        else:
            gram = self.exact.collect(scale)
            guess = self._estimate_weights()
            self._update(gram)
            weights = self._weigh(gram)  # last, so that what a strategy tells of its last weights is of these
            cosine = None if guess is None else direction_cosine(guess, weights, gram)
            direction = self.exact.combine(weights)
            estimate = GramEstimate(weights, direction, gram, cosine=cosine, rounded_to=self.exact.dtype)
        self.steps += 1
        return estimate

    def release(self) -> None:
        """Forget the last step."""
        self._reset()

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps."""
        return {"steps": self.steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.steps = state["steps"]

    @abstractmethod
    def _reset(self) -> None:
        """Reset what `_add` collected; called before the forward pass."""

    @abstractmethod
    def _add(self, micro: MicroBatch) -> None:
        """Process a micro-batch. In an audit the graph must be retained: exact gradients follow."""

    @abstractmethod
    def _estimate(self) -> GramEstimate:
        """Return the estimated direction."""

    @abstractmethod
    def _estimate_weights(self) -> list[float] | None:
        """Return the weights that `_estimate` would have chosen in this audit; None: not calibrated yet."""

    @abstractmethod
    def _update(self, gram: Tensor) -> None:
        """Update from the exact M of this step; ignore one that isn't finite."""


def direction_cosine(weights: Sequence[float], others: Sequence[float], gram: Tensor) -> float:
    """Return the cosine between Σ w_i g_i and Σ v_i g_i, computed from M."""
    a, b = gram.new_tensor(weights), gram.new_tensor(others)
    product, squares = float(a @ gram @ b), float(a @ gram @ a) * float(b @ gram @ b)
    return product / math.sqrt(squares) if squares > 0.0 else math.nan
