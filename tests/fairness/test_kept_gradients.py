"""Exact steps that keep their gradients in bfloat16."""

import pytest
import torch
from torch import Tensor, nn

from fairhuman.fairness import (
    EmaEstimator,
    Estimator,
    ExactEstimator,
    FairBackward,
    MinimumPotentialDelay,
    PairwiseEstimator,
    solve,
)
from fairhuman.train.live_bytes import LiveBytes
from helpers.small_unet import fair_backward, flat_grad, losses, small_unet, take, trained, true_gradients

BF16 = torch.bfloat16


@pytest.mark.parametrize("absent", [False, True])
@pytest.mark.parametrize("mode", ["kept", "kept pairs"])
def test_it_is_the_step_of_the_rounded_gradients(mode: str, absent: bool) -> None:
    """M is theirs, and so is the direction; that of pairs is of the true gradients, with the same weights."""
    unet = small_unet()
    rows = true_gradients(unet, 1, absent=absent)
    rounded = rows.to(BF16).double()
    step = take(fair_backward(unet, mode), unet, 1, absent=absent)
    gram = rounded @ rounded.T
    assert step.exact
    torch.testing.assert_close(step.gram, gram, rtol=1e-5, atol=1e-9)
    assert not torch.allclose(gram, rows @ rows.T, rtol=1e-5, atol=1e-9), "rounding is seen"
    weights = solve(gram)
    torch.testing.assert_close(step.weights, weights, rtol=1e-4, atol=0.0)
    direction = weights @ (rounded if mode == "kept" else rows)
    torch.testing.assert_close(flat_grad(unet), direction / direction.norm(), rtol=0.0, atol=2e-6)
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in trained(unet))


@pytest.mark.parametrize("mode", ["kept", "kept pairs", "kept output"])
def test_the_direction_is_that_of_float32(mode: str) -> None:
    """At angles below 0.3 degrees, on exact steps, which the first one of mode output is too."""
    unet = small_unet()
    take(fair_backward(unet, "pairwise"), unet)
    wide = flat_grad(unet)
    assert take(fair_backward(unet, mode), unet).exact
    cosine = torch.cosine_similarity(wide, flat_grad(unet), dim=0)
    assert 0.99999 < cosine < 1.0 - 1e-9


def test_under_autocast_nothing_is_lost() -> None:
    """Gradients of weights that autocast rounds to bfloat16 come back as bfloat16: they are kept as they are."""
    found = []
    for mode in ("exact", "kept"):
        unet = small_unet()
        with torch.autocast("cpu", BF16):
            prediction = unet(torch.ones(2, 4, 16, 16), 5, torch.ones(2, 5, 16)).sample.float()
        dtype = BF16 if mode == "kept" else None
        fair = FairBackward(
            trained(unet), MinimumPotentialDelay(), estimator=ExactEstimator(trained(unet), dtype=dtype)
        )
        step = fair([prediction.square().mean(), (prediction[..., 2:6, 3:9] - 1.0).square().mean()])
        assert step is not None
        found.append((step.gram, flat_grad(unet)))
    (gram, wide), (kept_gram, kept) = found
    assert torch.equal(gram, kept_gram)
    torch.testing.assert_close(kept, wide, rtol=0.0, atol=1e-7)


def test_gradients_take_half_of_the_memory() -> None:
    """K = 3 on a perceptron, whose activations are negligible, beside the direction of P."""
    net = nn.Sequential(*(nn.Linear(256, 256) for _ in range(8)))
    parameters = list(net.parameters())
    size = sum(4 * p.numel() for p in parameters)

    def peak(estimator: Estimator) -> float:
        net.zero_grad()
        output = net(torch.ones(2, 256))
        found = [(output * weight).square().mean() for weight in torch.eye(3, 256)]
        fair = FairBackward(parameters, MinimumPotentialDelay(), estimator=estimator)
        with LiveBytes(parameters) as live:
            fair(found)
        return live.peak / size

    assert peak(ExactEstimator(parameters)) > 2.95
    assert 1.45 < peak(ExactEstimator(parameters, dtype=BF16)) < 1.85
    assert peak(PairwiseEstimator(parameters)) > 1.95
    assert 0.95 < peak(PairwiseEstimator(parameters, BF16)) < 1.25


def test_opposed_gradients_are_stationary_up_to_rounding() -> None:
    """What is left of them is rounding, which must not become a step of length r."""
    parameter = nn.Parameter(torch.zeros(1000))
    row = torch.randn(1000, generator=torch.Generator().manual_seed(0))

    def stationary(dtype: torch.dtype | None, other: Tensor) -> bool:
        estimator = ExactEstimator([parameter], dtype=dtype)
        fair = FairBackward([parameter], MinimumPotentialDelay(), estimator=estimator)
        step = fair([row @ parameter, other @ parameter])
        assert step is not None
        return step.stationary

    assert stationary(None, -3.0 * row)
    assert stationary(BF16, -3.0 * row)
    across = torch.randn(1000, generator=torch.Generator().manual_seed(1))
    assert not stationary(BF16, -3.0 * row + 0.1 * across)


def test_sums_over_micro_batches_are_refused() -> None:
    unet = small_unet()
    exact = ExactEstimator(trained(unet), dtype=BF16)
    for estimator in (exact, EmaEstimator(trained(unet), 4, exact)):
        fair = FairBackward(trained(unet), MinimumPotentialDelay(), estimator=estimator)
        found, output = losses(unet)
        with pytest.raises(ValueError, match=r"kept in torch.bfloat16 can't be summed over micro-batches, as each sum"):
            fair(found, output=output, sync=False)


def test_a_batched_pass_is_refused() -> None:
    with pytest.raises(ValueError, match=r"batched must be False if gradients are kept in torch.bfloat16, found True"):
        ExactEstimator(trained(small_unet()), batched=True, dtype=BF16)


def test_a_gradient_that_is_not_finite_is_an_error_and_a_good_step_can_follow() -> None:
    unet = small_unet()
    fair = fair_backward(unet, "kept")
    found, output = losses(unet)
    assert found[1] is not None
    with pytest.raises(FloatingPointError):
        fair([found[0], found[1] * 1e30, found[2]], output=output)
    assert take(fair, unet).exact
