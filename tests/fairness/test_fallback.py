"""Falling back to a more expensive estimator: when, for how long, and what is logged."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import nn

from fairhuman.fairness import (
    Estimator,
    ExactEstimator,
    FairBackward,
    FallbackEstimator,
    MinimumPotentialDelay,
    OutputEstimator,
    SplitEstimator,
    TailEstimator,
    solve,
)
from fairhuman.fairness.estimators.estimator import GramEstimate, MicroBatch
from helpers.small_unet import fair_backward, flat_grad, small_unet, take, trained, true_gradients


class Scripted(Estimator):
    """Audits with given cosines."""

    accumulates = True

    def __init__(self, cosines: Sequence[float | None]) -> None:
        self.left = list(cosines)

    def begin(self, weigh: object, group: object) -> None:
        pass

    def add(self, micro: MicroBatch) -> None:
        pass

    def finish(self, scale: float) -> GramEstimate:
        return GramEstimate([1.0], [], torch.ones(1, 1), cosine=self.left.pop(0))

    def state_dict(self) -> dict[str, Any]:
        return {"left": self.left}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.left = state["left"]


def positions(fallback: FallbackEstimator, steps: int) -> list[int]:
    found = []
    for _ in range(steps):
        fallback.finish(1.0)
        found.append(fallback.position)
    return found


def test_the_mean_of_three_audits_decides_permanently(caplog: pytest.LogCaptureFixture) -> None:
    cheap = Scripted([0.5, 0.95, None, 0.95, 0.95, 0.94, 0.7, 1.0])
    dear = Scripted([0.1, 0.1, 0.1, 0.1])
    fallback = FallbackEstimator([cheap, dear])
    with caplog.at_level(logging.WARNING):
        # 0.5, 0.95 and 0.95 are 0.8 on average; the last one stays, whatever its audits say.
        assert positions(fallback, 8) == [0, 0, 0, 1, 1, 1, 1, 1]
    assert caplog.messages == ["mean cosine of Scripted's audits is 0.800 < 0.900: now Scripted"]


def test_an_estimator_is_judged_by_its_own_audits() -> None:
    ladder = [Scripted([0.5] * 3), Scripted([1.0] * 3), Scripted([])]
    assert positions(FallbackEstimator(ladder), 6) == [0, 0, 1, 1, 1, 1]


def test_a_cosine_of_nan_is_no_audit() -> None:
    assert positions(FallbackEstimator([Scripted([float("nan")] * 6), Scripted([])]), 6) == [0] * 6


def test_it_resumes_from_its_state() -> None:
    cosines = [0.5, 0.5, 0.5]
    one = FallbackEstimator([Scripted(cosines), Scripted([1.0] * 3)])
    positions(one, 2)
    two = FallbackEstimator([Scripted([]), Scripted([])])
    two.load_state_dict(one.state_dict())
    assert positions(two, 2) == [1, 1]


def test_a_sequence_of_real_estimators_ends_at_the_exact_direction() -> None:
    unet = small_unet()
    parameters = trained(unet)
    ladder = [
        OutputEstimator(parameters, 1, warm_up=1),
        TailEstimator(unet, parameters, 1, trial=1),
        ExactEstimator(parameters),
    ]
    fallback = FallbackEstimator(ladder, limit=1.0)
    fair = FairBackward(parameters, MinimumPotentialDelay(), estimator=fallback)
    for seed in range(8):
        take(fair, unet, seed)
    assert fallback.position == 2
    rows = true_gradients(unet, 8)
    take(fair, unet, 8)
    exact = solve(rows @ rows.T) @ rows
    torch.testing.assert_close(flat_grad(unet), exact / exact.norm(), rtol=0.0, atol=1e-5)


def test_an_estimator_that_was_replaced_leaves_the_network_as_it_was() -> None:
    def prepared() -> tuple[nn.Module, SplitEstimator, FairBackward]:
        unet = small_unet()
        unet.enable_gradient_checkpointing()
        exact = ExactEstimator(trained(unet))
        split = SplitEstimator(unet, trained(unet), 1, exact, trial=1)
        fallback = FallbackEstimator([split, exact], limit=1.0)
        return unet, split, FairBackward(trained(unet), MinimumPotentialDelay(), estimator=fallback)

    def changes(unet: nn.Module) -> tuple[int, int]:
        """The numbers of hooks, and of modules without checkpointing."""
        modules = list(unet.modules())
        off = sum(getattr(module, "gradient_checkpointing", None) is False for module in modules)
        return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in modules), off

    unet, split, fair = prepared()
    before = changes(unet)
    take(fair, unet, 0)
    chosen = changes(unet)
    assert chosen[0] > before[0]
    assert chosen[1] > before[1]
    for seed in (1, 2, 3):
        assert changes(unet) == chosen
        take(fair, unet, seed)
    take(fair, unet, 4)
    assert fair.estimator.position == 1
    assert changes(unet) == before
    assert split._recorded == {}
    assert split._cut.crossings == []

    resumed, _, other = prepared()
    other.load_state_dict(fair.state_dict())
    assert changes(resumed) == before


def test_a_good_estimator_is_kept() -> None:
    unet = small_unet()
    fallback = FallbackEstimator([fair_backward(unet, "tail", every=1).estimator, Scripted([])], limit=0.5)
    fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=fallback)
    for seed in range(6):
        take(fair, unet, seed)
    assert fallback.position == 0


@pytest.mark.parametrize(
    ("estimators", "limit", "message"),
    [([], 0.9, "estimators is empty"), ([Scripted([])], 1.5, r"limit must be in \[-1, 1\], got 1.5")],
)
def test_bad_arguments(estimators: list[Scripted], limit: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FallbackEstimator(estimators, limit)
