"""The output: weights from the gradients at the network's output, with no extra pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.fairness.distributed import average_gradients_, sum_numbers, world_size
from fairhuman.fairness.estimators.audited import Audited, Exact
from fairhuman.fairness.estimators.estimator import (
    Estimate,
    Gradient,
    MicroBatch,
    at_output,
    differentiate,
    weighted_sum,
)

LEVELS = (-5.6, 6.6)  # log SNR of SDXL's noise schedule, between its ends' outer hundredths


class OutputGains:
    """How much of an objective's gradient at the output arrives at the parameters.

    With c_i [B, ...] the gradient of L_i at the network's output, F_nij = Σ ⟨c_i, c_j⟩ over the samples in bin n of
    noise levels, and C = Σ_n F_n:

        M_ii ≈ Σ_n κ_in F_nii,        M_ij ≈ C_ij √(M_ii M_jj / (C_ii C_jj))

    The gains κ are learnt from exact steps; the cosines between objectives are taken from the output, where a region's
    is that of its share in the whole.

    Args:
        bins: of noise levels.
        rate: weight of a new step, in (0, 1]; 1 / n for the n-th step while that is more.
    """

    def __init__(self, bins: int = 3, rate: float = 0.3) -> None:
        self.bins, self.rate = bins, rate
        self._logs: Tensor | None = None
        self._counts = torch.zeros(0)

    def features(self, cotangents: Sequence[Tensor | None], levels_b: Tensor | None) -> Tensor:
        """Return F [bins, K, K], float64 on the CPU, of the samples of this process."""
        size = len(cotangents)
        present = {i: c.flatten(1).float() for i, c in enumerate(cotangents) if c is not None}
        samples = next((len(c) for c in present.values()), 0)
        products = torch.zeros(samples, size, size, dtype=torch.float64)
        pairs = [(i, j) for i in present for j in present if j <= i]
        found = [torch.linalg.vecdot(present[i], present[j]) for i, j in pairs]
        for (i, j), row_b in zip(pairs, torch.stack(found).cpu().double() if found else (), strict=True):
            products[:, i, j] = products[:, j, i] = row_b
        place_b = torch.zeros(samples, dtype=torch.long)
        if levels_b is not None:
            low, high = LEVELS
            place_b = ((levels_b.double().cpu() - low) / (high - low) * self.bins).long().clamp(0, self.bins - 1)
        return torch.zeros(self.bins, size, size, dtype=torch.float64).index_add_(0, place_b, products)

    def guess(self, features_nkk: Tensor) -> Tensor:
        """Return M; before the first `learn`, C."""
        total = features_nkk.sum(dim=0)
        ratio = torch.where(total.diagonal() > 0.0, self._parts(features_nkk).sum(dim=0) / total.diagonal(), 0.0).sqrt()
        return total * torch.outer(ratio, ratio)

    def learn(self, features_nkk: Tensor, gram: Tensor) -> None:
        """Take in the exact M of a step; one that isn't finite teaches nothing."""
        if not bool(gram.isfinite().all()):
            return
        parts_nk = self._parts(features_nkk)
        here = (gram.diagonal() > 0.0) & (parts_nk.sum(dim=0) > 0.0)
        if self._logs is None:
            self._logs, self._counts = torch.zeros_like(parts_nk), torch.zeros_like(gram.diagonal())
        self._counts = self._counts + here
        wrong_k = (gram.diagonal() / parts_nk.sum(dim=0)).log()
        # At first all bins learn alike, then each as much as it had to do with it.
        first = self._counts == 1
        blame_nk = torch.where(first, 1.0, parts_nk / parts_nk.sum(dim=0))
        share_k = (1.0 / self._counts).clamp_min(self.rate)
        self._logs = torch.where(here, self._logs + share_k * blame_nk * wrong_k, self._logs)

    def _parts(self, features_nkk: Tensor) -> Tensor:
        """Return κ_in F_nii [bins, K]."""
        squares_nk = features_nkk.diagonal(dim1=1, dim2=2)
        return squares_nk if self._logs is None else squares_nk * self._logs.exp()

    def state_dict(self) -> dict[str, Any]:
        """Return log κ and how often each objective was there."""
        return {"logs": self._logs, "counts": self._counts}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._logs, self._counts = state["logs"], state["counts"]


class OutputEstimator(Audited):
    """One backward pass, as in ordinary training, with weights from `OutputGains`. For any network.

    Args:
        parameters: what to differentiate for.
        every: steps from one exact step to the next, after the first `warm_up`, which are all exact.
        exact: how exact steps are taken.
        warm_up: exact steps at the start, to learn gains from; a single one tells them to a factor of e or so.
        gains: with settings of their own.
    """

    def __init__(
        self,
        parameters: Sequence[nn.Parameter],
        every: int = 32,
        exact: Exact | None = None,
        warm_up: int = 16,
        gains: OutputGains | None = None,
    ) -> None:
        super().__init__(parameters, every, exact)
        self.warm_up = warm_up
        self.gains = gains or OutputGains()

    @property
    def auditing(self) -> bool:
        """Whether this step is taken exactly."""
        return self.steps < self.warm_up or super().auditing

    def _start(self) -> None:
        self._losses: Sequence[Tensor | None] = ()

    def _take(self, micro: MicroBatch) -> None:
        output, cotangents = at_output(micro, "output")
        self._losses = micro.losses
        self._features = self.gains.features(cotangents, output.levels_b)

    def _averaged(self) -> Tensor:
        """Return F [bins, K, K] of the gradients averaged over processes."""
        total = sum_numbers(self._features, self.parameters[0].device, self._group)
        return total / (self._scale * world_size(self._group)) ** 2

    def _estimate(self) -> Estimate:
        gram = self.gains.guess(self._averaged())
        weights = self._weigh(gram)
        loss = weighted_sum(self._losses, weights)
        gradient: Gradient = [None] * len(self.parameters)
        if loss is not None:
            gradient = differentiate(loss, self.parameters)
        average_gradients_([gradient], self.parameters, self._group)
        return Estimate(weights, gradient, gram, exact=False)

    def _guess(self) -> list[float] | None:
        self._seen = self._averaged()
        return None if self.steps < self.warm_up else self._weigh(self.gains.guess(self._seen))

    def _learn(self, gram: Tensor) -> None:
        self.gains.learn(self._seen, gram)

    def state_dict(self) -> dict[str, Any]:
        """Return the count of steps and the gains."""
        return {**super().state_dict(), "gains": self.gains.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.gains.load_state_dict(state["gains"])
