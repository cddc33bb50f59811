"""`FairBackward`: in place of `loss.backward()`, K losses in, one fair direction in `.grad` out."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from fairhuman.fairness.distributed import average_losses, world_size
from fairhuman.fairness.estimators import Estimator, ExactEstimator
from fairhuman.fairness.strategy import GradientBalancing, LossWeighting, Strategy

Length = Literal["radius", "clip", "scalarized"]


@dataclass(frozen=True, slots=True)
class FairStep:
    """What a step did: `.grad` received d = scale · Σ_i weights_i g_i.

    weights: w [K], float64; 0 for an absent objective.
    losses: [K], of the whole step, mean over processes; None where absent.
    present: [K], which objectives took part (their gradient isn't zero, or, without a Gram matrix, they had a loss).
    gram: M [K, K] of the unscaled gradients, float64; None where no gradients were needed and `measure` was off.
    norm: ‖Σ w_i g_i‖ before the length was set.
    scale: the factor that set it.
    skipped: a gradient wasn't finite under a `GradScaler`, and `.grad` holds non-finite values, so that it skips too.
    stationary: Σ w_i g_i was nothing but rounding or the trace of a ridge, so d = 0: the objectives conflict and no
        direction helps them all.
    """

    weights: Tensor
    losses: tuple[float | None, ...]
    present: tuple[bool, ...]
    gram: Tensor | None
    norm: float
    scale: float
    skipped: bool = False
    stationary: bool = False

    @property
    def norms(self) -> Tensor | None:
        """‖g_i‖ [K]."""
        return None if self.gram is None else self.gram.diagonal().sqrt()

    @property
    def cosines(self) -> Tensor | None:
        """cos(g_i, g_j) [K, K]; NaN where a gradient is zero."""
        if self.gram is None or self.norms is None:
            return None
        return self.gram / torch.outer(self.norms, self.norms)


class FairBackward:
    """Write the direction of a strategy into `.grad`, adding to what is there.

        fair = FairBackward(model.parameters(), MinimumPotentialDelay())
        step = fair([loss_global, loss_face, loss_hand])      # instead of loss.backward()
        optimizer.step()

    Gradient accumulation: `fair(losses, sync=False)` for all micro-batches but the last. The K gradients are summed
    over micro-batches, and weighed once at the end. Several processes: gradients are averaged over processes here,
    before the Gram matrix is built, so all replicas take the same step; `DistributedDataParallel` isn't needed, and
    doesn't disturb. fp16: pass the `GradScaler`; losses are given unscaled, the Gram matrix is that of the unscaled
    gradients, `.grad` is left scaled for `scaler.step(optimizer)`, and an overflow skips the step as usual.

    Length of d = s Σ w_i g_i, which takes the place of gradient clipping:
        radius: ‖d‖ = r, the constraint of FairHuman's Eq. 6.
        clip: as it is, at most r.
        scalarized: that of the plain sum, ‖Σ g_i‖. A loss weighting has no Gram matrix, and is left as it is.
    SGD moves by d itself, so `radius` fixes the length of its steps. Adam divides by the gradient's running size: a
    constant factor does nothing there, but a length that jumps from step to step, as small gradients make d long
    (‖d‖ ~ ‖g‖^(-1/3) for MPD), does; `radius` takes that out.

    Args:
        parameters: what is trained. An iterable of any kind; kept as a list, without duplicates and frozen ones.
        strategy: see `fairhuman.fairness.STRATEGIES`.
        length: how ‖d‖ is set.
        radius: r > 0.
        batched: take the K gradients in one batched pass; faster with gradient checkpointing. See `ExactEstimator`.
        scaler: the `torch.amp.GradScaler` of fp16 training.
        names: of the objectives, for messages.
        process_group: as in `torch.distributed`; None is the default group.

    Raises:
        ValueError: no parameter to train, or a setting out of range.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        strategy: Strategy,
        *,
        length: Length = "radius",
        radius: float = 1.0,
        batched: bool = False,
        scaler: torch.amp.GradScaler | None = None,
        names: Sequence[str] | None = None,
        process_group: dist.ProcessGroup | None = None,
    ) -> None:
        self.parameters = list(dict.fromkeys(p for p in parameters if p.requires_grad))
        if not self.parameters:
            raise ValueError("parameters is empty (or all are frozen, or a generator was used up): nothing to train")
        if length not in ("radius", "clip", "scalarized"):
            raise ValueError(f"length must be radius, clip or scalarized, got {length!r}")
        if not radius > 0.0:
            raise ValueError(f"radius must be > 0, got {radius}")
        self.strategy = strategy
        self.length = length
        self.radius = radius
        self.scaler = scaler if scaler is not None and scaler.is_enabled() else None
        self.names = names
        self.process_group = process_group
        self.skipped_steps = 0
        self._estimator: Estimator = ExactEstimator(self.parameters, batched)
        self._balancing = isinstance(strategy, GradientBalancing)
        self._start_step()

    def _start_step(self) -> None:
        self._estimator.reset()
        self._losses: list[Tensor | None] = []
        self._weights: list[float] | None = None  # fixed before the backward pass; None: K gradients are kept

    def __call__(self, losses: Sequence[Tensor | None], *, sync: bool = True, measure: bool = False) -> FairStep | None:
        """Take in K scalar losses (None: absent). Return what was done, or None while accumulating.

        Args:
            losses: unscaled and, with accumulation, already divided as the step's total asks for.
            sync: whether this is the last micro-batch of the step.
            measure: keep K gradients even where the strategy doesn't need them, so that `gram` is known. The same for
                all micro-batches of a step.

        Raises:
            ValueError: a loss isn't a scalar, doesn't depend on anything, or their number changed within a step.
            FloatingPointError: a loss or gradient isn't finite, and there is no `GradScaler` to skip the step.
                After any error the step is forgotten, with its earlier micro-batches.
        """
        try:
            self._take([None if loss is None else loss.reshape(()) for loss in self._checked(losses)], measure, sync)
            return self._finish() if sync else None
        except BaseException:
            self._start_step()
            raise

    def _take(self, losses: Sequence[Tensor | None], measure: bool, sync: bool) -> None:
        """Differentiate a micro-batch, and before it choose the weights, if they don't need the K gradients."""
        first = not self._losses
        values = [None if loss is None else loss.detach().double() for loss in losses]
        self._losses = values if first else [_sum(a, b) for a, b in zip(self._losses, values, strict=True)]
        if first and isinstance(self.strategy, LossWeighting) and not measure:
            if not self.strategy.needs_losses:
                self._weights = self.strategy.weights([None if v is None else 0.0 for v in values])
            elif sync and _finite(totals := self._total_losses()):
                self._weights = self.strategy.weights(totals)
        scaled = (
            losses if self.scaler is None else [None if loss is None else self.scaler.scale(loss) for loss in losses]
        )
        if self._weights is None:
            self._estimator.add(scaled)
        else:
            terms = [w * loss for w, loss in zip(self._weights, scaled, strict=True) if loss is not None and w != 0.0]
            self._estimator.add([torch.stack(terms).sum() if terms else None])

    def _finish(self) -> FairStep:
        """Average over processes, weigh, set the length, write `.grad`."""
        factor = self.scaler.get_scale() if self.scaler else 1.0
        losses = self._total_losses()
        self._estimator.average(self.process_group)
        gram = self._estimator.gram() / factor**2
        known = gram if self._weights is None else None
        if not (bool(gram.isfinite().all()) and _finite(losses)):
            return self._skip(losses, known)
        weights, present = self._weigh(losses, gram, factor)
        direction = self._estimator.combine(weights if self._weights is None else [1.0])
        norm = _norm(direction) / factor
        shares = (
            norm if known is None else math.hypot(*(w * m**0.5 for w, m in zip(weights, known.diagonal(), strict=True)))
        )
        ridge = self.strategy.ridge_used if isinstance(self.strategy, GradientBalancing) else 0.0
        stationary = norm <= max(4.0 * _epsilon(direction), 2.0 * ridge) * shares
        scale = 0.0 if stationary else self._scale(norm, known)
        self._write(direction, scale)
        self._start_step()
        weights_k = torch.tensor(weights, dtype=torch.float64)
        return FairStep(weights_k, tuple(losses), tuple(present), known, norm, scale, stationary=stationary)

    def _weigh(self, losses: list[float | None], gram: Tensor, factor: float) -> tuple[list[float], list[bool]]:
        """Return w [K], and which objectives take part: those with a gradient or, for a loss weighting, with a loss."""
        if isinstance(self.strategy, GradientBalancing):
            return self.strategy.weights(gram), [bool(value > 0.0) for value in gram.diagonal()]
        assert isinstance(self.strategy, LossWeighting)
        present = [loss is not None for loss in losses]
        weights = self._weights or self.strategy.weights(losses)
        self._observe(losses, factor)
        return [w if here else 0.0 for w, here in zip(weights, present, strict=True)], present

    def _observe(self, losses: list[float | None], factor: float) -> None:
        """Let the strategy take note; the gradients of its own parameters are left scaled like all others."""
        assert isinstance(self.strategy, LossWeighting)
        for parameter in self.strategy.parameters():
            if parameter.grad is not None:
                parameter.grad.div_(factor)
        self.strategy.observe(losses)
        for parameter in self.strategy.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(factor)

    def _skip(self, losses: list[float | None], gram: Tensor | None) -> FairStep:
        """Make `.grad` NaN, so that the `GradScaler` skips this step too and lowers its scale; or raise."""
        if self.scaler is None:
            bad = [i for i, loss in enumerate(losses) if not _finite([loss])]
            what = "" if bad else "the gradient of "
            bad = bad or [i for i in range(len(losses)) if gram is None or not bool(gram[i, i].isfinite())]
            raise FloatingPointError(f"{what}{', '.join(map(self._name, bad))} isn't finite")
        self.skipped_steps += 1
        count = 1 if self._weights is not None else len(losses)
        # Not the sum: gradients can be finite where their products (or a loss) aren't.
        self._write(self._estimator.combine([math.nan] * count), 1.0)
        self._start_step()
        zeros = torch.zeros(len(losses), dtype=torch.float64)
        present = tuple(loss is not None for loss in losses)
        return FairStep(zeros, tuple(losses), present, gram, math.nan, 1.0, skipped=True)

    def _scale(self, norm: float, gram: Tensor | None) -> float:
        if self.length == "radius":
            return self.radius / norm
        if self.length == "clip":
            return min(1.0, self.radius / norm)
        return 1.0 if gram is None or not self._balancing else math.sqrt(max(0.0, gram.sum().item())) / norm

    def _write(self, direction: Sequence[Tensor | None], scale: float) -> None:
        tensors = [tensor for tensor in direction if tensor is not None]
        if scale != 1.0 and tensors:
            torch._foreach_mul_(tensors, scale)
        for parameter, tensor in zip(self.parameters, direction, strict=True):
            if tensor is not None:
                parameter.grad = tensor if parameter.grad is None else parameter.grad.add_(tensor)

    def _total_losses(self) -> list[float | None]:
        return average_losses(self._losses, self.parameters[0].device, self.process_group)

    def _checked(self, losses: Sequence[Tensor | None]) -> Sequence[Tensor | None]:
        if self._losses and len(losses) != len(self._losses):
            raise ValueError(f"{len(losses)} losses in a step that began with {len(self._losses)}")
        if not losses:
            raise ValueError("losses is empty")
        for i, loss in enumerate(losses):
            if loss is None:
                continue
            if loss.numel() != 1:
                raise ValueError(f"{self._name(i)} must be a scalar, got shape {tuple(loss.shape)}")
            if not loss.requires_grad:
                raise ValueError(f"{self._name(i)} depends on no parameter; pass None for an absent objective")
            # With other processes, all have to hear of it: they do when gradients have been averaged.
            if self.scaler is None and world_size(self.process_group) == 1 and not bool(loss.isfinite()):
                raise FloatingPointError(f"{self._name(i)} is {loss.item()}")
        return losses

    def _name(self, i: int) -> str:
        return f"losses[{i}]" if self.names is None else f"the {self.names[i]} loss"

    def state_dict(self) -> dict[str, Any]:
        """Return the strategy's state and the count of skipped steps."""
        return {"strategy": self.strategy.state_dict(), "skipped_steps": self.skipped_steps}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.strategy.load_state_dict(state["strategy"])
        self.skipped_steps = state["skipped_steps"]


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    if a is None or b is None:
        return a if b is None else b
    return a + b


def _finite(losses: Sequence[float | None]) -> bool:
    return all(loss is None or math.isfinite(loss) for loss in losses)


def _norm(tensors: Sequence[Tensor | None]) -> float:
    """‖·‖ over all tensors, accumulated in float64."""
    present = [tensor for tensor in tensors if tensor is not None]
    norms = torch._foreach_norm(present, 2, dtype=torch.float64) if present else ()
    return torch.stack(norms).norm().item() if norms else 0.0


def _epsilon(tensors: Sequence[Tensor | None]) -> float:
    return max((torch.finfo(tensor.dtype).eps for tensor in tensors if tensor is not None), default=0.0)
