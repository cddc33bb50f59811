"""Minimum Potential Delay (MPD): the rule of FairHuman, α = 2."""

from fairhuman.fairness.alpha_fair import AlphaFair


class MinimumPotentialDelay(AlphaFair):
    """(M w)_i = w_i^(-1/2), from min_d Σ_i 1 / (g_iᵀ d) with ‖d‖ ≤ r. FairHuman, ICCV 2025, Eqs 5-6."""

    def __init__(self, ridge: float | None = None) -> None:
        super().__init__(alpha=2.0, ridge=ridge)
