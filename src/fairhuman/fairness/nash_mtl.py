"""Nash-MTL: the Nash bargaining solution, α = 1."""

from fairhuman.fairness.alpha_fair import AlphaFair


class NashMTL(AlphaFair):
    """(M w)_i = 1 / w_i: proportional fairness. Navon et al., ICML 2022, Claim 3.1."""

    def __init__(self, ridge: float | None = None) -> None:
        super().__init__(alpha=1.0, ridge=ridge)
