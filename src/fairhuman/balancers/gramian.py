"""Balancers that torchjd computes from the Gram matrix."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor
from torchjd.aggregation import (
    AlignedMTLWeighting,
    CAGradWeighting,
    DualProjWeighting,
    GradVacWeighting,
    IMTLGWeighting,
    MGDAWeighting,
    PCGradWeighting,
    UPGradWeighting,
)

from fairhuman.fairness import GradientBalancing

WeightRule = Callable[[Tensor], Tensor]


class ScaleFreeBalancer(GradientBalancing, ABC):
    """Weights that don't change when M is multiplied by a constant; an absent objective has weight 0."""

    def weights(self, gram: Tensor) -> list[float]:
        """Return w [K]; the objectives that are present are weighed as if there were no others."""
        w_k = torch.zeros(len(gram), dtype=gram.dtype)
        present = gram.diagonal().nonzero().flatten()
        if len(present):
            gram_pp = gram[present][:, present]
            # torchjd compares with absolute numbers, so M is brought to a mean squared length of 1
            w_k[present] = self._weigh(gram_pp / gram_pp.diagonal().mean(), present, len(gram))
        weights: list[float] = w_k.tolist()
        return weights

    def natural_factor(self, weights: Sequence[float], norm: float) -> float:  # noqa: ARG002 - the signature of all
        """Return 1: the scale of M has no influence."""
        return 1.0

    @abstractmethod
    def _weigh(self, gram_pp: Tensor, present: Tensor, objectives: int) -> Tensor:
        """Return the weights [P] of the P objectives at the positions `present` of K."""


class TorchJDBalancer(ScaleFreeBalancer):
    """A `Weighting` of torchjd.

    Args:
        weighting: from M to w.
    """

    def __init__(self, weighting: WeightRule) -> None:
        self.weighting = weighting

    def _weigh(self, gram_pp: Tensor, present: Tensor, objectives: int) -> Tensor:  # noqa: ARG002
        return self.weighting(gram_pp)


class UPGrad(TorchJDBalancer):
    """Each gradient is projected onto the cone of directions that conflict with none; their mean.

    Quinton, Rey, Jacobian Descent for Multi-Objective Optimization, 2024.
    """

    def __init__(self) -> None:
        super().__init__(UPGradWeighting())


class DualProj(TorchJDBalancer):
    """The mean gradient, projected onto the cone of directions that conflict with none.

    Lopez-Paz, Ranzato, Gradient Episodic Memory for Continual Learning, NeurIPS 2017, Eq. 11.
    """

    def __init__(self) -> None:
        super().__init__(DualProjWeighting())


class MGDA(TorchJDBalancer):
    """The shortest convex combination: min ‖Σ w_i g_i‖ over w ≥ 0, Σ w_i = 1, by Frank-Wolfe.

    Désidéri, Multiple-Gradient Descent Algorithm, 2012; Sener, Koltun, Multi-Task Learning as Multi-Objective
    Optimization, NeurIPS 2018, Algorithm 2.
    """

    def __init__(self) -> None:
        super().__init__(MGDAWeighting())


class CAGrad(TorchJDBalancer):
    """max_d min_i g_iᵀd with ‖d - g_0‖ ≤ c ‖g_0‖ around the mean gradient g_0.

    Liu et al., Conflict-Averse Gradient Descent for Multi-task Learning, NeurIPS 2021.

    Args:
        c: ≥ 0; 0 is the mean gradient, and a large c comes close to MGDA.

    Raises:
        ValueError: c is negative.
    """

    def __init__(self, c: float) -> None:
        super().__init__(CAGradWeighting(c))


class AlignedMTL(TorchJDBalancer):
    """The mean of gradients that were made orthogonal, all of one length.

    Senushkin et al., Independent Component Alignment for Multi-Task Learning, CVPR 2023.

    Args:
        scale_mode: that length from the eigenvalues of M: the smallest, their median or their mean.
    """

    def __init__(self, scale_mode: Literal["min", "median", "rmse"]) -> None:
        super().__init__(AlignedMTLWeighting(scale_mode=scale_mode))


class IMTLG(TorchJDBalancer):
    """Equal projections on all unit gradients: (M w)_i ∝ ‖g_i‖, with Σ w_i = 1.

    Liu et al., Towards Impartial Multi-Task Learning, ICLR 2021. Where the solution has a negative sum, dividing by it
    turns the direction round; `ConFIG` has the same direction without that.
    """

    def __init__(self) -> None:
        super().__init__(IMTLGWeighting())


class RandomOrder(TorchJDBalancer):
    """A `Weighting` of torchjd that draws from torch's global generator: it is lent one of its own here.

    Args:
        weighting: from M to w.
        seed: of the generator; all processes of a run need the same one.
    """

    def __init__(self, weighting: WeightRule, seed: int) -> None:
        super().__init__(weighting)
        self._generator = torch.Generator().manual_seed(seed)

    def _weigh(self, gram_pp: Tensor, present: Tensor, objectives: int) -> Tensor:
        with torch.random.fork_rng(devices=()):
            torch.set_rng_state(self._generator.get_state())
            weights_p = super()._weigh(gram_pp, present, objectives)
            self._generator.set_state(torch.get_rng_state())
        return weights_p

    def state_dict(self) -> dict[str, Any]:
        """Return the generator's state."""
        return {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the generator's state."""
        self._generator.set_state(state["generator"].cpu())


class PCGrad(RandomOrder):
    """From each gradient what conflicts with another one is projected away, in a random order; their sum.

    Yu et al., Gradient Surgery for Multi-Task Learning, NeurIPS 2020, Algorithm 1.

    Args:
        seed: see `RandomOrder`.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(PCGradWeighting(), seed)


class GradVac(RandomOrder):
    """Where two gradients are less aligned than they were on average, one is turned towards the other; their sum.

    Wang et al., Gradient Vaccine, ICLR 2021. The averages φ [K, K] of the cosines start at 0; those of an absent
    objective stay as they were.

    Args:
        beta: weight of a step in the averages, 0..1.
        seed: see `RandomOrder`.

    Raises:
        ValueError: beta is out of range.
    """

    def __init__(self, beta: float, seed: int) -> None:
        self._vaccine = GradVacWeighting(beta)
        super().__init__(self._vaccine, seed)
        self._averages_kk: Tensor | None = None

    def _weigh(self, gram_pp: Tensor, present: Tensor, objectives: int) -> Tensor:
        if self._averages_kk is None:
            self._averages_kk = gram_pp.new_zeros(objectives, objectives)
        block = present[:, None], present
        # torchjd drops its averages when the number of objectives changes, and has no way to set them
        self._vaccine.register_buffer("_phi_t", self._averages_kk[block])
        self._vaccine._state_key = len(present), gram_pp.dtype
        weights_p = super()._weigh(gram_pp, present, objectives)
        self._averages_kk[block] = self._vaccine.get_buffer("_phi_t")
        return weights_p

    def state_dict(self) -> dict[str, Any]:
        """Return the averages and the generator's state."""
        averages = None if self._averages_kk is None else self._averages_kk.clone()
        return {**super().state_dict(), "averages": averages}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._averages_kk = None if state["averages"] is None else state["averages"].cpu().clone()
