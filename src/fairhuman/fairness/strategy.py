"""Strategies: rules that give each of K objectives a weight w_i, so that d = Σ w_i g_i.

Two kinds. A `LossWeighting` needs no gradients for its weights, so a step costs one ordinary backward pass of
Σ w_i L_i; K passes where the Gram matrix is measured, or where it `needs_losses` and micro-batches are accumulated. A
`GradientBalancing` needs the Gram matrix of the K gradients.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn


class Strategy:
    """Base class: state and trainable parameters, both empty by default."""

    needs_gram: ClassVar[bool]
    """Whether its weights come from the Gram matrix of the gradients."""

    def parameters(self) -> list[nn.Parameter]:
        """Return the strategy's own trainable parameters; pass them to the optimiser as a separate group."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step's weights depend on."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if state:
            raise ValueError(f"{type(self).__name__} has no state, got keys {sorted(state)}")


class LossWeighting(Strategy, ABC):
    """Weights from the current and past loss values alone."""

    needs_gram = False

    needs_losses = False
    """Whether the weights of a step depend on the losses of the same step."""

    @abstractmethod
    def weights(self, losses: Sequence[float | None]) -> list[float]:
        """Return w [K] for a step with these losses [K]; None marks an objective that is absent.

        Called once a step. With gradient accumulation, `losses` are those of the whole step if `needs_losses`, and
        those of its first micro-batch otherwise, where only their number counts.
        """

    def observe(self, losses: Sequence[float | None]) -> None:
        """Record the losses [K] of a finished step; add to `.grad` of the strategy's own parameters."""


class GradientBalancing(Strategy, ABC):
    """Weights from the Gram matrix M_ij = g_iᵀ g_j."""

    needs_gram = True

    ridge_used = 0.0
    """Relative ridge that a singular M needed; opposed gradients cancel only up to it, so a shorter d counts as 0."""

    @abstractmethod
    def weights(self, gram: Tensor) -> list[float]:
        """Return w [K] for `gram` [K, K], float64; 0 for an objective whose gradient is zero."""

    @abstractmethod
    def natural_factor(self, weights: Sequence[float], norm: float) -> float:
        """Return the factor s by which s · w has the scale that the true M would give w.

        An estimator may know M only up to a common factor. `norm` is the true ‖Σ w_i g_i‖.
        """
