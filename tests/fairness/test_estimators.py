"""Amortised estimators on a small real U-Net: what holds for all of them."""

import numpy as np
import pytest
import torch

from fairhuman.fairness import (
    AlphaFair,
    FairBackward,
    Length,
    LinearScalarization,
    MinimumPotentialDelay,
    NashMTL,
    Output,
    OutputEstimator,
    solve,
)
from helpers.small_unet import (
    ESTIMATORS,
    TARGETS,
    fair_backward,
    flat_grad,
    losses,
    small_unet,
    take,
    trained,
    true_gradients,
)
from peak_memory import peak_allocated_bytes

OFTEN = ("output", "split")  # the default, and the one that refuses most; the others in `make test-slow`
MODES = [mode if mode in OFTEN else pytest.param(mode, marks=pytest.mark.slow) for mode in ESTIMATORS]
amortised = pytest.mark.parametrize("mode", MODES)
every_mode = pytest.mark.parametrize("mode", ESTIMATORS)
takes_all = pytest.mark.parametrize("mode", [mode for mode in ESTIMATORS if mode != "split"])  # LoRA on attention alone


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(torch.nn.functional.cosine_similarity(a, b, dim=0))


@pytest.mark.parametrize(
    "targets", [name if name != "attention+conv" else pytest.param(name, marks=pytest.mark.slow) for name in TARGETS]
)
@takes_all
def test_the_direction_is_the_weighted_sum_of_gradients(mode: str, targets: str) -> None:
    unet = small_unet(targets)
    fair = fair_backward(unet, mode)
    first = take(fair, unet, seed=1)
    assert first.exact
    for seed in (2, 3):
        rows = true_gradients(unet, seed)
        step = take(fair, unet, seed)
        assert not step.exact
        assert step.cosine is None
        direction = step.weights @ rows
        assert step.norm == pytest.approx(float(direction.norm()), rel=1e-4)
        torch.testing.assert_close(flat_grad(unet), direction / direction.norm(), rtol=0.0, atol=1e-5)


@every_mode
def test_weights_have_the_scale_of_exact_ones(mode: str) -> None:
    """‖d‖² = Σ √w for MPD, for the true ‖d‖, whatever the estimate of M was."""
    unet = small_unet()
    fair = fair_backward(unet, mode, length="clip", radius=1e9)
    for seed in range(3):
        step = take(fair, unet, seed)
    assert not step.exact
    assert float(step.weights.sqrt().sum()) == pytest.approx(float(flat_grad(unet).square().sum()), rel=1e-5)


@pytest.mark.parametrize(
    ("strategy", "alpha"), [pytest.param(NashMTL(), 1.0, marks=pytest.mark.slow), (AlphaFair(4.0), 4.0)]
)
@amortised
def test_other_alphas(mode: str, strategy: AlphaFair, alpha: float) -> None:
    unet = small_unet()
    fair = fair_backward(unet, mode, strategy, length="clip", radius=1e9)
    rows = true_gradients(unet, 0)
    np.testing.assert_allclose(take(fair, unet, 0).weights, solve(rows @ rows.T, alpha), rtol=1e-4)
    step = take(fair, unet, 1)
    total = float((step.weights ** (1.0 - 1.0 / alpha)).sum())
    assert total == pytest.approx(float(flat_grad(unet).square().sum()), rel=1e-5)


@pytest.mark.parametrize("length", [pytest.param("radius", marks=pytest.mark.slow), "clip", "scalarized"])
@amortised
def test_lengths(mode: str, length: Length) -> None:
    unet = small_unet()
    fair = fair_backward(unet, mode, length=length, radius=0.25)
    take(fair, unet, 1)
    rows = true_gradients(unet, 2)
    step = take(fair, unet, 2)
    written = float(flat_grad(unet).norm())
    assert written == pytest.approx(step.norm * step.scale, rel=1e-5)
    if length == "scalarized":  # ‖Σ g_i‖ is a guess here
        assert written == pytest.approx(float(rows.sum(dim=0).norm()), rel=0.3)
    else:
        assert written == pytest.approx(0.25, rel=1e-5)


@amortised
def test_audits_are_exact_steps_that_report_the_cosine(mode: str) -> None:
    unet = small_unet()
    fair = fair_backward(unet, mode)
    for seed in range(4):
        take(fair, unet, seed)
    rows = true_gradients(unet, 4)
    audit = take(fair, unet, 4)
    exact = solve(rows @ rows.T)
    assert audit.exact
    np.testing.assert_allclose(audit.weights, exact, rtol=1e-4)
    assert audit.cosine is not None
    assert 0.5 < audit.cosine <= 1.0 + 1e-9
    # The same steps without that audit do what it judged.
    again = small_unet()
    other = fair_backward(again, mode, every=100)
    for seed in range(5):
        take(other, again, seed)
    assert cosine(flat_grad(again), exact @ rows) == pytest.approx(audit.cosine, abs=1e-5)


@every_mode
def test_an_absent_objective_takes_no_part(mode: str) -> None:
    unet = small_unet()
    fair = fair_backward(unet, mode)
    take(fair, unet, 1)
    rows = true_gradients(unet, 2, absent=True)
    step = take(fair, unet, 2, absent=True)
    assert step.present == (True, False, True)
    assert step.weights[1] == 0.0
    direction = step.weights @ rows
    torch.testing.assert_close(flat_grad(unet), direction / direction.norm(), rtol=0.0, atol=1e-5)
    assert take(fair, unet, 3).present == (True, True, True)  # it comes back as it was


@amortised
def test_an_objective_that_appears_late(mode: str) -> None:
    """It is included from the next exact step on, at the latest."""
    unet = small_unet()
    fair = fair_backward(unet, mode)
    for seed in range(2):
        take(fair, unet, seed, absent=True)
    weights = [float(take(fair, unet, seed).weights[1]) for seed in range(2, 6)]
    assert weights[-1] > 0.0
    assert weights[-2] > 0.0 or mode == "ema"


@pytest.mark.parametrize(
    "mode", [mode if mode in ("output", "tail") else pytest.param(mode, marks=pytest.mark.slow) for mode in ESTIMATORS]
)
def test_steps_resume_from_a_state_with_the_same_bits(mode: str) -> None:
    def run(*stops: int) -> torch.Tensor:
        unet = small_unet()
        fair = fair_backward(unet, mode)
        optimizer = torch.optim.Adam(trained(unet), lr=0.01)
        for seed in range(7):
            if seed in stops:
                state = fair.state_dict()
                fair = fair_backward(unet, mode)
                fair.load_state_dict(state)
            take(fair, unet, seed)
            optimizer.step()
        return torch.cat([p.detach().reshape(-1) for p in trained(unet)])

    assert torch.equal(run(1, 3, 4, 6), run())


@takes_all
def test_an_ordinary_step_holds_no_more_than_one_gradient_beside_the_direction(mode: str) -> None:
    """At most P beyond a plain backward pass, without activations."""
    unet = small_unet("all")
    size = sum(4 * p.numel() for p in trained(unet))
    fair = fair_backward(unet, mode)
    take(fair, unet, 0)

    def peak(call: object) -> int:
        unet.zero_grad()
        found, output = losses(unet, 1)
        return peak_allocated_bytes(lambda: call(found, output))  # type: ignore[operator]

    plain = peak(lambda found, _: FairBackward(trained(unet), LinearScalarization())(found))
    assert peak(lambda found, output: fair(found, output=output)) - plain <= 1.1 * size


@amortised
def test_under_a_grad_scaler(mode: str) -> None:
    """Weights don't depend on the loss scale, also where it changes; an overflow skips the step."""
    unet = small_unet()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=1, growth_factor=16.0)
    optimizer = torch.optim.SGD(trained(unet), lr=0.0)
    plain = fair_backward(unet, mode)
    steps = [take(plain, unet, seed) for seed in range(3)]
    fair = fair_backward(unet, mode)
    fair.scaler = scaler
    for seed, wanted in enumerate(steps):
        step = take(fair, unet, seed)
        np.testing.assert_allclose(step.weights, wanted.weights, rtol=1e-4)
        assert step.norm == pytest.approx(wanted.norm, rel=1e-4)
        torch.testing.assert_close(flat_grad(unet).norm().item(), scaler.get_scale(), rtol=1e-4, atol=0.0)
        scaler.step(optimizer)
        scaler.update()
    found, output = losses(unet, 5)
    assert found[1] is not None
    skipped = fair([found[0], found[1] * torch.inf, found[2]], output=output)
    assert skipped is not None
    assert skipped.skipped
    assert fair.skipped_steps == 1
    assert not bool(flat_grad(unet).isfinite().any())
    assert not take(fair, unet, 6).skipped


@every_mode
def test_a_first_step_that_overflows_is_followed_by_another_exact_one(mode: str) -> None:
    unet = small_unet()
    fair = fair_backward(unet, mode)
    fair.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    found, output = losses(unet, 0)
    assert found[0] is not None
    skipped = fair([found[0] * torch.inf, *found[1:]], output=output)
    assert skipped is not None
    assert skipped.skipped
    steps = [take(fair, unet, seed) for seed in (1, 2)]
    assert [step.skipped for step in steps] == [False, False]
    assert steps[0].exact or mode == "output"  # which needs no exact step
    assert not steps[1].exact


@amortised
def test_a_loss_that_is_not_finite_is_an_error_and_a_good_step_can_follow(mode: str) -> None:
    unet = small_unet()
    fair = fair_backward(unet, mode)
    take(fair, unet, 0)
    found, output = losses(unet, 1)
    assert found[2] is not None
    with pytest.raises(FloatingPointError, match=r"losses\[2\]"):
        fair([found[0], found[1], found[2] * torch.nan], output=output)
    assert not take(fair, unet, 2).exact


@pytest.mark.parametrize(
    "mode", [mode if mode in ("tail", "split") else pytest.param(mode, marks=pytest.mark.slow) for mode in ESTIMATORS]
)
def test_gradient_checkpointing_changes_nothing(mode: str) -> None:
    targets = "attention" if mode == "split" else "attention+conv"
    plain, saving = small_unet(targets), small_unet(targets)
    saving.enable_gradient_checkpointing()
    fair, other = fair_backward(plain, mode), fair_backward(saving, mode)
    for seed in range(3):
        expected, step = take(fair, plain, seed), take(other, saving, seed)
        np.testing.assert_allclose(step.weights, expected.weights, rtol=1e-4)
        torch.testing.assert_close(flat_grad(saving), flat_grad(plain), rtol=0.0, atol=1e-5)


@amortised
def test_autocast(mode: str) -> None:
    unet = small_unet()
    fair = fair_backward(unet, mode)
    exact = take(fair, unet, 0)
    rough = fair_backward(unet, mode)
    for _ in range(2):
        with torch.autocast("cpu", torch.bfloat16):
            step = take(rough, unet, 0)
    assert not step.exact
    assert exact.cosine is None or exact.cosine > 0.9
    assert bool(flat_grad(unet).isfinite().all())


@amortised
def test_loss_weightings_use_no_estimator(mode: str) -> None:
    unet = small_unet()
    rows = true_gradients(unet, 0)
    step = take(fair_backward(unet, mode, LinearScalarization()), unet, 0)
    total = rows.sum(dim=0)
    torch.testing.assert_close(flat_grad(unet), total / total.norm(), rtol=0.0, atol=1e-5)
    assert step.gram is None


@pytest.mark.parametrize("mode", ["output", "tail"])
def test_accumulation_is_refused_by_estimators_of_one_micro_batch(mode: str) -> None:
    unet = small_unet()
    fair = fair_backward(unet, mode)
    take(fair, unet, 0)
    found, output = losses(unet, 1)
    with pytest.raises(ValueError, match="one micro-batch per step; use EmaEstimator"):
        fair(found, output=output, sync=False)
    assert not take(fair, unet, 2).exact


def test_ema_accumulates() -> None:
    """Weights are fixed at the first micro-batch; exact steps see the whole."""
    unet = small_unet()
    fair = fair_backward(unet, "ema")
    for number in range(6):
        unet.zero_grad()
        seeds = (2 * number, 2 * number + 1)
        rows = torch.stack([true_gradients(unet, seed) for seed in seeds]).sum(dim=0)
        for seed in seeds:
            found, output = losses(unet, seed)
            step = fair(found, output=output, sync=seed == seeds[-1])
        assert step is not None
        assert step.exact == (number % 4 == 0)
        direction = step.weights @ rows
        torch.testing.assert_close(flat_grad(unet), direction / direction.norm(), rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("told", [True, False])
def test_ema_accumulates_without_an_absent_objective_if_it_is_told(told: bool) -> None:
    unet = small_unet()
    fair = fair_backward(unet, "ema")
    audit = take(fair, unet, 0)
    unet.zero_grad()
    rows = torch.stack([true_gradients(unet, seed, absent=True) for seed in (1, 2)]).sum(dim=0)
    for seed in (1, 2):
        found, output = losses(unet, seed, absent=True)
        step = fair(found, output=output, sync=seed == 2, present=[True, False, True] if told else None)
    assert step is not None
    assert step.present == (True, not told, True)
    assert (step.weights[1] == 0.0) == told
    mask = torch.tensor([1.0, float(not told), 1.0])
    expected = solve(audit.gram * torch.outer(mask, mask))
    np.testing.assert_allclose(step.weights / step.weights.sum(), expected / expected.sum(), rtol=1e-6)
    direction = step.weights @ rows
    torch.testing.assert_close(flat_grad(unet), direction / direction.norm(), rtol=0.0, atol=1e-5)


def test_an_audit_of_ema_judges_the_weights_of_what_is_present() -> None:
    unet = small_unet()
    fair = fair_backward(unet, "ema", every=1)
    audit = take(fair, unet, 0)
    found, output = losses(unet, 1, absent=True)
    step = fair(found, output=output, present=[True, False, True])
    assert step is not None
    assert step.cosine is not None
    guess, exact = torch.zeros(3).double(), step.weights
    guess[[0, 2]] = solve(audit.gram[[0, 2]][:, [0, 2]])
    a, b = (float(weights @ step.gram @ weights) ** 0.5 for weights in (guess, exact))
    assert step.cosine == pytest.approx(float(guess @ step.gram @ exact) / (a * b))


def test_output_needs_the_network_output() -> None:
    unet = small_unet()
    with pytest.raises(ValueError, match="call fair"):
        fair_backward(unet, "output")(losses(unet)[0])


def test_output_is_exact_if_all_gains_are_equal() -> None:
    """With one scalar parameter per pixel, M = κ C for any losses, so one exact step is enough."""
    generator = torch.Generator().manual_seed(0)
    parameter = torch.nn.Parameter(torch.randn(4, 3, 8, 8, generator=generator))
    fair = FairBackward([parameter], MinimumPotentialDelay(), estimator=OutputEstimator([parameter], 100, warm_up=1))
    for seed in range(2):
        prediction = 3.0 * parameter
        target = torch.randn(4, 3, 8, 8, generator=generator)
        errors = (prediction - target).square()
        three = [errors.mean(), errors[..., :2].mean(), errors[:, :, 3:5, 2:7].mean()]
        rows = torch.stack([torch.autograd.grad(loss, parameter, retain_graph=True)[0].reshape(-1) for loss in three])
        step = fair(three, output=Output(prediction))
        assert step is not None
        np.testing.assert_allclose(step.weights, solve(rows.double() @ rows.double().T), rtol=1e-4)
        assert step.exact == (seed == 0)
