"""Fall back from a cheap estimator to a more expensive one if its audits are bad."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed as dist

from fairhuman.fairness.estimators.estimator import Estimator, GramEstimate, MicroBatch, WeightRule

_LOG = logging.getLogger(__name__)
PATIENCE = 3  # audits in the mean that is compared with the limit


class FallbackEstimator(Estimator):
    """Uses the first of several estimators until the mean cosine of its last three audits falls below a limit.

    From the next step on it uses the next estimator, permanently, releases the one before, and logs a warning.

    Args:
        estimators: from the cheapest to the most expensive; the last one is never replaced.
        limit: minimum mean cosine to the exact direction, in [-1, 1].

    Raises:
        ValueError: no estimator, or a limit out of range.
    """

    def __init__(self, estimators: Sequence[Estimator], limit: float = 0.9) -> None:
        if not estimators:
            raise ValueError("estimators is empty")
        if not -1.0 <= limit <= 1.0:
            raise ValueError(f"limit must be in [-1, 1], got {limit}")
        self.estimators = list(estimators)
        self.limit = limit
        self.position = 0
        self._cosines: list[float] = []

    @property
    def current(self) -> Estimator:
        """The estimator in use."""
        return self.estimators[self.position]

    @property
    def accumulates(self) -> bool:
        """Whether a step may have several micro-batches."""
        return self.current.accumulates

    def begin(self, weigh: WeightRule, group: dist.ProcessGroup | None) -> None:
        """Start a step."""
        self.current.begin(weigh, group)

    def add(self, micro: MicroBatch) -> None:
        """Add a micro-batch."""
        self.current.add(micro)

    def finish(self, scale: float) -> GramEstimate:
        """Return the direction; after an audit, fall back if needed."""
        estimate = self.current.finish(scale)
        if estimate.cosine is not None and estimate.cosine == estimate.cosine:
            self._cosines = [*self._cosines, estimate.cosine][-PATIENCE:]
            mean = sum(self._cosines) / len(self._cosines)
            if len(self._cosines) == PATIENCE and mean < self.limit and self.position + 1 < len(self.estimators):
                before = type(self.current).__name__
                self.current.release()
                self.position += 1
                self._cosines = []
                after = type(self.current).__name__
                _LOG.warning("mean cosine of %s's audits is %.3f < %.3f: now %s", before, mean, self.limit, after)
        return estimate

    def release(self) -> None:
        """Release the estimator in use; those before were released, and those after have changed nothing."""
        self.current.release()

    def state_dict(self) -> dict[str, Any]:
        """Return the index of the estimator in use, its last audits, and all states."""
        states = [estimator.state_dict() for estimator in self.estimators]
        return {"position": self.position, "cosines": self._cosines, "estimators": states}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.position, self._cosines = state["position"], list(state["cosines"])
        for estimator, own in zip(self.estimators, state["estimators"], strict=True):
            estimator.load_state_dict(own)
        for estimator in self.estimators[: self.position]:
            estimator.release()
