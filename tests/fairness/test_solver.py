"""The weights of alpha-fair directions, judged by independent NumPy statements of the equation."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from fairhuman.fairness import SolverInfo, solve, solve_info

ALPHAS = (0.5, 1.0, 2.0, 4.0, 8.0)


def unit_matrix(size: int, condition: float, generator: np.random.Generator) -> np.ndarray:
    """A random unit-diagonal correlation matrix with a spectrum spread over about `condition`."""
    basis, _ = np.linalg.qr(generator.standard_normal((size, size)))
    matrix = (basis * np.exp(generator.uniform(0.0, np.log(condition), size))) @ basis.T
    matrix = (matrix + matrix.T) / 2.0
    scale = 1.0 / np.sqrt(np.diag(matrix))
    return matrix * np.outer(scale, scale)


def random_problems(count: int, seed: int) -> Iterator[tuple[np.ndarray, float, float, bool]]:
    """Gram matrix, α, condition of its unit-diagonal form, whether all gradients share one scale."""
    generator = np.random.default_rng(seed)
    for _ in range(count):
        size = int(generator.integers(1, 9))
        alpha = float(generator.choice(ALPHAS))
        unit = unit_matrix(size, 10.0 ** generator.uniform(0.0, 14.0), generator)
        common = bool(generator.integers(2))
        norms = np.ones(size) * 10.0 ** generator.uniform(-12.0, 12.0, 1 if common else size)
        yield unit * np.outer(norms, norms), alpha, float(np.linalg.cond(unit)), common


def residual(matrix: np.ndarray, weights: np.ndarray, alpha: float) -> float:
    return float(np.abs((matrix @ weights) * weights ** (1.0 / alpha) - 1.0).max())


def backward_error(matrix: np.ndarray, weights: np.ndarray, alpha: float) -> float:
    return float((np.abs(matrix @ weights - weights ** (-1.0 / alpha)) / (np.abs(matrix) @ weights)).max())


def check_random_problems(count: int, seed: int) -> None:
    well = singular = 0
    for gram, alpha, condition, common in random_problems(count, seed):
        info = solve_info(gram.tolist(), alpha)
        weights = info.weights.numpy()
        label = f"K={len(gram)} alpha={alpha} condition={condition:.1e} common={common} {info}"
        assert info.converged, label
        assert np.isfinite(weights).all(), label
        assert (weights > 0.0).all(), label
        if info.singular:
            singular += 1
            assert condition >= 1e11, label
            assert info.ridge > 0.0, label
        else:
            assert info.ridge == 0.0, label
        solved = gram + info.ridge * np.diag(np.diag(gram))
        if common and condition <= 1e4:
            well += 1
            assert residual(solved, weights, alpha) <= 1e-8, label
        else:
            assert backward_error(solved, weights, alpha) <= 1e-11, label
    assert well > count // 20  # the strict half of the contract has been exercised
    assert singular < count // 20


def test_two_thousand_random_problems_are_solved() -> None:
    check_random_problems(2_000, seed=0)


@pytest.mark.slow
def test_a_hundred_thousand_random_problems_are_solved() -> None:
    check_random_problems(100_000, seed=1)


@pytest.mark.parametrize("alpha", [30.0, 100.0])
@pytest.mark.parametrize("ratio", [1e6, 1e14])
@pytest.mark.parametrize("cosine", [0.5, 0.9])
def test_a_weight_below_what_a_float_can_say_is_0(alpha: float, ratio: float, cosine: float) -> None:
    """The second gradient's rate is met by the first one alone, and w_2 = (cosine · ratio)^-α."""
    info = solve_info([[1.0, cosine * ratio], [cosine * ratio, ratio**2]], alpha)
    assert info.converged
    assert info.weights[0] == pytest.approx(1.0, rel=1e-9)
    assert 0.0 <= info.weights[1] <= max((cosine * ratio) ** -alpha, 1e-280)


def test_large_alpha_and_gradients_of_any_length_are_solved() -> None:
    generator = np.random.default_rng(3)
    for _ in range(300):
        size = int(generator.choice([2, 3, 5, 8]))
        rows = generator.normal(size=(size, 12)) + 5.0 * generator.normal(size=12)
        rows *= np.exp(8.0 * generator.normal(size=(size, 1)))
        info = solve_info(gram_of(rows), float(generator.choice([30.0, 100.0])))
        assert info.converged
        assert torch.isfinite(info.weights).all()


def gradients(*rows: list[float]) -> np.ndarray:
    return np.array(rows, dtype=np.float64)


def gram_of(rows: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(rows @ rows.T)


# --- closed forms and laws ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_orthogonal_gradients_have_the_closed_form(alpha: float) -> None:
    norms = np.array([1e-7, 0.3, 1.0, 2e5])
    expected = norms ** (-2.0 * alpha / (1.0 + alpha))
    np.testing.assert_allclose(solve(np.diag(norms**2).tolist(), alpha).numpy(), expected, rtol=1e-12)


def test_mpds_direction_is_longer_than_1_unless_gradients_are_longer_than_their_number() -> None:
    """‖d‖³ ≥ Σ 1 / ‖g_i‖, with equality for parallel gradients, so clipping at 1 is a fixed length of 1."""
    generator = np.random.default_rng(5)
    for rows in [generator.standard_normal((3, 20)) * 10.0 ** generator.uniform(-4, 2, (3, 1)) for _ in range(50)]:
        for gradients_kp in (rows, np.abs(rows[:, :1]) * rows[0]):
            weights = solve(gram_of(gradients_kp), 2.0).numpy()
            cubed = np.linalg.norm(weights @ gradients_kp) ** 3
            bound = (1 / np.linalg.norm(gradients_kp, axis=1)).sum()
            assert cubed >= bound * (1 - 1e-4), "parallel gradients get a ridge"
            assert gradients_kp is rows or cubed == pytest.approx(bound, rel=1e-4)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_the_solver_is_scale_equivariant(alpha: float) -> None:
    """Gradients times s give weights times s^(-2α/(1+α)), for all s; SciPy from 1/K is 100 % wrong at 1e-6."""
    gram = gram_of(np.random.default_rng(3).standard_normal((3, 20)))
    reference = solve(gram, alpha)
    for scale in 10.0 ** np.arange(-12.0, 13.0):
        weights = solve(gram * scale**2, alpha)
        np.testing.assert_allclose(weights, reference * scale ** (-2.0 * alpha / (1.0 + alpha)), rtol=1e-11)
        assert residual(gram.numpy() * scale**2, weights.numpy(), alpha) <= 1e-11


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("size", [2, 3, 5, 8])
def test_order_of_objectives_does_not_matter(alpha: float, size: int) -> None:
    generator = np.random.default_rng(size)
    gram = gram_of(generator.standard_normal((size, 12)) * 10.0 ** generator.uniform(-3, 3, (size, 1)))
    order = generator.permutation(size)
    permuted = solve(gram[order][:, order], alpha)
    np.testing.assert_allclose(permuted, solve(gram, alpha)[order], rtol=1e-9)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_one_objective(alpha: float) -> None:
    assert solve([[4.0]], alpha).item() == pytest.approx(2.0 ** (-2.0 * alpha / (1.0 + alpha)), rel=1e-13)


@pytest.mark.parametrize("alpha", ALPHAS)
def test_agrees_with_a_general_optimiser(alpha: float) -> None:
    """Minimise f(w) over log w with SciPy's BFGS, a method that shares nothing with ours."""
    generator = np.random.default_rng(int(10 * alpha))
    for _ in range(10):
        rows = generator.standard_normal((3, 10))
        gram = rows @ rows.T / 10.0

        def objective(u: np.ndarray, gram: np.ndarray = gram) -> tuple[float, np.ndarray]:
            w = np.exp(u)
            barrier = u.sum() if alpha == 1.0 else alpha / (alpha - 1.0) * (w ** (1.0 - 1.0 / alpha)).sum()
            return 0.5 * w @ gram @ w - barrier, w * (gram @ w) - w ** (1.0 - 1.0 / alpha)

        found = minimize(objective, np.zeros(3), jac=True, method="BFGS", options={"gtol": 1e-9})
        np.testing.assert_allclose(solve(gram.tolist(), alpha), np.exp(found.x), rtol=1e-5)


def test_small_alpha_approaches_equal_weights() -> None:
    """α → 0 is linear scalarisation: w_i = (g_iᵀ d)^(-α) → 1."""
    gram = gram_of(gradients([1.0, 0.2, 0.0], [0.5, 3.0, 0.0], [0.1, 0.0, 0.3]))
    spreads = []
    for alpha in (0.5, 0.1, 0.02, 0.004):
        weights = solve(gram, alpha)
        assert residual(gram.numpy(), weights.numpy(), alpha) <= 1e-8
        spreads.append((weights.max() / weights.min() - 1.0).item())
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] < 0.02


def test_large_alpha_approaches_max_min() -> None:
    """α → ∞ gives the unit direction whose smallest progress is largest: all progress equal, here."""
    rows = gradients([1.0, 0.2, 0.0], [0.5, 3.0, 0.0], [0.1, 0.0, 0.3])
    best = 1.0 / math.sqrt(np.linalg.inv(rows @ rows.T).sum())  # the equal-progress direction of a regular M
    lowest = []
    for alpha in (0.5, 2.0, 8.0, 32.0, 128.0):
        direction = solve(gram_of(rows), alpha).numpy() @ rows
        lowest.append((rows @ direction / np.linalg.norm(direction)).min())
    assert lowest == sorted(lowest)
    assert 0.99 * best < lowest[-1] <= best * (1.0 + 1e-12)


# --- absent objectives -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", ALPHAS)
def test_an_empty_mask_gets_weight_zero(alpha: float) -> None:
    """A zero row is left out: weight 0, and the others as if it weren't there."""
    full = gram_of(np.random.default_rng(1).standard_normal((3, 9)))
    padded = torch.zeros(5, 5, dtype=torch.float64)
    keep = [0, 2, 3]
    padded[np.ix_(keep, keep)] = full
    info = solve_info(padded, alpha)
    assert info.present == (True, False, True, True, False)
    assert info.weights[1].item() == info.weights[4].item() == 0.0
    assert torch.equal(info.weights[keep], solve(full, alpha))
    assert not info.singular


def test_all_rows_zero() -> None:
    info = solve_info(torch.zeros(3, 3))
    assert info.weights.tolist() == [0.0, 0.0, 0.0]
    assert info.converged
    assert info.present == (False, False, False)


# --- singular and conflicting ------------------------------------------------------------------------------------

_ROOT = math.sqrt(0.75)
SINGULAR = {
    "opposite": gradients([1.0, 2.0], [-1.0, -2.0]),
    "opposite, twice as long": gradients([1.0, 2.0], [-2.0, -4.0]),
    "opposite, a thousand times as long": gradients([1.0, 2.0], [-1000.0, -2000.0]),
    "three at 120 degrees": gradients([1.0, 0.0], [-0.5, _ROOT], [-0.5, -_ROOT]),
    "duplicates": gradients([1.0, 2.0], [1.0, 2.0]),
    "rank one": gradients([1.0, 2.0], [3.0, 6.0], [0.1, 0.2], [5.0, 10.0]),
    "more objectives than dimensions": np.random.default_rng(5).standard_normal((6, 3)),
}


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
@pytest.mark.parametrize("name", SINGULAR)
def test_singular_matrices_give_a_flag_and_finite_weights(name: str, scale: float, alpha: float) -> None:
    gram = gram_of(scale * SINGULAR[name])
    info = solve_info(gram, alpha)
    assert info.singular
    assert info.converged
    assert info.ridge >= 1e-6
    weights = info.weights.numpy()
    assert np.isfinite(weights).all()
    assert (weights > 0.0).all()
    solved = gram.numpy() * (1.0 + info.ridge * np.eye(len(gram)))
    assert backward_error(solved, weights, alpha) <= 1e-11


CONFLICTS = ("opposite", "opposite, twice as long", "opposite, a thousand times as long", "three at 120 degrees")


@pytest.mark.parametrize("alpha", ALPHAS)
@pytest.mark.parametrize("name", CONFLICTS)
def test_conflicting_gradients_cancel(name: str, alpha: float) -> None:
    rows = SINGULAR[name]
    info = solve_info(gram_of(rows), alpha)
    shares = info.weights.numpy()[:, None] * rows
    assert np.linalg.norm(shares.sum(0)) <= 2.0 * info.ridge * np.linalg.norm(shares)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("name", CONFLICTS)
def test_a_third_objective_moves_alone_where_two_conflict(name: str, alpha: float) -> None:
    """Nothing moves in the conflicting subspace, compared with the rest; the third has its own closed form."""
    rows = np.pad(SINGULAR[name], ((0, 1), (0, 1)))
    rows[-1, -1] = 1.0
    info = solve_info(gram_of(rows), alpha)
    assert info.singular
    direction = info.weights.numpy() @ rows
    assert direction[-1] == pytest.approx(1.0, rel=1e-5)
    conflicting = info.weights.numpy()[:-1, None] * rows[:-1]
    assert np.linalg.norm(direction[:-1]) <= 2.0 * info.ridge * np.linalg.norm(conflicting)
    norms = np.linalg.norm(rows, axis=1)  # a direction goes with their power (1-α)/(1+α)
    scale = (norms ** ((1.0 - alpha) / (1.0 + alpha))).max()
    assert np.linalg.norm(direction[:-1]) <= info.ridge ** (1.0 / (1.0 + alpha)) * scale


def test_duplicates_share_the_weight_of_one() -> None:
    """Two copies of g: each gets w with (2 w) g² = w^(-1/α)."""
    weights = solve(gram_of(gradients([3.0, 4.0], [3.0, 4.0])), 2.0).numpy()
    np.testing.assert_allclose(weights, (2.0 * 25.0) ** (-2.0 / 3.0), rtol=1e-6)


def test_an_explicit_ridge_is_added_always() -> None:
    gram = gram_of(gradients([1.0, 0.5], [0.2, 2.0]))
    info = solve_info(gram, 2.0, ridge=0.1)
    assert info.ridge == 0.1
    assert not info.singular
    solved = gram.numpy() + 0.1 * np.diag(np.diag(gram.numpy()))
    assert residual(solved, info.weights.numpy(), 2.0) <= 1e-12
    assert residual(gram.numpy(), info.weights.numpy(), 2.0) > 1e-3


@pytest.mark.parametrize("size", [2, 3, 4, 8])
def test_float32_rounding_in_the_gram_matrix_is_handled(size: int) -> None:
    """Dependent gradients, float32 products: the smallest eigenvalue comes out near ±1e-7."""
    negative = 0
    for seed in range(200):
        generator = np.random.default_rng(seed)
        rows = generator.standard_normal((size, 5000))
        rows[-1] = rows[:-1].T @ generator.standard_normal(size - 1)
        rows = (rows * 10.0 ** generator.uniform(-4.0, 4.0, (size, 1))).astype(np.float32)
        gram = np.array([[np.dot(a, b) for b in rows] for a in rows])
        norms = np.sqrt(np.diag(gram).astype(np.float64))
        negative += bool(np.linalg.eigvalsh(gram / np.outer(norms, norms)).min() < -1e-14)
        info = solve_info(torch.from_numpy(gram))
        assert info.converged, seed
        assert bool(info.weights.isfinite().all())
        assert bool((info.weights > 0.0).all())
    assert negative > 20  # the case of interest was there


def test_a_matrix_far_from_positive_definite_still_terminates() -> None:
    """Not a Gram matrix at all (eigenvalue -1): the ridge grows until it is one."""
    info: SolverInfo = solve_info([[1.0, -1.0, -1.0], [-1.0, 1.0, -1.0], [-1.0, -1.0, 1.0]])
    assert info.singular
    assert info.ridge >= 1.0
    assert bool(info.weights.isfinite().all())


# --- bad input ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("entry", [(0, 0), (1, 2), (2, 1)])
def test_non_finite_entry_is_named(value: float, entry: tuple[int, int]) -> None:
    gram = torch.eye(3)
    gram[entry] = value
    with pytest.raises(ValueError, match=rf"gram\[{entry[0]}, {entry[1]}\]"):
        solve(gram)


@pytest.mark.parametrize("alpha", [0.0, -1.0, math.nan, math.inf])
def test_alpha_out_of_range(alpha: float) -> None:
    with pytest.raises(ValueError, match="alpha"):
        solve(torch.eye(2), alpha)


@pytest.mark.parametrize("ridge", [-1e-9, math.nan, math.inf])
def test_ridge_out_of_range(ridge: float) -> None:
    with pytest.raises(ValueError, match="ridge"):
        solve(torch.eye(2), ridge=ridge)


def test_gram_must_be_square() -> None:
    with pytest.raises(ValueError, match="square"):
        solve(torch.ones(2, 3))


def test_negative_diagonal_is_named() -> None:
    with pytest.raises(ValueError, match=r"gram\[1, 1\]"):
        solve([[1.0, 0.0], [0.0, -1.0]])


def test_input_is_unchanged_and_output_is_float64_on_the_cpu() -> None:
    rows = [[1.0, 0.5], [0.5, 2.0]]
    gram = torch.tensor(rows, dtype=torch.float32)
    weights = solve(gram)
    assert weights.dtype == torch.float64
    assert weights.device.type == "cpu"
    assert gram.tolist() == rows
    assert torch.equal(weights, solve(rows))
