"""`FairBackward` in half precision: bf16 and fp16 autocast, `GradScaler`, parameters in bf16."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fairhuman.fairness import FairBackward, MinimumPotentialDelay, UncertaintyWeighting
from helpers.tiny_net import BALANCING, STRATEGIES, TinyUNet, batch, flat_grad, three_losses, trained, true_gradients

both = pytest.mark.parametrize("batched", [False, True], ids=["sequential", "batched"])
every = pytest.mark.parametrize("name", STRATEGIES)


@both
@pytest.mark.parametrize("name", ["ls", "si", *BALANCING])
def test_the_gram_matrix_is_that_of_unscaled_gradients(name: str, batched: bool) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        net = TinyUNet()
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, enabled=dtype == torch.float16)

        def losses(net: nn.Module = net, dtype: torch.dtype = dtype) -> list[Tensor]:
            with torch.autocast("cpu", dtype=dtype):
                return three_losses(net, batch())

        rows = true_gradients(losses, trained(net))
        fair = FairBackward(net.parameters(), STRATEGIES[name](), batched=batched, scaler=scaler)
        step = fair(losses(), measure=True)
        assert step is not None
        norms = np.linalg.norm(rows, axis=1)
        np.testing.assert_allclose(
            step.gram.numpy() / np.outer(norms, norms), rows @ rows.T / np.outer(norms, norms), atol=0.02
        )
        optimizer = torch.optim.SGD(net.parameters(), lr=1.0)
        scaler.unscale_(optimizer)
        direction = step.weights.numpy() @ rows
        direction /= np.linalg.norm(direction)
        assert np.linalg.norm(flat_grad(trained(net))) == pytest.approx(1.0, rel=1e-4)
        assert flat_grad(trained(net)) @ direction > 0.999


@both
@every
def test_an_overflow_is_skipped_counted_and_recovered_from(name: str, batched: bool) -> None:
    """Loss scale 2^40: fp16 gradients are infinite until it has come down; then training goes on."""
    net = TinyUNet()
    strategy = STRATEGIES[name]()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40, backoff_factor=2.0**-6)
    fair = FairBackward(net.parameters(), strategy, batched=batched, scaler=scaler)
    optimizer = torch.optim.SGD([*net.parameters(), *strategy.parameters()], lr=0.05)
    skipped = []
    for _ in range(8):
        before = [parameter.detach().clone() for parameter in [*net.parameters(), *strategy.parameters()]]
        scale = scaler.get_scale()
        with torch.autocast("cpu", dtype=torch.float16):
            losses = three_losses(net, batch())
        step = fair(losses)
        assert step is not None
        skipped.append(step.skipped)
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()
        after = [*net.parameters(), *strategy.parameters()]
        same = all(torch.equal(old, new) for old, new in zip(before, after, strict=True))
        assert same == step.skipped
        assert (scaler.get_scale() < scale) == step.skipped
        assert all(bool(parameter.isfinite().all()) for parameter in after)
    assert skipped[0]
    assert not skipped[-1]
    assert fair.skipped_steps == sum(skipped)
    assert fair.state_dict()["skipped_steps"] == sum(skipped)


@every
def test_a_loss_that_is_not_finite_is_skipped_too(name: str) -> None:
    for bad in (float("inf"), float("nan")):
        net = TinyUNet()
        scaler = torch.amp.GradScaler("cpu")
        fair = FairBackward(net.parameters(), STRATEGIES[name](), scaler=scaler)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
        losses = three_losses(net, batch())
        step = fair([losses[0], losses[1] + bad, losses[2]])
        assert step is not None
        assert step.skipped
        before = net.into.weight.detach().clone()
        scaler.step(optimizer)
        scaler.update()
        assert torch.equal(net.into.weight, before)
        assert scaler.get_scale() < 2.0**16


def test_uncertainty_weighting_under_a_scaler_adds_to_its_gradient() -> None:
    net, strategy = TinyUNet(), UncertaintyWeighting(3)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    fair = FairBackward(net.parameters(), strategy, scaler=scaler)
    losses = three_losses(net, batch())
    expected = [0.5 * (1.0 - loss.item()) for loss in losses]
    fair(losses)
    fair(three_losses(net, batch()))
    assert strategy.s.grad is not None
    np.testing.assert_allclose(strategy.s.grad / 1024.0, 2.0 * np.array(expected), rtol=1e-5)


@both
def test_parameters_in_bfloat16(batched: bool) -> None:
    net = TinyUNet().to(torch.bfloat16)
    inputs, targets = batch()
    data = inputs.bfloat16(), targets.bfloat16()
    rows = true_gradients(lambda: three_losses(net, data), trained(net))
    step = FairBackward(net.parameters(), MinimumPotentialDelay(), batched=batched)(three_losses(net, data))
    assert step is not None
    assert step.gram is not None
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(
        step.gram.numpy() / np.outer(norms, norms), rows @ rows.T / np.outer(norms, norms), atol=0.02
    )
    assert np.linalg.norm(flat_grad(trained(net))) == pytest.approx(1.0, rel=0.01)
