"""A floor for the rate of the whole picture: closed forms, nearest direction, degenerate problems, a real step."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fairhuman.fairness import (
    AlphaFair,
    ExactEstimator,
    FairBackward,
    MinimumPotentialDelay,
    NashMTL,
    Output,
    OutputEstimator,
    RateFloor,
    solve,
)
from helpers.tiny_net import TinyUNet, batch, flat_grad, three_losses, trained, true_gradients


def gradients(seed: int, size: int = 3) -> torch.Tensor:
    """G^T [K, P], with lengths that differ."""
    rows = torch.randn(size, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return rows * torch.logspace(0, 1.5, size, dtype=torch.float64)[:, None]


def rate(rows_kp: torch.Tensor, weights: list[float], guarded: int = 1) -> float:
    direction, gradient = torch.tensor(weights, dtype=torch.float64) @ rows_kp, rows_kp[:guarded].sum(0)
    return float(direction @ gradient / direction.norm() / gradient.norm())


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("floor", [0.0, 0.3, 0.7, 0.95, 0.999, 1.0])
@pytest.mark.parametrize("size", [2, 3, 5])
def test_the_floor_holds_with_equality_where_it_binds_and_the_direction_is_the_nearest(
    seed: int, floor: float, size: int
) -> None:
    rows_kp = gradients(seed, size)
    gram_kk = rows_kp @ rows_kp.T
    before = solve(gram_kk, 2.0).tolist()
    strategy = RateFloor(MinimumPotentialDelay(), floor)
    weights = strategy.weights(gram_kk)
    assert strategy.turned is not None
    if rate(rows_kp, before) >= floor:
        assert weights == before
        assert strategy.turned == 0.0
        return
    assert rate(rows_kp, weights) == pytest.approx(floor, abs=1e-9)
    # the nearest direction of the cone: the fair one, turned in its plane with g by the least possible angle
    old, new = (torch.tensor(w, dtype=torch.float64) @ rows_kp for w in (before, weights))
    between = math.acos(min(1.0, float(old @ new / old.norm() / new.norm())))
    assert math.degrees(between) == pytest.approx(strategy.turned, abs=1e-4)
    assert between == pytest.approx(math.acos(rate(rows_kp, before)) - math.acos(floor), abs=1e-6)
    if floor < 1.0:  # the other objectives keep their weights
        assert weights[1:] == pytest.approx(before[1:], rel=1e-12)
        assert weights[0] > before[0]
    else:
        assert weights[1:] == [0.0] * (size - 1)


def test_orthogonal_gradients_have_a_closed_form() -> None:
    """Of lengths a, 1 under MPD, ‖w_i g_i‖ = ‖g_i‖^(-1/3); a floor of cos 30° raises the first part to √3 times."""
    gram = torch.diag(torch.tensor([64.0, 1.0], dtype=torch.float64))
    weights = RateFloor(MinimumPotentialDelay(), math.sqrt(3.0) / 2.0).weights(gram)
    assert weights[1] == pytest.approx(1.0)
    assert weights[0] * 8.0 == pytest.approx(math.sqrt(3.0))
    assert 8.0 * solve(gram, 2.0)[0] == pytest.approx(0.5)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0, 4.0])
def test_a_scale_of_all_gradients_changes_nothing_but_the_length(alpha: float) -> None:
    gram = gradients(1) @ gradients(1).T
    one, other = (RateFloor(AlphaFair(alpha), 0.9) for _ in range(2))
    a, b = np.array(one.weights(gram)), np.array(other.weights(1e-6 * gram))
    assert b / b.sum() == pytest.approx(a / a.sum(), rel=1e-9)
    # an estimator that has M only up to a factor finds the scale by the true length
    true = math.sqrt(a @ gram.numpy() @ a)
    mistaken = math.sqrt(b @ gram.numpy() @ b)
    assert other.natural_factor(b.tolist(), mistaken) * b == pytest.approx(a, rel=1e-9)
    assert one.natural_factor(a.tolist(), true) == pytest.approx(1.0)
    # and none of it is left where the floor then holds by itself
    one.floor = 0.0
    plain = np.array(one.weights(gram))
    assert one.natural_factor(plain.tolist(), math.sqrt(plain @ gram.numpy() @ plain)) == pytest.approx(1.0)


def test_bands_are_guarded_as_their_sum() -> None:
    rows_kp = gradients(3, 4)
    gram = rows_kp @ rows_kp.T
    before = solve(gram, 2.0).tolist()
    weights = RateFloor(MinimumPotentialDelay(), 0.9, guarded=2).weights(gram)
    assert rate(rows_kp, before, 2) < 0.9
    assert rate(rows_kp, weights, 2) == pytest.approx(0.9)
    assert weights[0] - before[0] == pytest.approx(weights[1] - before[1])
    assert weights[2:] == pytest.approx(before[2:])


def test_degenerate_problems() -> None:
    strategy = RateFloor(NashMTL(), 0.99)
    gram = gradients(2) @ gradients(2).T
    missing = gram.clone()
    missing[2] = missing[:, 2] = 0.0  # no hand in this step
    assert strategy.weights(missing)[2] == 0.0
    assert rate(gradients(2), strategy.weights(missing)) == pytest.approx(0.99)
    missing = gram.clone()
    missing[0] = missing[:, 0] = 0.0  # nothing to guard
    assert strategy.weights(missing) == solve(missing, 1.0).tolist()
    assert strategy.turned is None
    alone = torch.zeros(3, 3, dtype=torch.float64)
    alone[0, 0] = 4.0
    assert strategy.weights(alone) == solve(alone, 1.0).tolist()
    assert strategy.turned == 0.0
    assert strategy.weights(torch.zeros(3, 3, dtype=torch.float64)) == [0.0] * 3

    class Against(NashMTL):
        """d = -g of the first objective, as no alpha-fair rule has it."""

        def weights(self, gram: torch.Tensor) -> list[float]:
            return [-1.0, *[0.0] * (len(gram) - 1)]

    weights = RateFloor(Against(), 0.5).weights(gram)
    assert weights == [1.0, 0.0, 0.0]


@pytest.mark.parametrize(("floor", "guarded"), [(-0.1, 1), (1.1, 1), (math.nan, 1), (0.5, 0)])
def test_arguments_out_of_range(floor: float, guarded: int) -> None:
    with pytest.raises(ValueError, match=r"must be (in 0..1|>= 1), got"):
        RateFloor(MinimumPotentialDelay(), floor, guarded)


@pytest.mark.parametrize("kind", ["exact", "output"])
def test_the_written_direction_has_the_floor(kind: str) -> None:
    """Exactly in mode exact; in an estimated step of mode output by the estimate, as the audits of that mode show."""
    net = TinyUNet()
    parameters, data = trained(net), batch()
    make: Callable[[], ExactEstimator | OutputEstimator] = (
        (lambda: ExactEstimator(parameters)) if kind == "exact" else (lambda: OutputEstimator(parameters, 4, warm_up=2))
    )
    found = []
    for floor in (0.0, 0.97):
        fair = FairBackward(parameters, RateFloor(MinimumPotentialDelay(), floor), estimator=make())
        for _ in range(4 if kind == "output" else 1):
            net.zero_grad()
            output = net(data[0])
            step = fair(three_losses(lambda _, out=output: out, data), output=Output(output))
        assert step is not None
        assert step.exact is (kind == "exact")
        rows = true_gradients(lambda: three_losses(net, data), parameters)
        direction = flat_grad(parameters)
        found.append(float(direction @ rows[0] / np.linalg.norm(direction) / np.linalg.norm(rows[0])))
        assert float(step.rates[0]) >= floor - 1e-9  # type: ignore[index]
        assert step.turned == pytest.approx(0.0) if floor == 0.0 else step.turned > 0.0
    assert found[0] < 0.9
    assert found[1] == pytest.approx(0.97, abs=1e-5 if kind == "exact" else 0.02)
