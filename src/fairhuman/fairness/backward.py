"""`FairBackward` replaces `loss.backward()`: it takes K losses and writes one fair direction into `.grad`."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairhuman.fairness.distributed import (
    as_shard,
    average_losses,
    is_sharded,
    scalar_values,
    sum_over_shards,
    world_size,
)
from fairhuman.fairness.estimators.estimator import (
    Estimator,
    GramEstimate,
    MicroBatch,
    Output,
    weighted_sum,
    with_zero_losses,
)
from fairhuman.fairness.estimators.exact import ExactEstimator
from fairhuman.fairness.fair_step import FairStep
from fairhuman.fairness.rate_floor import RateFloor
from fairhuman.fairness.strategy import GradientBalancing, LossWeighting, Strategy

Length = Literal["radius", "clip", "scalarized"]


class FairBackward:
    """Add a strategy's direction to `.grad`.

        fair = FairBackward(model.parameters(), MinimumPotentialDelay())
        step = fair([loss_global, loss_face, loss_hand])      # instead of loss.backward()
        optimizer.step()

    Gradient accumulation: call `fair(losses, sync=False)` for all micro-batches but the last. The K gradients are
    summed over micro-batches and weighted once at the end.

    Several processes: gradients are averaged over processes here, before the Gram matrix is built, so all replicas take
    the same step; `DistributedDataParallel` isn't needed, but does no harm. Parameters sharded by FSDP2 (`fully_shard`)
    stay sharded: the K gradients are shards, and M is the sum of the K x K matrices of all processes.

    fp16: pass the `GradScaler` and unscaled losses. The Gram matrix is that of the unscaled gradients, `.grad` is left
    scaled for `scaler.step(optimizer)`, and an overflow skips the step as usual. Where no loss has a weight, `.grad`
    stays None everywhere: call neither `scaler.step` nor `scaler.update` then, as a scaler demands a gradient.

    Length of d = s Σ w_i g_i, which replaces gradient clipping:
        radius: ‖d‖ = r, the constraint of FairHuman's Eq. 6.
        clip: unchanged, but at most r.
        scalarized: that of the plain sum, ‖Σ g_i‖. A loss weighting has no Gram matrix; its length is unchanged.
    SGD steps by d itself, so `radius` fixes its step length. Adam divides by a running gradient magnitude, so it
    ignores a constant factor, but not a length that varies between steps: small gradients make d long
    (‖d‖ ~ ‖g‖^(-1/3) for MPD). `radius` removes that variation.

    Args:
        parameters: the trained parameters, any iterable; duplicates and frozen ones are dropped.
        strategy: see `fairhuman.fairness.STRATEGIES`.
        length: how ‖d‖ is set.
        radius: r > 0.
        batched: compute the K gradients in one batched pass; faster with gradient checkpointing. See `ExactEstimator`.
        estimator: how a `GradientBalancing` gets its Gram matrix; None: the exact one.
        scaler: the `torch.amp.GradScaler` of fp16 training.
        names: of the objectives, for error messages.
        process_group: as in `torch.distributed`; None: the default group.

    Raises:
        ValueError: no parameter to train, one on Apple's GPU, a setting out of range, or an option that sharded
            parameters don't support: `batched`, a `scaler`, an estimator that cuts the graph.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        strategy: Strategy,
        *,
        length: Length = "radius",
        radius: float = 1.0,
        batched: bool = False,
        estimator: Estimator | None = None,
        scaler: torch.amp.GradScaler | None = None,
        names: Sequence[str] | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        self.parameters = list(dict.fromkeys(p for p in parameters if p.requires_grad))
        if not self.parameters:
            raise ValueError("parameters is empty, all are frozen, or the generator is exhausted: nothing to train")
        if length not in ("radius", "clip", "scalarized"):
            raise ValueError(f"length must be radius, clip or scalarized, got {length!r}")
        if not radius > 0.0:
            raise ValueError(f"radius must be > 0, got {radius}")
        if any(parameter.device.type == "mps" for parameter in self.parameters):
            raise ValueError(
                "parameters must be on a CPU or a CUDA device: Apple's GPU has no float64, in which losses are summed"
            )
        self._sharded = is_sharded(self.parameters)
        if self._sharded and scaler is not None and scaler.is_enabled():
            raise ValueError("scaler must be None where parameters are sharded: train them in bf16 or fp32")
        self.strategy = strategy
        self.length = length
        self.radius = radius
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.names = names
        self.process_group = process_group
        self.skipped_steps = 0
        self.estimator: Estimator = estimator or ExactEstimator(self.parameters, batched)
        self._loss_estimator = ExactEstimator(self.parameters, batched)
        self._start_step()

    def _start_step(self) -> None:
        self.estimator.begin(self._balance, self.process_group)
        self._loss_estimator.begin(self._weigh_losses, self.process_group)
        self._losses: list[Tensor | None] = []
        self._totals: list[float | None] = []
        self._weights: list[float] | None = None  # chosen before the backward pass; None: they need the Gram matrix

    def __call__(
        self,
        losses: Sequence[Tensor | None],
        *,
        output: Output | None = None,
        sync: bool = True,
        measure: bool = False,
        present: Sequence[bool] | None = None,
    ) -> FairStep | None:
        """Process K scalar losses (None: absent). Return the step's result, or None while accumulating.

        Args:
            losses: unscaled; with accumulation, already divided so that their sum is the step's loss.
            output: of the network, for estimators that need it.
            sync: whether this is the last micro-batch of the step.
            measure: compute K gradients even if the strategy doesn't need them, so that `gram` is known. Must be equal
                for all micro-batches of a step.
            present: K flags, equal in all processes: which objectives the whole step has in any of them. For
                `EmaEstimator`, which chooses the weights of accumulated losses at the first micro-batch; None: it
                weighs all K, and one that is absent bends the direction.

        Raises:
            ValueError: a loss isn't a scalar, depends on no parameter or is of an objective that isn't `present`; their
                number changed within a step; or the estimator supports only one micro-batch per step.
            FloatingPointError: a loss or gradient isn't finite, and there is no `GradScaler` to skip the step.
                After any error the step is discarded, including its earlier micro-batches.
        """
        try:
            scalars = [None if loss is None else loss.reshape(()) for loss in self._checked(losses, present)]
            self._add(MicroBatch(scalars, output, sync, present), measure)
            return self._finish() if sync else None
        except BaseException:
            self._start_step()
            raise

    def _add(self, micro: MicroBatch, measure: bool) -> None:
        """Differentiate a micro-batch; choose the weights first if they don't need the K gradients."""
        first, losses = not self._losses, micro.losses
        values = [None if loss is None else loss.detach().double() for loss in losses]
        self._losses = values if first else [_sum(a, b) for a, b in zip(self._losses, values, strict=True)]
        if self._sharded:
            losses = with_zero_losses(losses, micro.output, self.parameters[0].device, self.process_group)
        scaled = (
            losses if self.scaler is None else [None if loss is None else self.scaler.scale(loss) for loss in losses]
        )
        if not isinstance(self.strategy, LossWeighting):
            if not ((first and micro.last) or self.estimator.accumulates):
                raise ValueError(f"{type(self.estimator).__name__} supports one micro-batch per step; use EmaEstimator")
            self.estimator.add(replace(micro, losses=scaled))
            return
        if first and not measure:
            if not self.strategy.needs_losses:
                self._weights = self.strategy.weights([None if loss is None else 0.0 for loss in losses])
            elif micro.last and _finite(totals := self._total_losses()):
                self._weights = self.strategy.weights(totals)
        self._loss_estimator.add(MicroBatch(scaled if self._weights is None else [weighted_sum(scaled, self._weights)]))

    def _finish(self) -> FairStep:
        """Choose the weights, set the length, write `.grad`."""
        factor = self.scaler.get_scale() if self.scaler else 1.0
        losses = self._totals = self._total_losses()
        self._require_finite(losses, "")
        loss_weighting = isinstance(self.strategy, LossWeighting)
        estimate = (self._loss_estimator if loss_weighting else self.estimator).finish(factor)
        norm = self._norm(estimate.direction) / factor
        usable = math.isfinite(norm) and _finite(losses)
        step = self._finished_step(estimate, norm, factor) if usable else self._skipped_step(estimate)
        self._start_step()
        return step

    def _finished_step(self, estimate: GramEstimate, norm: float, factor: float) -> FairStep:
        weights = torch.tensor(estimate.weights, dtype=torch.float64)
        gram: Tensor | None = estimate.gram
        if isinstance(self.strategy, GradientBalancing):
            present = [bool(value > 0.0) for value in estimate.gram.diagonal()]
            natural = 1.0 if estimate.exact else self.strategy.natural_factor(estimate.weights, norm)
        else:
            self._observe(factor)
            present, natural = [loss is not None for loss in self._totals], 1.0
            if self._weights is not None:
                weights, gram = torch.tensor(self._weights, dtype=torch.float64), None
            weights = weights * torch.tensor(present)
        shares = norm if gram is None or not estimate.exact else float((weights * gram.diagonal().sqrt()).norm())
        ridge = self.strategy.ridge_used if isinstance(self.strategy, GradientBalancing) else 0.0
        rounding = 0.0 if estimate.rounded_to is None else torch.finfo(estimate.rounded_to).eps / 2.0
        stationary = norm <= max(4.0 * _epsilon(estimate.direction), 2.0 * ridge, rounding) * shares
        scale = 0.0 if stationary else self._scale(natural * norm, natural * weights, gram, estimate.exact)
        self._write(estimate.direction, natural * scale)
        return FairStep(
            natural * weights,
            tuple(self._totals),
            tuple(present),
            gram,
            natural * norm,
            scale,
            stationary=stationary,
            exact=estimate.exact,
            cosine=estimate.cosine,
            turned=self.strategy.turned if isinstance(self.strategy, RateFloor) else None,
        )

    def _skipped_step(self, estimate: GramEstimate) -> FairStep:
        """Set `.grad` to NaN, so that the `GradScaler` skips the step and lowers its scale; without a scaler, raise."""
        if self.scaler is None:
            raise FloatingPointError("the gradient of the weighted sum of the losses isn't finite")
        self.skipped_steps += 1
        # Write NaN explicitly: gradients can be finite where their products (or a loss) aren't.
        self._write(estimate.direction, math.nan)
        zeros = torch.zeros(len(self._totals), dtype=torch.float64)
        present = tuple(loss is not None for loss in self._totals)
        gram = None if self._weights is not None else estimate.gram
        return FairStep(zeros, tuple(self._totals), present, gram, math.nan, 1.0, skipped=True)

    def _balance(self, gram: Tensor) -> list[float]:
        """Return w [K] of a `GradientBalancing`; NaN, which propagates to `.grad`, if M isn't finite."""
        self._require_finite(gram.diagonal().tolist(), "the gradient of ")
        assert isinstance(self.strategy, GradientBalancing)
        return self.strategy.weights(gram) if bool(gram.isfinite().all()) else [math.nan] * len(gram)

    def _weigh_losses(self, gram: Tensor) -> list[float]:
        """Return w of a `LossWeighting`: [K], or [1] if the only gradient is that of the weighted sum."""
        if self._weights is not None:
            return [1.0]
        self._require_finite(gram.diagonal().tolist(), "the gradient of ")
        assert isinstance(self.strategy, LossWeighting)
        usable = bool(gram.isfinite().all()) and _finite(self._totals)
        return self.strategy.weights(self._totals) if usable else [math.nan] * len(gram)

    def _require_finite(self, values: Sequence[float | None], what: str) -> None:
        """Raise if an objective's value isn't finite and no `GradScaler` would skip the step."""
        bad = [i for i, value in enumerate(values) if not _finite([value])]
        if bad and self.scaler is None:
            raise FloatingPointError(f"{what}{', '.join(map(self._name, bad))} isn't finite")

    def _observe(self, factor: float) -> None:
        """Pass the losses to the strategy; leave the gradients of its own parameters scaled like all others."""
        assert isinstance(self.strategy, LossWeighting)
        for parameter in self.strategy.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(factor)
        self.strategy.observe(self._totals)
        for parameter in self.strategy.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def _scale(self, norm: float, weights: Tensor, gram: Tensor | None, exact: bool) -> float:
        if self.length == "radius":
            return self.radius / norm
        if self.length == "clip":
            return min(1.0, self.radius / norm)
        if gram is None or isinstance(self.strategy, LossWeighting):
            return 1.0
        own = norm if exact else math.sqrt(float(weights @ gram @ weights))  # an estimate is right only up to a factor
        return math.sqrt(max(0.0, gram.sum().item())) / own

    def _write(self, direction: Sequence[Tensor | None], scale: float) -> None:
        tensors = [tensor for tensor in direction if tensor is not None]
        if scale != 1.0 and tensors:
            torch._foreach_mul_(tensors, scale)
        for parameter, tensor in zip(self.parameters, direction, strict=True):
            if tensor is not None:
                gradient = as_shard(tensor, parameter)
                parameter.grad = gradient if parameter.grad is None else parameter.grad.add_(gradient)

    def _norm(self, direction: Sequence[Tensor | None]) -> float:
        """Return ‖d‖, accumulated in float64."""
        present = [tensor for tensor in direction if tensor is not None]
        norms = torch._foreach_norm(present, 2, dtype=torch.float64) if present else ()
        norm = torch.stack(norms).norm().cpu() if norms else torch.zeros((), dtype=torch.float64)
        return float(sum_over_shards(norm.square(), self.parameters).sqrt() if self._sharded else norm)

    def _total_losses(self) -> list[float | None]:
        return average_losses(self._losses, self.parameters[0].device, self.process_group)

    def _checked(self, losses: Sequence[Tensor | None], present: Sequence[bool] | None) -> Sequence[Tensor | None]:
        if self._losses and len(losses) != len(self._losses):
            raise ValueError(f"got {len(losses)} losses in a step that started with {len(self._losses)}")
        if not losses:
            raise ValueError("losses is empty")
        if present is not None and len(present) != len(losses):
            raise ValueError(f"present must have a flag for each of {len(losses)} losses, got {len(present)}")
        given = {i: loss for i, loss in enumerate(losses) if loss is not None}
        for i, loss in given.items():
            if present is not None and not present[i]:
                raise ValueError(f"present[{i}] must be True, as {self._name(i)} is given, or pass None for that loss")
            if loss.numel() != 1:
                raise ValueError(f"{self._name(i)} must be a scalar, got shape {tuple(loss.shape)}")
            if not loss.requires_grad:
                raise ValueError(f"{self._name(i)} depends on no parameter; pass None for an absent objective")
        # With several processes all must raise together: that happens after the gradients are averaged.
        if self.scaler is None and world_size(self.process_group) == 1:
            for i, value in zip(given, scalar_values(list(given.values())), strict=True):
                if not math.isfinite(value):
                    raise FloatingPointError(f"{self._name(i)} is {value}")
        return losses

    def _name(self, i: int) -> str:
        return f"losses[{i}]" if self.names is None else f"the {self.names[i]} loss"

    def state_dict(self) -> dict[str, Any]:
        """Return the states of strategy and estimator, and the number of skipped steps."""
        return {
            "strategy": self.strategy.state_dict(),
            "estimator": self.estimator.state_dict(),
            "skipped_steps": self.skipped_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.strategy.load_state_dict(state["strategy"])
        if not isinstance(self.strategy, LossWeighting):  # else it takes no part, and may have been another one
            self.estimator.load_state_dict(state["estimator"])
        self._start_step()
        self.skipped_steps = state["skipped_steps"]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def _finite(losses: Sequence[float | None]) -> bool:
    return all(loss is None or math.isfinite(loss) for loss in losses)


def _epsilon(tensors: Sequence[Tensor | None]) -> float:
    return max((torch.finfo(tensor.dtype).eps for tensor in tensors if tensor is not None), default=0.0)
