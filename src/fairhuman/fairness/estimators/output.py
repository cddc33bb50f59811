"""Mode `output`: weights from the gradients at the network's output, without an extra pass."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.fairness.distributed import average_gradients_, sum_over_processes, world_size
from fairhuman.fairness.estimators.audited import AuditedEstimator, Exact
from fairhuman.fairness.estimators.estimator import (
    Gradient,
    GramEstimate,
    MicroBatch,
    differentiate,
    output_gradients,
    weighted_sum,
)

PRIOR = (1e-3, 1.0)  # strength of α = 0 and of β = 0, in exact steps; of β in those whose λ is off the mean by 1


class OutputGains:
    """Predicts M from the objectives' gradients at the network's output.

    With c_i [B, ...] the gradient of L_i at the network's output and λ_b the noise levels (log SNR) of the samples,
    C_ij = Σ_b ⟨c_ib, c_jb⟩, and λ_i = Σ_b λ_b ‖c_ib‖² / C_ii:

        M_ii ≈ κ_i C_ii,        log κ_i = α_i + β_i λ_i,        M_ij ≈ C_ij √(κ_i κ_j)

    The gain κ_i is the ratio of the squared gradient norms at the parameters and at the output; α and β are fitted to
    exact steps by least squares. Cosines between objectives are those at the output, where a region's cosine to the
    whole image follows from its share of the error.

    Args:
        memory: decay of an exact step's weight at each later one, in (0, 1]: gains change during training.
    """

    def __init__(self, memory: float = 0.95) -> None:
        self.memory = memory
        self._squares_k22 = self._products_k2 = torch.zeros(0)

    def features(self, cotangents: Sequence[Tensor | None], levels_b: Tensor | None) -> Tensor:
        """Return Σ_b ⟨c_ib, c_jb⟩ and Σ_b λ_b ⟨c_ib, c_jb⟩ over this process's samples: [2, K, K], float64, CPU."""
        size = len(cotangents)
        present = {i: c.flatten(1).float() for i, c in enumerate(cotangents) if c is not None}
        pairs = [(i, j) for i in present for j in present if j <= i]
        features = torch.zeros(2, size, size, dtype=torch.float64)
        if not pairs:
            return features
        products_nb = torch.stack([torch.linalg.vecdot(present[i], present[j]) for i, j in pairs]).cpu().double()
        levels = products_nb.new_zeros(products_nb.shape[1]) if levels_b is None else levels_b.cpu().double()
        for (i, j), row_b in zip(pairs, products_nb, strict=True):
            features[:, i, j] = features[:, j, i] = torch.stack([row_b.sum(), row_b @ levels])
        return features

    def predict(self, features: Tensor) -> Tensor:
        """Return M [K, K]; before the first `update`, C."""
        if not len(self._squares_k22):
            return features[0]
        prior = self._squares_k22.new_tensor(PRIOR).diag()
        solved_k2 = torch.linalg.solve(self._squares_k22 + prior, self._products_k2)
        roots = (solved_k2 * _regressors(features)).sum(dim=1).div(2.0).exp()
        return features[0] * torch.outer(roots, roots)

    def update(self, features: Tensor, gram: Tensor) -> None:
        """Update from the exact M of a step; ignore one that isn't finite."""
        if not bool(gram.isfinite().all()):
            return
        norms = features[0].diagonal()
        present = (gram.diagonal() > 0.0) & (norms > 0.0) & norms.isfinite()
        regressors_k2 = torch.where(present[:, None], _regressors(features), 0.0)
        log_gains = torch.where(present, gram.diagonal() / norms, 1.0).log()
        if not len(self._squares_k22):
            self._squares_k22 = torch.zeros(len(present), 2, 2).double()
            self._products_k2 = torch.zeros_like(regressors_k2)
        kept = torch.where(present, self.memory, 1.0)[:, None]
        self._products_k2 = kept * self._products_k2 + regressors_k2 * log_gains[:, None]
        self._squares_k22 = kept[..., None] * self._squares_k22 + regressors_k2[:, :, None] * regressors_k2[:, None]

    def state_dict(self) -> dict[str, Any]:
        """Return the sums of the least-squares fit."""
        return {"squares": self._squares_k22, "products": self._products_k2}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self._squares_k22, self._products_k2 = state["squares"], state["products"]


def _regressors(features: Tensor) -> Tensor:
    """Return the regressors (1, λ_i) [K, 2]; (1, 0) for an absent objective."""
    norms, levels = features.diagonal(dim1=1, dim2=2)
    return torch.stack([torch.ones_like(norms), torch.where(norms > 0.0, levels / norms, 0.0)], dim=1)


class OutputEstimator(AuditedEstimator):
    """One backward pass, as in ordinary training, with weights from `OutputGains`; works for any network.

    Args:
        parameters: the parameters to differentiate with respect to.
        every: interval between exact steps after the first `warm_up` steps, which are all exact.
        exact: the estimator for exact steps.
        warm_up: exact steps at the start, to fit the gains; a single one determines them only to a factor of about e.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], every: int = 32, exact: Exact | None = None, warm_up: int = 16
    ) -> None:
        super().__init__(parameters, every, exact)
        self.warm_up = warm_up
        self.gains = OutputGains()

    @property
    def auditing(self) -> bool:
        """Whether this step is taken exactly."""
        return self.steps < self.warm_up or super().auditing

    def _reset(self) -> None:
        self._losses: Sequence[Tensor | None] = ()

    def _add(self, micro: MicroBatch) -> None:
        output, cotangents = output_gradients(micro, "output")
        self._losses = micro.losses
        self._features = self.gains.features(cotangents, output.levels_b)

    def _averaged(self) -> Tensor:
        """Return the features of the unscaled gradients averaged over processes."""
        total = sum_over_processes(self._features, self.parameters[0].device, self._group)
        return total / (self._scale * world_size(self._group)) ** 2

    def _estimate(self) -> GramEstimate:
        gram = self.gains.predict(self._averaged())
        weights = self._weigh(gram)
        loss = weighted_sum(self._losses, weights)
        gradient: Gradient = [None] * len(self.parameters)
        if loss is not None:
            gradient = differentiate(loss, self.parameters)
        average_gradients_([gradient], self.parameters, self._group)
        return GramEstimate(weights, gradient, gram, exact=False)

    def _estimate_weights(self) -> list[float] | None:
        self._averaged_features = self._averaged()
        return None if self.steps < self.warm_up else self._weigh(self.gains.predict(self._averaged_features))

    def _update(self, gram: Tensor) -> None:
        self.gains.update(self._averaged_features, gram)

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps and the gains."""
        return {**super().state_dict(), "gains": self.gains.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.gains.load_state_dict(state["gains"])
