"""The result of one fair step."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class FairStep:
    """The result of one step: `.grad` received d = scale · Σ_i weights_i g_i.

    weights: w [K], float64; 0 for an absent objective.
    losses: [K], of the whole step, averaged over processes; None where absent.
    present: [K], which objectives took part: their gradient isn't zero or, without a Gram matrix, they had a loss.
    gram: M [K, K] of the unscaled gradients, float64; None if it was neither needed nor measured.
    exact: whether `gram` and `weights` come from the K gradients; False if an estimator approximated them.
    cosine: in an audit, cosine of the estimator's direction and the exact one; None in other steps.
    norm: ‖Σ w_i g_i‖ before scaling to the set length.
    scale: the factor that sets the length.
    skipped: a gradient wasn't finite under a `GradScaler`; `.grad` is left non-finite, so that the scaler skips too.
    stationary: Σ w_i g_i was within rounding or the effect of the ridge that a singular M needed, so d = 0: the
        objectives conflict and no direction improves all of them.
    turned: degrees by which a `RateFloor` turned the strategy's direction; None without one, or without a gradient of
        the objective that it guards.
    """

    weights: Tensor
    losses: tuple[float | None, ...]
    present: tuple[bool, ...]
    gram: Tensor | None
    norm: float
    scale: float
    skipped: bool = False
    stationary: bool = False
    exact: bool = True
    cosine: float | None = None
    turned: float | None = None

    @property
    def norms(self) -> Tensor | None:
        """‖g_i‖ [K]."""
        return None if self.gram is None else self.gram.diagonal().sqrt()

    @property
    def cosines(self) -> Tensor | None:
        """cos(g_i, g_j) [K, K]; NaN where a gradient is zero."""
        if self.gram is None or self.norms is None:
            return None
        return self.gram / torch.outer(self.norms, self.norms)

    @property
    def shares(self) -> Tensor | None:
        """Share of each objective in the direction's parts, ‖w_i g_i‖ / Σ_j ‖w_j g_j‖ [K], 0..1; they sum to 1.

        None if `gram` is unknown; NaN if d has no part. Estimated where `exact` is False.
        """
        if self.gram is None or self.norms is None:
            return None
        parts = self.weights.abs() * self.norms
        return parts / parts.sum()

    @property
    def rates(self) -> Tensor | None:
        """Cosine rates: g_iᵀd / (‖g_i‖ ‖d‖) [K], the cosine of each objective's gradient and the direction.

        To first order a step of length ε lowers loss i by ε ‖g_i‖ times its cosine rate; that product, the rate, is
        what the fair strategies trade off (FairHuman, Eq. 5). None if `gram` is unknown; NaN for an absent objective.
        Estimated where `exact` is False.
        """
        if self.gram is None or self.norms is None:
            return None
        along = self.gram @ self.weights
        return along / (self.norms * (self.weights @ along).sqrt())
