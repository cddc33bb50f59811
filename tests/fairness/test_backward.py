"""`FairBackward` on a small real network, against K separate ordinary backward passes."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from fairhuman.fairness import (
    FairBackward,
    LinearScalarization,
    LossWeighting,
    MinimumPotentialDelay,
    UncertaintyWeighting,
    solve,
)
from helpers.tiny_net import BALANCING, STRATEGIES, TinyUNet, batch, flat_grad, three_losses, trained, true_gradients

both = pytest.mark.parametrize("batched", [False, True], ids=["sequential", "batched"])
every = pytest.mark.parametrize("name", STRATEGIES)


def expected_weights(name: str, rows: np.ndarray, losses: list[float]) -> np.ndarray:
    """Weights of a first step, computed independently."""
    if name in BALANCING:
        alpha = {"nash": 1.0, "mpd": 2.0, "alpha": 4.0}[name]
        return solve((rows @ rows.T).tolist(), alpha).numpy()
    normals = torch.randn(3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {
        "ls": np.ones(3),
        "dwa": np.ones(3),
        "uw": np.full(3, 0.5),
        "rlw": normals.softmax(0).numpy(),
        "si": 1.0 / np.array(losses),
    }[name]


@both
@every
def test_grad_is_the_scaled_combination_of_the_true_gradients(name: str, batched: bool) -> None:
    net = TinyUNet()
    parameters = trained(net)
    data = batch()
    rows = true_gradients(lambda: three_losses(net, data), parameters)
    fair = FairBackward(net.parameters(), STRATEGIES[name](), batched=batched)
    losses = three_losses(net, data)
    step = fair(losses)
    assert step is not None
    values = [loss.item() for loss in losses]
    weights = expected_weights(name, rows, values)
    np.testing.assert_allclose(step.weights, weights, rtol=1e-4)
    direction = weights @ rows
    assert step.norm == pytest.approx(np.linalg.norm(direction), rel=1e-4)
    np.testing.assert_allclose(flat_grad(parameters), direction / np.linalg.norm(direction), atol=2e-6)
    np.testing.assert_allclose(step.losses, values, rtol=1e-6)
    assert step.present == (True, True, True)
    assert not step.skipped
    assert not step.stationary
    assert (step.gram is not None) == (name in BALANCING)
    assert net.unused.grad is None
    assert net.into.bias.grad is None


@both
@every
def test_measure_shows_the_gram_matrix_and_changes_nothing_else(name: str, batched: bool) -> None:
    net = TinyUNet()
    rows = true_gradients(lambda: three_losses(net, batch()), trained(net))
    plain = FairBackward(net.parameters(), STRATEGIES[name]())(three_losses(net, batch()))
    grad = flat_grad(trained(net))
    net.zero_grad()
    step = FairBackward(net.parameters(), STRATEGIES[name](), batched=batched)(three_losses(net, batch()), measure=True)
    assert plain is not None
    assert step is not None
    gram = rows @ rows.T
    norms = np.sqrt(np.diag(gram))
    assert step.gram is not None
    assert step.gram.dtype == torch.float64
    np.testing.assert_allclose(step.gram.numpy() / np.outer(norms, norms), gram / np.outer(norms, norms), atol=1e-5)
    np.testing.assert_allclose(step.norms, norms, rtol=1e-5)
    np.testing.assert_allclose(step.cosines, gram / np.outer(norms, norms), atol=1e-5)
    np.testing.assert_allclose(step.weights, plain.weights, rtol=1e-5)
    np.testing.assert_allclose(flat_grad(trained(net)), grad, atol=2e-6)


@every
def test_shares_and_rates_are_those_of_the_k_gradients(name: str) -> None:
    net = TinyUNet()
    rows = true_gradients(lambda: three_losses(net, batch()), trained(net))
    step = FairBackward(net.parameters(), STRATEGIES[name]())(three_losses(net, batch()), measure=True)
    assert step is not None
    norms, direction = np.linalg.norm(rows, axis=1), flat_grad(trained(net))
    parts = np.asarray(step.weights) * norms
    assert step.shares is not None
    assert step.rates is not None
    np.testing.assert_allclose(step.shares, parts / parts.sum(), rtol=1e-5)
    np.testing.assert_allclose(step.rates, rows @ direction / norms / np.linalg.norm(direction), atol=1e-5)


def test_without_a_gram_matrix_shares_and_rates_are_unknown() -> None:
    net = TinyUNet()
    step = FairBackward(net.parameters(), STRATEGIES["ls"]())(three_losses(net, batch()))
    assert step is not None
    assert step.shares is None
    assert step.rates is None


def test_grad_is_added_to() -> None:
    net = TinyUNet()
    fair = FairBackward(net.parameters(), MinimumPotentialDelay())
    fair(three_losses(net, batch(seed=1)))
    first = flat_grad(trained(net))
    net.zero_grad()
    fair(three_losses(net, batch(seed=2)))
    second = flat_grad(trained(net))
    fair(three_losses(net, batch(seed=1)))
    np.testing.assert_allclose(flat_grad(trained(net)), first + second, atol=1e-7)


@pytest.mark.parametrize("radius", [0.03, 1.0, 50.0])
@every
def test_lengths(name: str, radius: float) -> None:
    net = TinyUNet()
    rows = true_gradients(lambda: three_losses(net, batch()), trained(net))
    for length in ("radius", "clip", "scalarized"):
        net.zero_grad()
        step = FairBackward(net.parameters(), STRATEGIES[name](), length=length, radius=radius)(
            three_losses(net, batch())
        )
        assert step is not None
        free = np.linalg.norm(step.weights.numpy() @ rows)
        plain = np.linalg.norm(rows.sum(0)) if name in BALANCING else free
        wanted = {"radius": radius, "clip": min(free, radius), "scalarized": plain}[length]
        assert np.linalg.norm(flat_grad(trained(net))) == pytest.approx(wanted, rel=1e-5)
        assert step.norm * step.scale == pytest.approx(wanted, rel=1e-5)


@both
@every
def test_an_absent_objective_does_not_change_the_step(name: str, batched: bool) -> None:
    net = TinyUNet()
    rows = true_gradients(lambda: three_losses(net, batch()), trained(net))
    losses = three_losses(net, batch())
    step = FairBackward(net.parameters(), STRATEGIES[name](), batched=batched)([losses[0], None, losses[2]])
    assert step is not None
    assert step.present == (True, False, True)
    assert step.losses[1] is None
    assert step.weights[1] == 0.0
    if name in BALANCING:
        np.testing.assert_allclose(step.weights[[0, 2]], expected_weights(name, rows[[0, 2]], [1.0, 1.0]), rtol=1e-4)
    direction = step.weights.numpy() @ rows
    np.testing.assert_allclose(flat_grad(trained(net)), direction / np.linalg.norm(direction), atol=2e-6)


@both
def test_a_zero_gradient_is_an_absent_objective(batched: bool) -> None:
    """An empty mask gives a loss of 0 with zero gradients."""
    net = TinyUNet()
    losses = three_losses(net, batch())
    step = FairBackward(net.parameters(), MinimumPotentialDelay(), batched=batched)([losses[0], 0.0 * losses[1]])
    assert step is not None
    assert step.present == (True, False)
    assert step.weights[1] == 0.0
    assert math.isnan(step.cosines[0, 1])
    assert np.linalg.norm(flat_grad(trained(net))) == pytest.approx(1.0, rel=1e-6)


@every
def test_a_step_without_objectives_is_zero(name: str) -> None:
    net = TinyUNet()
    step = FairBackward(net.parameters(), STRATEGIES[name]())([None, None, None])
    assert step is not None
    assert step.stationary
    assert step.weights.tolist() == [0.0, 0.0, 0.0]
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("name", BALANCING)
@pytest.mark.parametrize("factor", [1.0, 2.0, 3.0, 300.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@both
def test_conflicting_gradients_give_a_zero_step(name: str, factor: float, dtype: torch.dtype, batched: bool) -> None:
    """L and -c L: no direction improves both, so the step is zero, not an amplified rounding error."""
    net = TinyUNet().to(dtype)
    inputs, targets = (tensor.to(dtype) for tensor in batch())
    loss = (net(inputs) - targets).square().mean()
    step = FairBackward(net.parameters(), STRATEGIES[name](), batched=batched)([loss, -factor * loss])
    assert step is not None
    assert step.stationary
    assert step.scale == 0.0
    assert bool(step.weights.isfinite().all())
    assert not flat_grad(trained(net)).any()


@pytest.mark.parametrize("ridge", [0.1, 0.5, 1.0, 100.0])
def test_a_ridge_that_is_asked_for_is_no_reason_to_stop(ridge: float) -> None:
    for cosine in (0.9, 0.0, -0.3):
        parameter = nn.Parameter(torch.zeros(2))
        one, other = torch.tensor([1.0, 0.0]), torch.tensor([cosine, math.sqrt(1.0 - cosine**2)])
        step = FairBackward([parameter], MinimumPotentialDelay(ridge))([parameter @ one, parameter @ other])
        assert step is not None
        assert not step.stationary
        torch.testing.assert_close(parameter.grad, nn.functional.normalize(one + other, dim=0))


@both
def test_a_third_objective_moves_while_two_conflict(batched: bool) -> None:
    a, b = nn.Parameter(torch.randn(50)), nn.Parameter(torch.randn(50))
    pull = (a * torch.randn(50)).sum()
    step = FairBackward([a, b], MinimumPotentialDelay(), batched=batched)([pull, -2.0 * pull, b.square().sum()])
    assert step is not None
    assert not step.stationary
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad.norm() < 0.01
    assert b.grad.norm() == pytest.approx(1.0, rel=1e-3)


def test_a_generator_of_parameters_is_kept() -> None:
    """The reference iterates `model.parameters()` once, and trains nothing from then on."""
    net = TinyUNet()
    fair = FairBackward((parameter for parameter in net.parameters()), MinimumPotentialDelay())
    assert len(fair.parameters) == len(trained(net))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    first = sum(loss.item() for loss in three_losses(net, batch()))
    for _ in range(20):
        optimizer.zero_grad()
        step = fair(three_losses(net, batch()))
        assert step is not None
        assert step.norm > 0.0
        optimizer.step()
    assert sum(loss.item() for loss in three_losses(net, batch())) < 0.9 * first


def test_a_gpu_without_float64_is_refused() -> None:
    on_apple: Any = type("OnApple", (), {"requires_grad": True, "device": torch.device("mps")})()
    with pytest.raises(ValueError, match="Apple's GPU has no float64"):
        FairBackward([on_apple], LinearScalarization())


def test_an_exhausted_generator_is_an_error() -> None:
    generator = TinyUNet().parameters()
    list(generator)
    with pytest.raises(ValueError, match="parameters is empty"):
        FairBackward(generator, MinimumPotentialDelay())
    with pytest.raises(ValueError, match="frozen"):
        FairBackward(TinyUNet().requires_grad_(False).parameters(), MinimumPotentialDelay())


def test_tied_parameters_count_once() -> None:
    net = TinyUNet()
    again = [*net.parameters(), net.again.weight, net.middle.weight]
    assert len(FairBackward(again, LinearScalarization()).parameters) == len(trained(net))


def test_settings_out_of_range() -> None:
    net = TinyUNet()
    with pytest.raises(ValueError, match="radius"):
        FairBackward(net.parameters(), LinearScalarization(), radius=0.0)
    with pytest.raises(ValueError, match="length"):
        FairBackward(net.parameters(), LinearScalarization(), length="unit")  # type: ignore[arg-type]


def test_bad_losses_are_named() -> None:
    net = TinyUNet()
    losses = three_losses(net, batch())
    fair = FairBackward(net.parameters(), LinearScalarization(), names=["global", "face", "hand"])
    with pytest.raises(ValueError, match=r"the face loss must be a scalar, got shape \(2,\)"):
        fair([losses[0], torch.stack(losses[:2])])
    with pytest.raises(ValueError, match="the global loss depends on no parameter"):
        fair([torch.tensor(1.0), losses[1]])
    with pytest.raises(ValueError, match="losses is empty"):
        fair([])
    with pytest.raises(ValueError, match="present must have a flag for each of 3 losses, got 2"):
        fair(losses, present=[True, True])
    with pytest.raises(ValueError, match=r"present\[1\] must be True, as the face loss is given"):
        fair(losses, present=[True, False, True])
    fair(losses, sync=False)
    with pytest.raises(ValueError, match="got 2 losses in a step that started with 3"):
        fair(three_losses(net, batch())[:2])


@both
def test_a_loss_may_have_one_element_in_any_shape_and_precision(batched: bool) -> None:
    net = TinyUNet()
    rows = true_gradients(lambda: three_losses(net, batch()), trained(net))
    a, b, c = three_losses(net, batch())
    step = FairBackward(net.parameters(), MinimumPotentialDelay(), batched=batched)(
        [a[None], b.double(), c[None, None]]
    )
    assert step is not None
    np.testing.assert_allclose(step.weights, solve((rows @ rows.T).tolist()), rtol=1e-4)


@both
def test_the_objective_that_is_not_finite_is_named(batched: bool) -> None:
    net = TinyUNet()
    fair = FairBackward(net.parameters(), MinimumPotentialDelay(), names=["global", "face", "hand"], batched=batched)
    losses = three_losses(net, batch())
    with pytest.raises(FloatingPointError, match="the face loss is nan"):
        fair([losses[0], losses[1] * math.nan, losses[2]])
    # A finite loss with an infinite gradient: the square root at zero.
    first = (net.out.bias[0] - net.out.bias[0].detach()).abs().sqrt()
    losses = three_losses(net, batch())
    # A batched pass multiplies its inner infinity by the zeros of the other objectives.
    named = "the global loss, the face loss, the hand loss" if batched else "the hand loss"
    with pytest.raises(FloatingPointError, match=rf"the gradient of {named} isn't finite"):
        fair([losses[0], losses[1], losses[2] + first])


@every
def test_a_failed_step_is_discarded(name: str) -> None:
    net = TinyUNet()
    fair = FairBackward(net.parameters(), STRATEGIES[name]())
    losses = three_losses(net, batch(seed=5))
    fair(losses, sync=False)
    with pytest.raises(FloatingPointError):
        fair([loss * math.inf for loss in three_losses(net, batch(seed=6))])
    assert all(parameter.grad is None for parameter in net.parameters())
    step = fair(three_losses(net, batch()))
    assert step is not None
    grad = flat_grad(trained(net))
    net.zero_grad()
    fresh_strategy = STRATEGIES[name]()
    if name == "rlw":
        assert isinstance(fresh_strategy, LossWeighting)
        fresh_strategy.weights([1.0, 1.0, 1.0])  # the failed step had drawn already
    FairBackward(net.parameters(), fresh_strategy)(three_losses(net, batch()))
    np.testing.assert_array_equal(flat_grad(trained(net)), grad)


def test_state_dict_holds_the_strategy_and_the_count() -> None:
    net = TinyUNet()
    strategy = UncertaintyWeighting(3)
    fair = FairBackward(net.parameters(), strategy)
    with torch.no_grad():
        strategy.s.copy_(torch.tensor([1.0, 2.0, 3.0]))
    fair.skipped_steps = 4
    other = FairBackward(net.parameters(), UncertaintyWeighting(3))
    other.load_state_dict(fair.state_dict())
    assert other.skipped_steps == 4
    assert other.strategy.parameters()[0].tolist() == [1.0, 2.0, 3.0]
