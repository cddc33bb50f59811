"""Mode `tail`: the exact Gram matrix of the gradients near the output, and one backward pass through the rest."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.fairness.distributed import average_gradients_, is_sharded
from fairhuman.fairness.estimators.audited import AuditedEstimator, direction_cosine
from fairhuman.fairness.estimators.cut import Cut, CutPoint, cut_points
from fairhuman.fairness.estimators.estimator import (
    Gradient,
    GramEstimate,
    MicroBatch,
    combine_gradients,
    gram_matrix,
    unaliased,
)
from fairhuman.fairness.estimators.exact import ExactEstimator

SMALLEST_EIGENVALUE = 0.02  # of the unit-diagonal Gram matrix: few parameters overstate the agreement of objectives


class TailEstimator(AuditedEstimator):
    """K backward passes through the top of a U-Net give its K gradients, whose Gram matrix stands for M.

    The graph is cut in the decoder (`Cut`). After the K passes the gradients at the cut are combined with the weights,
    and one pass backpropagates them through the rest. So the direction is Σ w_i g_i, exactly; only w is estimated.

    The cut is chosen in a trial, the first steps, which are exact: the highest point whose weights come close enough to
    the exact ones. So any LoRA targets and full fine-tuning work. The first half of the trial is ignored: while a
    LoRA's B is near its zero initialisation, its A has almost no gradient, and layers are less representative.

    Args:
        unet: a diffusers U-Net; the losses of a step must come from its last call.
        parameters: the parameters to differentiate with respect to; some must be in the up blocks.
        every: interval between audits; 0: none after the trial.
        exact: the estimator for exact steps.
        place: where to cut; None: chosen by the trial.
        trial: number of exact steps before the cut is chosen.
        close: required mean cosine to the exact direction; if no point reaches it, the lowest one is used.

    Raises:
        ValueError: a network without up blocks; no trained parameter above `place`, or in the up blocks at all;
            sharded parameters.
    """

    def __init__(
        self,
        unet: nn.Module,
        parameters: Sequence[nn.Parameter],
        every: int = 200,
        exact: ExactEstimator | None = None,
        place: CutPoint | None = None,
        trial: int = 32,
        close: float = 0.99,
    ) -> None:
        if is_sharded(parameters):
            raise ValueError(
                "parameters are sharded, and FSDP2 can't backpropagate through part of a network; "
                "modes exact, output and ema support them"
            )
        self._exact = exact or ExactEstimator(parameters)  # gives access to parts of the K gradients
        super().__init__(parameters, every, self._exact)
        self._unet, self._trial, self._close = unet, trial, close
        self._above = cut_points(unet, self.parameters)
        if place is not None and place not in self._above:
            raise ValueError(f"place must be one of {', '.join(map(str, self._above))}, got {place}")
        self._cosines: list[list[float]] = []  # one row per trial step, one column per cut point
        self._cut: Cut | None = None
        self.place: CutPoint | None = None
        if place is not None:
            self._choose(place)

    @property
    def auditing(self) -> bool:
        """Whether this step is taken exactly."""
        return self.place is None or super().auditing

    def _choose(self, place: CutPoint) -> None:
        self.release()
        self.place, self._cut = place, Cut(self._unet, place)

    def release(self) -> None:
        """Remove the cut from the network."""
        super().release()
        if self._cut is not None:
            self._cut.remove()

    def _reset(self) -> None:
        self._gradients: list[Gradient] = []
        if self._cut is not None:
            self._cut.clear()

    def _add(self, micro: MicroBatch) -> None:
        if self.auditing:
            return
        assert self._cut is not None
        assert self.place is not None
        inputs = [*(self.parameters[p] for p in self._above[self.place]), *self._cut.crossings]
        present = [(i, loss) for i, loss in enumerate(micro.losses) if loss is not None]
        self._gradients = [[None] * len(inputs) for _ in micro.losses]
        for position, (i, loss) in enumerate(present):
            keep = position + 1 < len(present)
            self._gradients[i] = unaliased(torch.autograd.grad(loss, inputs, retain_graph=keep, allow_unused=True))
        crossed = [tensor for gradient in self._gradients for tensor in gradient[len(self._above[self.place]) :]]
        if present and all(tensor is None for tensor in crossed):
            raise ValueError("the losses must come from the last call of the U-Net, but don't depend on it")

    def _estimate(self) -> GramEstimate:
        assert self._cut is not None
        assert self.place is not None
        top = self._above[self.place]
        bottom = sorted(set(range(len(self.parameters))) - set(top))
        tops = [gradient[: len(top)] for gradient in self._gradients]
        average_gradients_(tops, [self.parameters[p] for p in top], self._group)
        gram = floor_eigenvalues(gram_matrix(tops) / self._scale**2)
        weights = self._weigh(gram)
        direction: Gradient = [None] * len(self.parameters)
        for p, gradient in zip(top, combine_gradients(tops, weights), strict=True):
            direction[p] = gradient
        cotangents = combine_gradients([gradient[len(top) :] for gradient in self._gradients], weights)
        below = [self.parameters[p] for p in bottom]
        found = self._cut.pull_back(cotangents, below)
        average_gradients_([found], below, self._group)
        for p, gradient in zip(bottom, found, strict=True):
            direction[p] = gradient
        return GramEstimate(weights, direction, gram, exact=False)

    def _estimate_weights(self) -> list[float] | None:
        return None if self.place is None else self._weights_at(self.place)

    def _update(self, gram: Tensor) -> None:
        """Record a trial step; choose the cut at the end of the trial."""
        if self.place is not None or not bool(gram.isfinite().all()):
            return
        exact = self._weigh(gram)
        self._cosines.append([direction_cosine(self._weights_at(place), exact, gram) for place in self._above])
        if len(self._cosines) >= self._trial:
            means = [statistics.mean(column) for column in zip(*self._cosines[self._trial // 2 :], strict=True)]
            close = [place for place, mean in zip(self._above, means, strict=True) if mean >= self._close]
            self._choose(close[0] if close else list(self._above)[-1])

    def _weights_at(self, place: CutPoint) -> list[float]:
        """Return the weights that a cut at `place` would give in this exact step."""
        return self._weigh(floor_eigenvalues(self._exact.partial_gram(self._above[place])))

    def state_dict(self) -> dict[str, Any]:
        """Return the number of steps, the cut point, and the cosines of the trial."""
        place = None if self.place is None else tuple(self.place)  # a plain tuple, which torch.load accepts
        return {**super().state_dict(), "place": place, "cosines": self._cosines}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self._cosines = state["cosines"]
        if state["place"] is not None:
            self._choose(CutPoint(*state["place"]))


def floor_eigenvalues(gram: Tensor) -> Tensor:
    """Return `gram` with the eigenvalues of its unit-diagonal form raised to at least `SMALLEST_EIGENVALUE`."""
    here = gram.diagonal() > 0.0
    if not bool(gram.isfinite().all()) or not bool(here.any()):
        return gram
    norms = gram.diagonal()[here].sqrt()
    values, vectors = torch.linalg.eigh(gram[here][:, here] / torch.outer(norms, norms))
    unit = vectors @ torch.diag(values.clamp_min(SMALLEST_EIGENVALUE)) @ vectors.T
    sides = norms / unit.diagonal().sqrt()
    wide = gram.clone()
    wide[torch.outer(here, here)] = (unit * torch.outer(sides, sides)).flatten()
    return wide
