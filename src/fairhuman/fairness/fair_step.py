"""What a step did."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class FairStep:
    """What a step did: `.grad` received d = scale · Σ_i weights_i g_i.

    weights: w [K], float64; 0 for an absent objective.
    losses: [K], of the whole step, mean over processes; None where absent.
    present: [K], which objectives took part (their gradient isn't zero, or, without a Gram matrix, they had a loss).
    gram: M [K, K] of the unscaled gradients, float64; None where no gradients were needed and `measure` was off.
    exact: `gram` and `weights` are those of the K gradients; False where an estimator guessed them.
    cosine: in an audit, between what the estimator would have done and the exact direction; None in other steps.
    norm: ‖Σ w_i g_i‖ before the length was set.
    scale: the factor that set it.
    skipped: a gradient wasn't finite under a `GradScaler`, and `.grad` holds non-finite values, so that it skips too.
    stationary: Σ w_i g_i was nothing but rounding or the trace of a ridge, so d = 0: the objectives conflict and no
        direction helps them all.
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
