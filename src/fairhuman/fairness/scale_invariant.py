"""Scale-invariant weighting (SI): the gradient of a sum of logarithms."""

from collections.abc import Sequence

from fairhuman.fairness.strategy import LossWeighting


class ScaleInvariant(LossWeighting):
    """w_i = 1 / L_i, the gradient of Σ log L_i: multiplying a loss by a constant changes nothing.

    A baseline of Navon et al., Multi-Task Learning as a Bargaining Game, ICML 2022.

    Raises:
        ValueError: a loss is not > 0.
    """

    needs_losses = True

    def weights(self, losses: Sequence[float | None]) -> list[float]:
        """Return 1 / L."""
        for i, loss in enumerate(losses):
            if loss is not None and not loss > 0.0:
                raise ValueError(f"losses[{i}] must be > 0 to have a logarithm, got {loss}")
        return [0.0 if loss is None else 1.0 / loss for loss in losses]
