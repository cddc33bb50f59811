"""Weights of alpha-fair directions: the small equation behind Nash-MTL, MPD and their family.

Given the Gram matrix M = GᵀG of K gradients, find w > 0 with

    (M w)_i = w_i^(-1/α),        i = 1..K

α = 1 is Nash-MTL, α = 2 is Minimum Potential Delay (FairHuman, Eq. 6), α → ∞ is max-min, which makes the smallest rate
as large as possible, in the direction of MGDA. w is the unique minimiser over w > 0 of the convex function

    f(w) = ½ wᵀ M w - α/(α-1) Σ w_i^(1-1/α)          (α = 1: ½ wᵀ M w - Σ log w_i)

so a damped Newton method finds it. To be independent of the gradients' scale, it runs on y_i = √M_ii w_i and
the unit-diagonal R_ij = M_ij / √(M_ii M_jj), where the equation reads (R y)_i = q_i y_i^(-1/α) with
q_i = M_ii^((1/α-1)/2); the geometric mean of q is divided out first and multiplied back at the end.

K is usually 3, so plain Python floats (IEEE double) are an order of magnitude faster than tensors.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from fairhuman.fairness.newton import Matrix, smallest_pivot, solve_unit

# A unit-diagonal matrix whose smallest Cholesky pivot is at most this is numerically singular.
_SINGULAR_PIVOT = 1e-14
# The relative ridge ε that is then added: M + ε diag(M). Weights in a conflicting subspace stay near ε^(-α/(1+α)).
DEFAULT_RIDGE = 1e-6


class SolverInfo(NamedTuple):
    """Weights of `solve_info` and diagnostics.

    weights: w [K], float64.
    residual: max over present i of |(M' w)_i w_i^(1/α) - 1|, with M' = M + ridge · diag(M).
    iterations: Newton steps of the last Newton run.
    converged: every row's residual is ≤ 1e-13, or its backward error |M' w - w^(-1/α)| / (|M'| w) is ≤ 50 units
        of rounding.
    ridge: relative ridge ε that was added; 0 if none.
    singular: the unit-diagonal matrix is numerically singular (duplicate, dependent or conflicting gradients).
    present: which objectives took part; the others have a zero gradient and weight 0.
    """

    weights: Tensor
    residual: float
    iterations: int
    converged: bool
    ridge: float
    singular: bool
    present: tuple[bool, ...]


def solve(gram: Tensor | Sequence[Sequence[float]], alpha: float = 2.0, ridge: float | None = None) -> Tensor:
    """Return the alpha-fair weights w [K], float64 on the CPU, of a Gram matrix `gram` [K, K].

    (M w)_i = w_i^(-1/α) for every objective i with a non-zero gradient; w_i = 0 for the others. See `solve_info`.
    """
    return solve_info(gram, alpha, ridge).weights


def solve_info(gram: Tensor | Sequence[Sequence[float]], alpha: float = 2.0, ridge: float | None = None) -> SolverInfo:
    """Solve (M w)_i = w_i^(-1/α); return weights and diagnostics.

    Args:
        gram: [K, K], symmetric positive semi-definite, any scale (entries 1e-250..1e250), any number type.
        alpha: fairness exponent, > 0.
        ridge: relative ridge ε ≥ 0, M + ε diag(M). None adds `DEFAULT_RIDGE` (times ten until the matrix is positive
            definite) only if the matrix is numerically singular. The weights then stay finite, and opposed gradients
            cancel: d has no component in the conflicting subspace.

    Raises:
        ValueError: `gram` isn't square, has a non-finite entry or a negative diagonal; `alpha` or `ridge` out of range.
    """
    matrix: Matrix = gram.tolist() if isinstance(gram, Tensor) else [list(row) for row in gram]
    _check(matrix, alpha, ridge)
    size = len(matrix)
    present = [i for i in range(size) if matrix[i][i] > 0.0]
    flags = tuple(matrix[i][i] > 0.0 for i in range(size))
    weights = [0.0] * size
    if not present:
        return SolverInfo(torch.zeros(size, dtype=torch.float64), 0.0, 0, True, 0.0, False, flags)

    norms = [math.sqrt(matrix[i][i]) for i in present]
    unit = _unit_diagonal(matrix, present, norms)
    singular = smallest_pivot(unit, 0.0) <= _SINGULAR_PIVOT
    if ridge is None:
        ridge = DEFAULT_RIDGE if singular else 0.0
        # Rounding in a float32 Gram matrix can leave an eigenvalue of -1e-7.
        while ridge and smallest_pivot(unit, ridge) <= 0.5 * min(ridge, 1.0):
            ridge *= 10.0
    for i in range(len(present)):
        unit[i][i] = 1.0 + ridge

    # q_i = M_ii^((1/α-1)/2), divided by its geometric mean, which is restored as a factor of w.
    logs = [(1.0 / alpha - 1.0) * math.log(norm) for norm in norms]
    mean = sum(logs) / len(logs)
    solution = solve_unit(unit, [math.exp(value - mean) for value in logs], alpha)
    factor = math.exp(mean * alpha / (1.0 + alpha))
    for position, i in enumerate(present):
        weights[i] = factor * solution.y[position] / norms[position]
    return SolverInfo(
        torch.tensor(weights, dtype=torch.float64),
        solution.residual,
        solution.iterations,
        solution.converged,
        ridge,
        singular,
        flags,
    )


def _check(matrix: Matrix, alpha: float, ridge: float | None) -> None:
    size = len(matrix)
    if not (alpha > 0.0 and math.isfinite(alpha)):
        raise ValueError(f"alpha must be a finite number > 0, got {alpha}")
    if ridge is not None and not (ridge >= 0.0 and math.isfinite(ridge)):
        raise ValueError(f"ridge must be a finite number >= 0 or None, got {ridge}")
    for i, row in enumerate(matrix):
        if len(row) != size:
            raise ValueError(f"gram must be square, got row {i} with {len(row)} entries of {size}")
        for j, value in enumerate(row):
            if not math.isfinite(value):
                raise ValueError(f"gram[{i}, {j}] must be finite, got {value}")
        if row[i] < 0.0:
            raise ValueError(f"gram[{i}, {i}] is a squared norm and must be >= 0, got {row[i]}")


def _unit_diagonal(matrix: Matrix, present: list[int], norms: list[float]) -> Matrix:
    """R_ij = M_ij / √(M_ii M_jj), symmetric, clipped to [-1, 1]."""
    size = len(present)
    unit = [[1.0] * size for _ in range(size)]
    for a in range(size):
        for b in range(a):
            mean = 0.5 * (matrix[present[a]][present[b]] + matrix[present[b]][present[a]])
            unit[a][b] = unit[b][a] = min(1.0, max(-1.0, mean / norms[a] / norms[b]))
    return unit
