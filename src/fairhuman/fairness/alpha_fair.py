"""Alpha-fair directions: one family from the plain sum (α → 0) to max-min (α → ∞)."""

from collections.abc import Sequence

from torch import Tensor

from fairhuman.fairness.solver import SolverInfo, solve_info
from fairhuman.fairness.strategy import GradientBalancing


class AlphaFair(GradientBalancing):
    """(M w)_i = w_i^(-1/α): the direction that maximises the α-fair utility of the progress g_iᵀ d of all objectives.

    Ban, Ji, Fair Resource Allocation in Multi-Task Learning (FairGrad), ICML 2024, Eq. 6. `info` holds the solver's
    last result.

    Args:
        alpha: α > 0.
        ridge: see `solve_info`.
    """

    def __init__(self, alpha: float = 2.0, ridge: float | None = None) -> None:
        if not alpha > 0.0:
            raise ValueError(f"alpha must be > 0, got {alpha}")
        self.alpha = alpha
        self.ridge = ridge
        self.info: SolverInfo | None = None

    def weights(self, gram: Tensor) -> list[float]:
        """Solve for w [K]."""
        self.info = solve_info(gram, self.alpha, self.ridge)
        self.ridge_used = self.info.ridge if self.ridge is None else 0.0
        weights: list[float] = self.info.weights.tolist()
        return weights

    def natural_factor(self, weights: Sequence[float], norm: float) -> float:
        """Return s = (Σ w^(1-1/α) / ‖d‖²)^(α/(1+α)), from wᵀ M w = Σ w^(1-1/α), which holds for the true w."""
        if not norm > 0.0:
            return 1.0
        total = sum(w ** (1.0 - 1.0 / self.alpha) for w in weights if w > 0.0)
        return float((total / norm**2) ** (self.alpha / (1.0 + self.alpha)))
