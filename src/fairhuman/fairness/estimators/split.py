"""Mode `split`: a tail with one extra pass for all regions together, whose gradients are separated by position."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fairhuman.fairness.distributed import average_gradients_, sum_over_processes, world_size
from fairhuman.fairness.estimators.cut import CutPoint
from fairhuman.fairness.estimators.estimator import (
    EstimatorError,
    Gradient,
    GramEstimate,
    MicroBatch,
    add_gradients_,
    combine_gradients,
    gram_matrix,
    inner_product,
    output_gradients,
    unaliased,
    weighted_sum,
)
from fairhuman.fairness.estimators.exact import ExactEstimator
from fairhuman.fairness.estimators.output import OutputGains
from fairhuman.fairness.estimators.shares import RegionShares
from fairhuman.fairness.estimators.tail import TailEstimator, floor_eigenvalues

PROJECTION = re.compile(r"\.(to_q|to_k|to_v|to_out\.0)(\.|$)")  # a layer of attention, or of a LoRA on one
LOCAL = re.compile(r"\.(to_q|to_out\.0)(\.|$)")  # its tokens are positions in the image
# Regions may not overlap by more than this share of the smaller one, in the mean of the first steps that have two.
PATIENCE, MOST_OVERLAP = 8, 0.5


@dataclass
class _Passes:
    """The results of two passes through the top.

    rough, refined: weights u of the first pass and v of the second.
    mixture, total: gradients of Σ_{i>0} u_i L_i and of Σ v_i L_i, for the crossings, then the `mixed` parameters.
    parts: gradients for the `local` parameters: of Σ v_i L_i first, then of each region (None: absent).
    gram: M of the local parameters.
    """

    rough: list[float]
    refined: list[float]
    mixture: Gradient
    total: Gradient
    parts: list[Gradient]
    gram: Tensor


class SplitEstimator(TailEstimator):
    """A tail (see `TailEstimator`) with two passes through the top instead of K.

    The first loss covers the whole image, the others regions of it.

    The first pass is that of Σ_{i>0} u_i L_i, with rough weights u from the gradients at the output (`OutputGains`). At
    each layer its gradient is divided among the regions by position (`RegionShares` of the energies
    ‖u_i ∂L_i/∂output‖²). This gives each region's gradients for the parameters of the query and output projections, and
    their Gram matrix gives refined weights v. The second pass is the top of an ordinary backward pass of Σ v_i L_i; the
    first objective's gradient follows by subtraction. The complete Gram matrix gives w. The gradients at the cut are
    then reweighted with w, again by position, and backpropagated through the rest. Only exact steps update the gains:
    if v_0 is small, g_0 is mostly noise here, and its norm would push the gain further down.

    So the direction is Σ w_i g_i exactly if w = v or if there is at most one region. Audits compare complete
    directions, not only weights.

    Args:
        unet, parameters, every, exact, place, trial, close: as in `TailEstimator`.

    Raises:
        ValueError: as in `TailEstimator`; or above every possible cut, parameters other than those of attention
            projections are trained.
        EstimatorError: in the first steps, if regions overlap too much.
    """

    def __init__(
        self,
        unet: nn.Module,
        parameters: Sequence[nn.Parameter],
        every: int = 200,
        exact: ExactEstimator | None = None,
        place: CutPoint | None = None,
        trial: int = 32,
        close: float = 0.985,
    ) -> None:
        self._layers = _layers(unet, list(parameters))
        self._handles: list[Any] = []
        self._uncheckpointed: list[Any] = []  # modules whose gradient checkpointing is switched off
        self.gains = OutputGains()  # for the rough weights
        self._overlaps: list[float] = []  # of the first steps
        super().__init__(unet, parameters, every, exact, place, trial, close)
        known = {p for positions in self._layers.values() for p in positions}
        fitting = {place: top for place, top in self._above.items() if known.issuperset(top)}
        if not fitting or (place is not None and place not in fitting):
            top = self._above[place or next(iter(self._above))]
            unsupported = len(set(top) - known)
            raise ValueError(
                f"{unsupported} of the {len(top)} trained parameters near the output of {type(unet).__name__} aren't "
                "in attention's to_q, to_k, to_v or to_out; mode split needs a LoRA on these alone, tail supports any"
            )
        self._above = fitting

    def _choose(self, place: CutPoint) -> None:
        super()._choose(place)
        top = set(self._above[place])
        chosen = {name: where for name, where in self._layers.items() if top.issuperset(where)}
        self._local = {name: where for name, where in chosen.items() if LOCAL.search(name)}
        self._mixed = [p for name, where in chosen.items() if name not in self._local for p in where]
        modules = dict(self._unet.named_modules())
        self._handles = [modules[name].register_forward_hook(partial(self._keep, name)) for name in self._local]
        self._uncheckpointed = [  # recomputing a layer would replace the recorded outputs
            module
            for name, module in modules.items()
            if getattr(module, "gradient_checkpointing", False)
            and any(local.startswith(f"{name}.transformer_blocks") for local in self._local)
        ]
        for module in self._uncheckpointed:
            module.gradient_checkpointing = False

    def release(self) -> None:
        """Remove cut and hooks from the network; switch its gradient checkpointing on again."""
        super().release()
        for handle in self._handles:
            handle.remove()
        for module in self._uncheckpointed:
            module.gradient_checkpointing = True
        self._uncheckpointed = []

    def _keep(self, name: str, _: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        if output.requires_grad:
            self._recorded[name] = (args[0].detach(), output)

    def _reset(self) -> None:
        super()._reset()
        self._recorded: dict[str, tuple[Tensor, Tensor]] = {}  # inputs and outputs of the local layers
        self._passes: _Passes | None = None
        self._estimated: Gradient | None = None

    def _add(self, micro: MicroBatch) -> None:
        output, cotangents = output_gradients(micro, "split")
        prediction = output.prediction_b
        energies = [None if c is None else c.float().square().sum(dim=1) for c in cotangents]
        self._check_overlap(energies[1:], prediction.device)
        features = sum_over_processes(self.gains.features(cotangents, output.levels_b), prediction.device, self._group)
        self._features = features / world_size(self._group) ** 2
        if self.place is None:
            return
        rough = self._weigh(self.gains.predict(self._features))
        self._shares = RegionShares(
            [None if e is None else w * w * e for w, e in zip(rough[1:], energies[1:], strict=True)]
        )
        self._passes = self._pass_twice(prediction, cotangents, rough, keep=self.auditing)
        if self.auditing:  # before the exact passes free the graph
            self._estimated = self._combined(self._passes, self._weigh(self._passes.gram), keep=True)

    def _check_overlap(self, energies: Sequence[Tensor | None], device: torch.device) -> None:
        """Check the first steps with two regions: shares can't separate regions that overlap too much."""
        if len(self._overlaps) >= PATIENCE:
            return
        present = [energy > 0 for energy in energies if energy is not None]
        pairs = [(a, b) for i, a in enumerate(present) for b in present[:i]]
        shared = [float((a & b).sum() / torch.minimum(a.sum(), b.sum()).clamp(min=1)) for a, b in pairs]
        most, count = sum_over_processes(
            torch.tensor([max(shared, default=0.0), bool(shared)]), device, self._group
        ).tolist()
        self._overlaps += [most / count] if count else []
        if len(self._overlaps) == PATIENCE and (mean := sum(self._overlaps) / PATIENCE) > MOST_OVERLAP:
            raise EstimatorError(
                f"fairness.mode=split can't separate regions that share {100 * mean:.0f} % of the smaller one's area "
                f"(mean of {PATIENCE} steps), more than {100 * MOST_OVERLAP:.0f} %; mode tail can"
            )

    def _pass_twice(self, prediction: Tensor, cotangents: Gradient, rough: list[float], keep: bool) -> _Passes:
        assert self._cut is not None
        crossings, mixed = self._cut.crossings, [self.parameters[p] for p in self._mixed]
        entered, left = zip(*(self._recorded[name] for name in self._local), strict=True)
        owned = [[self.parameters[p] for p in where] for where in self._local.values()]
        local = [parameter for layer in owned for parameter in layer]
        ahead, size = len(crossings), len(crossings) + len(mixed)

        def down(seed: Tensor, wanted: Sequence[Tensor], keep: bool) -> tuple[Gradient, list[Any]]:
            inputs = [*crossings, *mixed, *wanted]
            found = unaliased(torch.autograd.grad(prediction, inputs, seed, retain_graph=keep, allow_unused=True))
            if all(tensor is None for tensor in found[:ahead]):
                raise ValueError("the losses must come from the last call of the U-Net, but don't depend on it")
            return found[:size], found[size:]

        parts: list[Gradient] = [[None] * len(local) for _ in rough]
        mixture: Gradient = [None] * size
        if (seed := weighted_sum(cotangents[1:], rough[1:])) is not None:
            mixture, deltas = down(seed, left, keep=True)
            passed = list(zip(owned, entered, deltas, strict=True))
            for i, weight in enumerate(rough):
                if i > 0 and weight != 0.0:
                    share = partial(self._shares.at, i - 1)
                    parts[i] = [
                        _linear_gradient(p, x, y * (share(y) / weight)) for layer, x, y in passed for p in layer
                    ]
        average_gradients_(parts[1:], local, self._group)
        refined = self._weigh(_with_region_block(self.gains.predict(self._features), gram_matrix(parts)))
        total: Gradient = [None] * size
        if (seed := weighted_sum(cotangents, refined)) is not None:
            total, parts[0] = down(seed, local, keep)
        average_gradients_(parts[:1], local, self._group)
        sides = [mixture[ahead:], total[ahead:]]
        average_gradients_(sides, mixed, self._group)
        mixture[ahead:], total[ahead:] = sides
        return _Passes(rough, refined, mixture, total, parts, _gram(parts, refined))

    def _combined(self, found: _Passes, weights: Sequence[float], keep: bool = False) -> Gradient:
        """Return Σ w_i g_i = w_0 / v_0 Σ v_i g_i + Σ_{i>0} (w_i - v_i w_0 / v_0) g_i, the second sum by position.

        `keep` retains the passes and the graph.
        """
        assert self._cut is not None
        rough, refined = found.rough, found.refined
        first = weights[0] / refined[0] if refined[0] != 0.0 else 0.0
        lacking = [w - first * v for w, v in zip(weights, refined, strict=True)][1:]
        factors = [c / u if u != 0.0 else 0.0 for c, u in zip(lacking, rough[1:], strict=True)]
        parts = [[None if t is None else t.clone() for t in part] for part in found.parts] if keep else found.parts
        local = [p for where in self._local.values() for p in where]
        gradients_at = list(zip(local, combine_gradients(parts, [first, *lacking]), strict=True))
        norms = [r * math.sqrt(max(float(found.gram[i, i]), 0.0)) for i, r in enumerate(rough) if i > 0]
        mean = sum(n * c for n, c in zip(norms, factors, strict=True)) / sum(norms) if any(norms) else 0.0
        ahead = len(self._cut.crossings)
        flows: Gradient = []
        for k, (one, other) in enumerate(zip(found.total, found.mixture, strict=True)):
            share: Tensor | float = mean
            if other is not None and k < ahead:
                share = sum((c * self._shares.at(row, other) for row, c in enumerate(factors) if c), torch.zeros(()))
            scaled: Gradient = [None if one is None else first * one]
            flows += add_gradients_(scaled, [None if other is None else other * share])
        gradients_at += zip(self._mixed, flows[ahead:], strict=True)
        bottom = sorted(set(range(len(self.parameters))) - set(local) - set(self._mixed))
        below = [self.parameters[p] for p in bottom]
        pulled = self._cut.pull_back(flows[:ahead], below, keep)
        average_gradients_([pulled], below, self._group)
        at = dict([*gradients_at, *zip(bottom, pulled, strict=True)])
        return [at[p] for p in range(len(self.parameters))]

    def _estimate(self) -> GramEstimate:
        assert self._passes is not None
        gram = self._passes.gram / self._scale**2
        weights = self._weigh(gram)
        return GramEstimate(weights, self._combined(self._passes, weights), gram, exact=False)

    def finish(self, scale: float) -> GramEstimate:
        """Return the estimated direction or, in an audit, the exact one with the cosine between both."""
        estimated = self._estimated
        estimate = super().finish(scale)
        if estimated is not None:
            one, other = inner_product(estimated, estimated), inner_product(estimate.direction, estimate.direction)
            cosine = float(inner_product(estimated, estimate.direction) / (one * other).sqrt())
            estimate = replace(estimate, cosine=cosine)
        return estimate

    def _estimate_weights(self) -> None:
        """Do nothing: `finish` compares directions."""

    def _update(self, gram: Tensor) -> None:
        self.gains.update(self._features / self._scale**2, gram)
        super()._update(gram)

    def state_dict(self) -> dict[str, Any]:
        """Return also the gains and the overlaps of regions in the first steps."""
        return {**super().state_dict(), "gains": self.gains.state_dict(), "overlaps": self._overlaps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.gains.load_state_dict(state["gains"])
        self._overlaps = list(state["overlaps"])


def _gram(parts: Sequence[Gradient], refined: Sequence[float]) -> Tensor:
    """Return M of g_i, i > 0, and g_0 = (Σ v_i g_i - Σ_{i>0} v_i g_i) / v_0, whose first term is `parts[0]`."""
    sums = gram_matrix(parts)
    change = torch.eye(len(parts), dtype=torch.float64)
    change[0] = (
        torch.tensor([1.0, *(-v for v in refined[1:])], dtype=torch.float64) / refined[0] if refined[0] != 0.0 else 0.0
    )
    gram = change @ sums @ change.T
    gram[0, 0] = gram[0, 0].clamp_min(0.0)
    return floor_eigenvalues(gram)


def _with_region_block(guess: Tensor, regions: Tensor) -> Tensor:
    """Return an estimated M with the regions' block replaced; g_0 keeps its cosines and its relative norm."""
    ratio = torch.where(guess.diagonal() > 0.0, regions.diagonal() / guess.diagonal(), 0.0).sqrt()
    found = ratio[1:][ratio[1:] > 0.0]
    ratio[0] = found.log().mean().exp() if len(found) else 1.0
    corrected = guess * torch.outer(ratio, ratio)
    corrected[1:, 1:] = regions[1:, 1:]
    return corrected


def _layers(unet: nn.Module, parameters: Sequence[nn.Parameter]) -> dict[str, list[int]]:
    """Return the trained parameters of each linear layer in a projection of attention, by the layer's name."""
    place = {id(parameter): p for p, parameter in enumerate(parameters)}
    return {
        name: positions
        for name, module in unet.named_modules()
        if isinstance(module, nn.Linear)
        and PROJECTION.search(name)
        and (positions := [place[id(parameter)] for parameter in module.parameters() if id(parameter) in place])
    }


def _linear_gradient(parameter: nn.Parameter, x: Tensor, delta: Tensor) -> Tensor:
    """Return the gradient of a linear layer's weight, δᵀx, or of its bias, Σ δ."""
    rows = delta.flatten(end_dim=-2)
    found = rows.T @ x.flatten(end_dim=-2).to(rows.dtype) if parameter.dim() == 2 else rows.sum(dim=0)
    return found.to(parameter.dtype)
