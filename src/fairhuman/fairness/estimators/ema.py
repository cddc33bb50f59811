"""Mode `ema`: weights from a moving average of earlier Gram matrices, for large or accumulated batches."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.fairness.distributed import average_gradients_, present_in_any_process
from fairhuman.fairness.estimators.audited import AuditedEstimator, Exact
from fairhuman.fairness.estimators.estimator import (
    Gradient,
    GramEstimate,
    MicroBatch,
    add_gradients_,
    differentiate,
    weighted_sum,
)

RATE = 0.3  # weight of a new step in the average


class RunningGram:
    """Moving average of Gram matrices: of the logarithm of each gradient's norm and the cosine of each pair.

    The n-th step has the weight `RATE`, or 1 / n if that is more. Entries of absent objectives are not updated.
    """

    def __init__(self) -> None:
        self._norms: Tensor | None = None
        self._cosines = self._counts = torch.zeros(0, 0, dtype=torch.float64)

    def predict(self) -> Tensor | None:
        """Return M [K, K], with zeros for objectives not seen yet; None before the first `update`."""
        return None if self._norms is None else self._cosines * torch.outer(self._norms.exp(), self._norms.exp())

    def update(self, gram: Tensor) -> None:
        """Update from the exact M of a step; ignore one that isn't finite."""
        if not bool(gram.isfinite().all()):
            return
        present = gram.diagonal() > 0.0
        norms = gram.diagonal().sqrt()
        if self._norms is None:
            self._norms = torch.zeros_like(norms)
            self._cosines = self._counts = torch.zeros_like(gram)
        self._counts = self._counts + torch.outer(present, present)
        share = torch.where(torch.outer(present, present), (1.0 / self._counts).clamp_min(RATE), 0.0)
        cosines = gram / torch.outer(norms, norms)
        self._norms = torch.where(present, torch.lerp(self._norms, norms.log(), share.diagonal()), self._norms)
        self._cosines = torch.where(share > 0.0, torch.lerp(self._cosines, cosines, share), self._cosines)

    def state_dict(self) -> dict[str, Any]:
        """Return averages and counts."""
        return {"norms": self._norms, "cosines": self._cosines, "counts": self._counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._norms, self._cosines, self._counts = state["norms"], state["cosines"], state["counts"]


class EmaEstimator(AuditedEstimator):
    """One backward pass with the weights of the average Gram matrix.

    For steps of at least 16 samples: with fewer, the best weights depend on the drawn noise levels and areas, which an
    average cannot follow. An objective has weight 0 until the first exact step that contains it. With accumulation, one
    that the step lacks has weight 0 only if the micro-batches tell which are `present`.

    Args:
        parameters: the parameters to differentiate with respect to.
        every: interval between exact steps; only these update the average.
        exact: the estimator for exact steps.
    """

    accumulates = True

    def __init__(self, parameters: Sequence[nn.Parameter], every: int = 8, exact: Exact | None = None) -> None:
        super().__init__(parameters, every, exact)
        if every == 0:
            raise ValueError("every must be > 0: the moving average is updated by exact steps alone")
        self.average = RunningGram()

    @property
    def auditing(self) -> bool:
        """Whether this step is taken exactly: also as long as no exact step was finite."""
        return super().auditing or self.average.predict() is None

    def _reset(self) -> None:
        self._gradient: Gradient = [None] * len(self.parameters)
        self._gram: Tensor | None = None
        self._weights: list[float] = []

    def _add(self, micro: MicroBatch) -> None:
        losses = micro.losses
        if not self._weights and (gram := self.average.predict()) is not None:
            present = micro.present
            if present is None:  # not known yet while accumulating; an audit estimates for all
                unknown = self.auditing or not micro.last
                here = [unknown or loss is not None for loss in losses]
                present = present_in_any_process(here, self.parameters[0].device, self._group)
            present_k = torch.tensor(present, dtype=gram.dtype)
            self._gram = gram * torch.outer(present_k, present_k)
            self._weights = self._weigh(self._gram)
        loss = None if self.auditing else weighted_sum(losses, self._weights)
        if loss is not None:
            self._gradient = add_gradients_(self._gradient, differentiate(loss, self.parameters))

    def _estimate(self) -> GramEstimate:
        assert self._gram is not None
        average_gradients_([self._gradient], self.parameters, self._group)
        return GramEstimate(self._weights, self._gradient, self._gram, exact=False)

    def _estimate_weights(self) -> list[float] | None:
        return self._weights or None

    def _update(self, gram: Tensor) -> None:
        self.average.update(gram)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the average."""
        return {**super().state_dict(), "average": self.average.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.average.load_state_dict(state["average"])
