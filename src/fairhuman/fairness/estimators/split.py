"""The split tail: one small extra pass for all regions together, told apart by where in the picture they are."""

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
LOCAL = re.compile(r"\.(to_q|to_out\.0)(\.|$)")  # its tokens are places in the picture
PATIENCE, MOST_OVERLAP = 8, 0.5  # steps after which regions are refused that share more of the smaller one's area


@dataclass
class _Passes:
    """What two passes through the top found.

    rough, near: weights u of the first pass and v of the second one.
    mixture, whole: gradients of Σ_{i>0} u_i L_i and of Σ v_i L_i: of the crossings, then of `mixed` parameters.
    parts: of `local` parameters, of each region alone (None: not there), and of Σ v_i L_i in the place of the first.
    gram: M of the local parameters.
    """

    rough: list[float]
    near: list[float]
    mixture: Gradient
    whole: Gradient
    parts: list[Gradient]
    gram: Tensor


class SplitEstimator(TailEstimator):
    """A tail (see `TailEstimator`) with two passes through the top instead of K, for one loss over the whole picture
    and others over regions of it.

    The first pass is that of Σ_{i>0} u_i L_i, with rough weights u from the gradients at the output (`OutputGains`). At
    each layer its gradient is shared out to the regions by place (`RegionShares`, of the energies ‖u_i ∂L_i/∂output‖²), which
    gives each region's gradients of the queries' and outputs' parameters, and with their Gram matrix better weights v.
    The second pass is the top of an ordinary backward pass, of Σ v_i L_i; the first objective's gradient follows by
    subtraction. The whole Gram matrix gives w. With it the gradients at the cut are weighed anew, by place again, and
    sent down. The gains learn from exact steps alone: where v_0 is small, g_0 is mostly noise here, whose length would
    teach a still smaller one.

    So with w = v, with one region, or with none the direction is Σ w_i g_i exactly. Audits compare whole directions,
    not weights alone.

    Args:
        unet, parameters, every, exact, place, trial, close: as of `TailEstimator`.

    Raises:
        ValueError: as `TailEstimator`; above each place where the network can be cut something else than projections
            of attention is trained.
        EstimatorError: in the first steps, of regions that lie in one another.
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
        self.gains = OutputGains()  # of the rough weights
        self._overlaps: list[float] = []  # of the first steps
        super().__init__(unet, parameters, every, exact, place, trial, close)
        known = {p for positions in self._layers.values() for p in positions}
        fitting = {place: top for place, top in self._above.items() if known.issuperset(top)}
        if not fitting or (place is not None and place not in fitting):
            top = self._above[place or next(iter(self._above))]
            others = len(set(top) - known)
            raise ValueError(
                f"{others} of the {len(top)} trained parameters near the output of {type(unet).__name__} aren't those "
                "of attention's to_q, to_k, to_v and to_out; mode split needs a LoRA on these alone, tail takes any"
            )
        self._above = fitting

    def _choose(self, place: CutPoint) -> None:
        super()._choose(place)
        for handle in self._handles:
            handle.remove()
        top = set(self._above[place])
        chosen = {name: where for name, where in self._layers.items() if top.issuperset(where)}
        self._local = {name: where for name, where in chosen.items() if LOCAL.search(name)}
        self._mixed = [p for name, where in chosen.items() if name not in self._local for p in where]
        modules = dict(self._unet.named_modules())
        self._passed: dict[str, tuple[Tensor, Tensor]] = {}  # what entered and left the local layers
        self._handles = [modules[name].register_forward_hook(partial(self._keep, name)) for name in self._local]
        for name, module in modules.items():  # a layer that is computed again has other outputs
            if getattr(module, "gradient_checkpointing", False) and any(
                local.startswith(f"{name}.transformer_blocks") for local in self._local
            ):
                module.gradient_checkpointing = False

    def _keep(self, name: str, _: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        if output.requires_grad:
            self._passed[name] = (args[0].detach(), output)

    def _start(self) -> None:
        super()._start()
        self._passed = {}
        self._found: _Passes | None = None
        self._guessed: Gradient | None = None

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
        self._found = self._pass_twice(prediction, cotangents, rough, keep=self.auditing)
        if self.auditing:  # before the exact passes free the graph
            self._guessed = self._combined(self._found, self._weigh(self._found.gram), keep=True)

    def _check_overlap(self, energies: Sequence[Tensor | None], device: torch.device) -> None:
        """Look at the first steps that have two regions: shares can't tell regions apart that lie in one another."""
        if len(self._overlaps) >= PATIENCE:
            return
        there = [energy > 0 for energy in energies if energy is not None]
        pairs = [(a, b) for i, a in enumerate(there) for b in there[:i]]
        shared = [float((a & b).sum() / torch.minimum(a.sum(), b.sum()).clamp(min=1)) for a, b in pairs]
        most, count = sum_over_processes(
            torch.tensor([max(shared, default=0.0), bool(shared)]), device, self._group
        ).tolist()
        self._overlaps += [most / count] if count else []
        if len(self._overlaps) == PATIENCE and (mean := sum(self._overlaps) / PATIENCE) > MOST_OVERLAP:
            raise EstimatorError(
                f"fairness.mode=split can't tell regions apart that share {mean:.0%} of the smaller one's area, "
                f"more than {MOST_OVERLAP:.0%}, mean of {PATIENCE} steps; mode tail can"
            )

    def _pass_twice(self, prediction: Tensor, cotangents: Gradient, rough: list[float], keep: bool) -> _Passes:
        assert self._cut is not None
        crossings, mixed = self._cut.crossings, [self.parameters[p] for p in self._mixed]
        entered, left = zip(*(self._passed[name] for name in self._local), strict=True)
        owned = [[self.parameters[p] for p in where] for where in self._local.values()]
        local = [parameter for layer in owned for parameter in layer]
        ahead, size = len(crossings), len(crossings) + len(mixed)

        def down(seed: Tensor, wanted: Sequence[Tensor], keep: bool) -> tuple[Gradient, list[Any]]:
            inputs = [*crossings, *mixed, *wanted]
            found = unaliased(torch.autograd.grad(prediction, inputs, seed, retain_graph=keep, allow_unused=True))
            if all(tensor is None for tensor in found[:ahead]):
                raise ValueError("the losses must come from the last call of the U-Net, and they don't")
            return found[:size], found[size:]

        parts: list[Gradient] = [[None] * len(local) for _ in rough]
        mixture: Gradient = [None] * size
        if (seed := weighted_sum(cotangents[1:], rough[1:])) is not None:
            mixture, deltas = down(seed, left, keep=True)
            passed = list(zip(owned, entered, deltas, strict=True))
            for i, weight in enumerate(rough):
                if i > 0 and weight != 0.0:
                    share = partial(self._shares.at, i - 1)
                    parts[i] = [_of_linear(p, x, y * (share(y) / weight)) for layer, x, y in passed for p in layer]
        average_gradients_(parts[1:], local, self._group)
        near = self._weigh(_replaced(self.gains.predict(self._features), gram_matrix(parts)))
        whole: Gradient = [None] * size
        if (seed := weighted_sum(cotangents, near)) is not None:
            whole, parts[0] = down(seed, local, keep)
        average_gradients_(parts[:1], local, self._group)
        sides = [mixture[ahead:], whole[ahead:]]
        average_gradients_(sides, mixed, self._group)
        mixture[ahead:], whole[ahead:] = sides
        return _Passes(rough, near, mixture, whole, parts, _gram(parts, near))

    def _combined(self, found: _Passes, weights: Sequence[float], keep: bool = False) -> Gradient:
        """Return Σ w_i g_i = w_0 / v_0 Σ v_i g_i + Σ_{i>0} (w_i - v_i w_0 / v_0) g_i, the latter by place.

        `keep`: the passes, and the graph.
        """
        assert self._cut is not None
        rough, near = found.rough, found.near
        first = weights[0] / near[0] if near[0] != 0.0 else 0.0
        lacking = [w - first * v for w, v in zip(weights, near, strict=True)][1:]
        factors = [c / u if u != 0.0 else 0.0 for c, u in zip(lacking, rough[1:], strict=True)]
        parts = [[None if t is None else t.clone() for t in part] for part in found.parts] if keep else found.parts
        local = [p for where in self._local.values() for p in where]
        found_at = list(zip(local, combine_gradients(parts, [first, *lacking]), strict=True))
        norms = [r * math.sqrt(max(float(found.gram[i, i]), 0.0)) for i, r in enumerate(rough) if i > 0]
        mean = sum(n * c for n, c in zip(norms, factors, strict=True)) / sum(norms) if any(norms) else 0.0
        ahead = len(self._cut.crossings)
        flows: Gradient = []
        for k, (one, other) in enumerate(zip(found.whole, found.mixture, strict=True)):
            share: Tensor | float = mean
            if other is not None and k < ahead:
                share = sum((c * self._shares.at(row, other) for row, c in enumerate(factors) if c), torch.zeros(()))
            scaled: Gradient = [None if one is None else first * one]
            flows += add_gradients_(scaled, [None if other is None else other * share])
        found_at += zip(self._mixed, flows[ahead:], strict=True)
        bottom = sorted(set(range(len(self.parameters))) - set(local) - set(self._mixed))
        below = [self.parameters[p] for p in bottom]
        pulled = self._cut.pull_back(flows[:ahead], below, keep)
        average_gradients_([pulled], below, self._group)
        at = dict([*found_at, *zip(bottom, pulled, strict=True)])
        return [at[p] for p in range(len(self.parameters))]

    def _estimate(self) -> GramEstimate:
        assert self._found is not None
        gram = self._found.gram / self._scale**2
        weights = self._weigh(gram)
        return GramEstimate(weights, self._combined(self._found, weights), gram, exact=False)

    def finish(self, scale: float) -> GramEstimate:
        """Return the estimated direction or, in an audit, the exact one and the cosine of both."""
        guessed = self._guessed
        estimate = super().finish(scale)
        if guessed is not None:
            one, other = inner_product(guessed, guessed), inner_product(estimate.direction, estimate.direction)
            cosine = float(inner_product(guessed, estimate.direction) / (one * other).sqrt())
            estimate = replace(estimate, cosine=cosine)
        return estimate

    def _estimate_weights(self) -> None:
        """See `finish`."""

    def _update(self, gram: Tensor) -> None:
        self.gains.update(self._features / self._scale**2, gram)
        super()._update(gram)

    def state_dict(self) -> dict[str, Any]:
        """Return also the gains, and how much regions overlapped in the first steps."""
        return {**super().state_dict(), "gains": self.gains.state_dict(), "overlaps": self._overlaps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        super().load_state_dict(state)
        self.gains.load_state_dict(state["gains"])
        self._overlaps = list(state["overlaps"])


def _gram(parts: Sequence[Gradient], near: Sequence[float]) -> Tensor:
    """M of g_i, i > 0, and g_0 = (Σ v_i g_i - Σ_{i>0} v_i g_i) / v_0, whose first term is `parts[0]`."""
    sums = gram_matrix(parts)
    change = torch.eye(len(parts), dtype=torch.float64)
    change[0] = torch.tensor([1.0, *(-v for v in near[1:])], dtype=torch.float64) / near[0] if near[0] != 0.0 else 0.0
    gram = change @ sums @ change.T
    gram[0, 0] = gram[0, 0].clamp_min(0.0)
    return floor_eigenvalues(gram)


def _replaced(guess: Tensor, regions: Tensor) -> Tensor:
    """A guess of M with the regions' block as found, and the first objective's norm and cosines against theirs kept."""
    ratio = torch.where(guess.diagonal() > 0.0, regions.diagonal() / guess.diagonal(), 0.0).sqrt()
    found = ratio[1:][ratio[1:] > 0.0]
    ratio[0] = found.log().mean().exp() if len(found) else 1.0
    mended = guess * torch.outer(ratio, ratio)
    mended[1:, 1:] = regions[1:, 1:]
    return mended


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


def _of_linear(parameter: nn.Parameter, x: Tensor, delta: Tensor) -> Tensor:
    """Return the gradient of a linear layer's weight, δᵀx, or of its bias, Σ δ."""
    rows = delta.flatten(end_dim=-2)
    found = rows.T @ x.flatten(end_dim=-2).to(rows.dtype) if parameter.dim() == 2 else rows.sum(dim=0)
    return found.to(parameter.dtype)
