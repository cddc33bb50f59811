"""Exact steps that hold two gradients at a time."""

import numpy as np
import pytest
import torch

from fairhuman.fairness import FairBackward, LinearScalarization, MinimumPotentialDelay, PairwiseEstimator, solve
from fairhuman.train.live_bytes import LiveBytes
from helpers.small_unet import fair_backward, flat_grad, losses, small_unet, take, true_gradients


@pytest.mark.parametrize("absent", [False, True])
def test_it_is_the_exact_step(absent: bool) -> None:
    unet = small_unet()
    rows = true_gradients(unet, 1, absent=absent)
    step = take(fair_backward(unet, "pairwise"), unet, 1, absent=absent)
    assert step.exact
    assert step.gram is not None
    torch.testing.assert_close(step.gram, rows @ rows.T, rtol=1e-5, atol=1e-9)
    weights = solve(rows @ rows.T)
    np.testing.assert_allclose(step.weights, weights, rtol=1e-4)
    exact = weights @ rows
    torch.testing.assert_close(flat_grad(unet), exact / exact.norm(), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_any_number_of_objectives(size: int) -> None:
    parameter = torch.nn.Parameter(torch.randn(20, generator=torch.Generator().manual_seed(0)))
    rows = torch.randn(size, 20, generator=torch.Generator().manual_seed(1))
    estimator = PairwiseEstimator([parameter])
    step = FairBackward([parameter], MinimumPotentialDelay(), estimator=estimator)([row @ parameter for row in rows])
    assert step is not None
    assert step.gram is not None
    torch.testing.assert_close(step.gram, (rows @ rows.T).double(), rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_it_holds_two_gradients() -> None:
    """K = 3 at once would hold three; measured on a perceptron, whose activations are negligible."""
    net = torch.nn.Sequential(*(torch.nn.Linear(256, 256) for _ in range(8)))
    parameters = list(net.parameters())
    size = sum(4 * p.numel() for p in parameters)

    def peak(fair: FairBackward) -> int:
        net.zero_grad()
        output = net(torch.ones(2, 256))
        found = [(output * weight).square().mean() for weight in torch.eye(3, 256)]
        with LiveBytes(parameters) as live:
            fair(found)
        return live.peak

    plain = peak(FairBackward(parameters, LinearScalarization()))
    pairs = peak(FairBackward(parameters, MinimumPotentialDelay(), estimator=PairwiseEstimator(parameters)))
    exact = peak(FairBackward(parameters, MinimumPotentialDelay()))
    assert pairs <= 2.05 * size
    assert pairs - plain <= 1.2 * size
    assert exact >= 2.95 * size
    assert exact - plain > 1.6 * size


def test_accumulation_is_refused() -> None:
    unet = small_unet()
    with pytest.raises(ValueError, match="PairwiseEstimator supports one micro-batch per step; use EmaEstimator"):
        fair_backward(unet, "pairwise")(losses(unet)[0], sync=False)


def test_a_gram_matrix_that_is_not_finite_is_an_error_and_a_good_step_can_follow() -> None:
    unet = small_unet()
    fair = fair_backward(unet, "pairwise")
    found, output = losses(unet)
    assert found[1] is not None
    with pytest.raises(FloatingPointError):
        fair([found[0], found[1] * 1e30, found[2]], output=output)
    assert take(fair, unet).exact
