"""Each strategy against a second statement of its formula, and against torchjd where it has the strategy."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import root
from torchjd.aggregation import FairGradWeighting
from torchjd.scalarization import DWA, UW

from fairhuman.fairness import (
    STRATEGIES,
    AlphaFair,
    DynamicWeightAverage,
    GradientBalancing,
    LinearScalarization,
    LossWeighting,
    MinimumPotentialDelay,
    NashMTL,
    RandomLossWeighting,
    ScaleInvariant,
    Strategy,
    UncertaintyWeighting,
)
from fairhuman.train.settings import GRADIENT_BALANCING, LOSS_WEIGHTING


def random_gram(seed: int, size: int = 3) -> torch.Tensor:
    rows = torch.randn(size, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return rows @ rows.T / 20.0


def random_losses(steps: int, seed: int = 0) -> list[list[float]]:
    drawn: list[list[float]] = np.random.default_rng(seed).uniform(0.1, 2.0, (steps, 3)).tolist()
    return drawn


def test_the_table_has_every_strategy_once() -> None:
    assert tuple(STRATEGIES) == (*LOSS_WEIGHTING, *GRADIENT_BALANCING)
    assert {"ls", "dwa", "uw", "rlw", "si", "nash", "mpd", "alpha"} <= STRATEGIES.keys()
    assert all(issubclass(strategy, LossWeighting | GradientBalancing) for strategy in STRATEGIES.values())
    assert len(set(STRATEGIES.values())) == len(STRATEGIES)


# --- linear scalarisation ----------------------------------------------------------------------------------------


def test_ls() -> None:
    assert LinearScalarization().weights([3.0, None, 1.0]) == [1.0, 1.0, 1.0]
    assert LinearScalarization([1.0, 0.0, 2.5]).weights([3.0, 2.0, 1.0]) == [1.0, 0.0, 2.5]


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf])
def test_ls_rejects_bad_coefficients(value: float) -> None:
    with pytest.raises(ValueError, match=r"coefficients\[1\]"):
        LinearScalarization([1.0, value])


def test_ls_rejects_a_wrong_number_of_coefficients() -> None:
    with pytest.raises(ValueError, match="2 coefficients for 3 losses"):
        LinearScalarization([1.0, 1.0]).weights([1.0, 1.0, 1.0])


# --- dynamic weight average --------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 2.0])
@pytest.mark.parametrize("window", [1, 4])
def test_dwa_agrees_with_numpy_and_torchjd(window: int, temperature: float) -> None:
    history = np.array(random_losses(6 * window))
    strategy, theirs = DynamicWeightAverage(temperature, window), DWA(temperature)
    for step, losses in enumerate(history):
        weights = strategy.weights(losses.tolist())
        epoch = step // window
        if epoch < 2:
            expected = np.ones(3)
        else:
            means = history[: epoch * window].reshape(epoch, window, 3).mean(1)
            exponentials = np.exp(means[-1] / means[-2] / temperature)
            expected = 3.0 * exponentials / exponentials.sum()
        np.testing.assert_allclose(weights, expected, rtol=1e-12)
        values = torch.tensor(losses, requires_grad=True)
        (theirs_weights,) = torch.autograd.grad(theirs(values), values)
        np.testing.assert_allclose(weights, theirs_weights, rtol=1e-12)
        strategy.observe(losses.tolist())
        if (step + 1) % window == 0:
            theirs.step()


def test_dwa_averages_an_objective_over_the_steps_where_it_was_present() -> None:
    strategy = DynamicWeightAverage(window=2)
    for losses in ([1.0, 4.0], [1.0, None], [2.0, None], [2.0, 2.0]):
        strategy.weights(losses)
        strategy.observe(losses)
    exponentials = np.exp(np.array([2.0 / 1.0, 2.0 / 4.0]) / 2.0)
    np.testing.assert_allclose(strategy.weights([1.0, 1.0]), 2.0 * exponentials / exponentials.sum(), rtol=1e-12)


def test_dwa_keeps_the_last_windows_of_an_objective_that_is_absent_for_long() -> None:
    strategy = DynamicWeightAverage(window=1)
    for losses in ([1.0, 4.0], [1.0, 2.0], [1.0, None], [1.0, None]):
        strategy.observe(losses)
    exponentials = np.exp(np.array([1.0, 0.5]) / 2.0)
    np.testing.assert_allclose(strategy.weights([1.0, None]), 2.0 * exponentials / exponentials.sum(), rtol=1e-12)


def test_dwa_survives_an_explosion() -> None:
    strategy = DynamicWeightAverage(window=1)
    for losses in ([1e-3, 1.0], [1e3, 1.0]):
        strategy.observe(losses)
    np.testing.assert_allclose(strategy.weights([1.0, 1.0]), [2.0, 0.0], atol=1e-12)


@pytest.mark.parametrize(("temperature", "window"), [(0.0, 1), (-1.0, 1), (math.nan, 1), (2.0, 0)])
def test_dwa_settings_out_of_range(temperature: float, window: int) -> None:
    with pytest.raises(ValueError, match=r"temperature|window"):
        DynamicWeightAverage(temperature, window)


# --- uncertainty weighting ---------------------------------------------------------------------------------------


def test_uw_agrees_with_autograd_and_torchjd() -> None:
    """Weights and the gradient of s are those of Σ ½ exp(-s_i) L_i + ½ s_i, over steps of an optimiser."""
    strategy, theirs = UncertaintyWeighting(3), UW(3)
    ours = torch.optim.SGD(strategy.parameters(), lr=0.3)
    other = torch.optim.SGD(theirs.parameters(), lr=0.3)
    for losses in random_losses(20):
        values = torch.tensor(losses, requires_grad=True)
        other.zero_grad()
        theirs(values).backward()
        np.testing.assert_allclose(strategy.weights(losses), values.grad, rtol=1e-5)
        ours.zero_grad()
        strategy.observe(losses)
        assert strategy.s.grad is not None
        assert theirs.log_var.grad is not None
        np.testing.assert_allclose(strategy.s.grad, theirs.log_var.grad, rtol=1e-4, atol=1e-6)
        ours.step()
        other.step()
    assert strategy.s.abs().min() > 0.01
    # At rest exp(s_i) = L_i, so every weighted loss is one half.
    fixed = [0.2, 1.0, 5.0]
    for _ in range(500):
        ours.zero_grad()
        strategy.observe(fixed)
        ours.step()
    np.testing.assert_allclose(np.array(strategy.weights(fixed)) * fixed, 0.5, rtol=1e-4)


def test_uw_leaves_the_parameter_of_an_absent_objective_and_adds_to_grad() -> None:
    strategy = UncertaintyWeighting(2)
    strategy.observe([3.0, None])
    strategy.observe([3.0, None])
    assert strategy.s.grad is not None
    assert strategy.s.grad.tolist() == [2.0 * 0.5 * (1.0 - 3.0), 0.0]


def test_uw_needs_its_number_of_losses() -> None:
    with pytest.raises(ValueError, match="3 objectives, got 2"):
        UncertaintyWeighting(3).weights([1.0, 1.0])
    with pytest.raises(ValueError, match="objectives"):
        UncertaintyWeighting(0)


# --- random loss weighting ---------------------------------------------------------------------------------------


def test_rlw_is_the_softmax_of_normals() -> None:
    strategy = RandomLossWeighting(seed=7)
    drawn = np.array([strategy.weights([1.0, 1.0, 1.0]) for _ in range(20_000)])
    np.testing.assert_allclose(drawn.sum(1), 1.0, rtol=1e-12)
    # log-ratios of a softmax of independent standard normals are normal with variance 2 and correlation ½.
    ratios = np.log(drawn[:, :2] / drawn[:, 2:])
    np.testing.assert_allclose(ratios.mean(0), 0.0, atol=0.04)
    np.testing.assert_allclose(np.cov(ratios.T), [[2.0, 1.0], [1.0, 2.0]], atol=0.1)


def test_rlw_uses_its_own_generator() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    first = RandomLossWeighting(3).weights([1.0, 1.0])
    assert torch.equal(torch.get_rng_state(), before)
    assert first == RandomLossWeighting(3).weights([1.0, 1.0])
    assert first != RandomLossWeighting(4).weights([1.0, 1.0])


# --- scale-invariant ---------------------------------------------------------------------------------------------


def test_si_is_the_gradient_of_a_sum_of_logarithms() -> None:
    losses = [0.3, 2.0, 7.0]
    values = torch.tensor(losses, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(values.log().sum(), values)
    np.testing.assert_allclose(ScaleInvariant().weights(losses), expected, rtol=1e-14)
    assert ScaleInvariant().weights([0.5, None]) == [2.0, 0.0]


def test_si_is_invariant_to_the_scale_of_a_loss() -> None:
    losses = [0.3, 2.0, 7.0]
    factors = [1e-6, 1.0, 1e4]
    scaled = ScaleInvariant().weights([loss * factor for loss, factor in zip(losses, factors, strict=True)])
    np.testing.assert_allclose(np.array(scaled) * factors, ScaleInvariant().weights(losses), rtol=1e-14)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_si_needs_positive_losses(value: float) -> None:
    with pytest.raises(ValueError, match=r"losses\[1\]"):
        ScaleInvariant().weights([1.0, value])


# --- gradient balancing ------------------------------------------------------------------------------------------

BALANCING: dict[str, tuple[Callable[[], GradientBalancing], float]] = {
    "nash": (NashMTL, 1.0),
    "mpd": (MinimumPotentialDelay, 2.0),
    "alpha 0.5": (lambda: AlphaFair(0.5), 0.5),
    "alpha 4": (lambda: AlphaFair(4.0), 4.0),
}


@pytest.mark.parametrize("name", BALANCING)
def test_balancing_agrees_with_a_root_finder_and_with_torchjd(name: str) -> None:
    build, alpha = BALANCING[name]
    strategy = build()
    theirs = FairGradWeighting(alpha)
    for seed in range(10):
        gram = random_gram(seed)
        matrix = gram.numpy()
        # u_i = log (M w)_i + log w_i / α, in v = log w
        found = root(lambda v, m=matrix: np.log(m @ np.exp(v)) + v / alpha, -np.log(np.diag(matrix)) / 2.0)
        assert found.success
        weights = strategy.weights(gram)
        np.testing.assert_allclose(weights, np.exp(found.x), rtol=1e-6)
        np.testing.assert_allclose(weights, theirs(gram), rtol=1e-3)


def test_mpd_minimises_the_total_delay_among_directions_of_one_length() -> None:
    """Σ 1 / (g_iᵀ d) over ‖d‖ = 1: no random direction near or far is better."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((3, 6)) + 0.5
    direction = np.array(MinimumPotentialDelay().weights(torch.from_numpy(rows @ rows.T))) @ rows
    direction /= np.linalg.norm(direction)
    best = (1.0 / (rows @ direction)).sum()
    for spread in (0.01, 0.1, 1.0):
        others = direction + spread * generator.standard_normal((2_000, 6))
        progress = (others / np.linalg.norm(others, axis=1, keepdims=True)) @ rows.T
        delays = (1.0 / progress[(progress > 0.0).all(1)]).sum(1)
        assert len(delays) > 10
        assert delays.min() > best


def test_nash_maximises_the_product_of_progress() -> None:
    generator = np.random.default_rng(1)
    rows = generator.standard_normal((3, 6)) + 0.5
    direction = np.array(NashMTL().weights(torch.from_numpy(rows @ rows.T))) @ rows
    direction /= np.linalg.norm(direction)
    best = np.prod(rows @ direction)
    others = direction + 0.1 * generator.standard_normal((5_000, 6))
    progress = (others / np.linalg.norm(others, axis=1, keepdims=True)) @ rows.T
    assert progress[(progress > 0.0).all(1)].prod(1).max() < best


def test_balancing_gives_an_absent_objective_no_weight() -> None:
    gram = random_gram(2)
    gram[1] = gram[:, 1] = 0.0
    for build, _ in BALANCING.values():
        weights = build().weights(gram)
        assert weights[1] == 0.0
        assert weights[0] > 0.0
        assert weights[2] > 0.0


def test_balancing_reports_the_solvers_info() -> None:
    strategy = MinimumPotentialDelay()
    assert strategy.info is None
    strategy.weights(torch.tensor([[1.0, -1.0], [-1.0, 1.0]]))
    assert strategy.info is not None
    assert strategy.info.singular
    assert strategy.ridge_used == strategy.info.ridge > 0.0
    strategy.weights(torch.eye(2))
    assert strategy.ridge_used == 0.0


@pytest.mark.parametrize("alpha", [0.0, -2.0, math.nan])
def test_alpha_out_of_range_is_found_at_once(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        AlphaFair(alpha)


# --- state -------------------------------------------------------------------------------------------------------

STATEFUL: dict[str, Callable[[], LossWeighting]] = {
    "dwa": lambda: DynamicWeightAverage(window=3),
    "uw": lambda: UncertaintyWeighting(3),
    "rlw": lambda: RandomLossWeighting(5),
}


def run(strategy: LossWeighting, losses: list[list[float]]) -> list[list[float]]:
    """Weights over the steps of a run, with the strategy's parameters trained by gradient descent."""
    said = []
    for values in losses:
        said.append(strategy.weights(values))
        strategy.observe(values)
        for parameter in strategy.parameters():
            assert parameter.grad is not None
            parameter.data -= 0.1 * parameter.grad
            parameter.grad = None
    return said


@pytest.mark.parametrize("stop", [0, 1, 7, 8, 9])
@pytest.mark.parametrize("name", STATEFUL)
def test_a_restored_strategy_continues_identically(name: str, stop: int) -> None:
    """Also in the middle of a DWA window (3 steps), and although the saved run goes on after saving."""
    losses = random_losses(16)
    whole = run(STATEFUL[name](), losses)
    assert len({tuple(row) for row in whole}) > 2
    first = STATEFUL[name]()
    run(first, losses[:stop])
    state = first.state_dict()
    run(first, losses[stop:])
    second = STATEFUL[name]()
    run(second, losses[:2])  # its own past is overwritten
    second.load_state_dict(state)
    assert run(second, losses[stop:]) == whole[stop:]


@pytest.mark.parametrize("name", STATEFUL)
def test_state_survives_torch_save(name: str, tmp_path: object) -> None:
    strategy = STATEFUL[name]()
    run(strategy, random_losses(8))
    path = f"{tmp_path}/state.pt"
    torch.save(strategy.state_dict(), path)
    other = STATEFUL[name]()
    other.load_state_dict(torch.load(path, weights_only=True))
    assert run(other, random_losses(5, seed=1)) == run(strategy, random_losses(5, seed=1))


@pytest.mark.parametrize("build", [LinearScalarization, ScaleInvariant, NashMTL, MinimumPotentialDelay, AlphaFair])
def test_stateless_strategies_say_so(build: Callable[[], Strategy]) -> None:
    strategy = build()
    assert strategy.state_dict() == {}
    strategy.load_state_dict({})
    with pytest.raises(ValueError, match="no state"):
        strategy.load_state_dict({"s": 1})
