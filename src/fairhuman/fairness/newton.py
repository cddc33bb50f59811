"""Newton's method for the unit-diagonal alpha-fair equation (R y)_i = q_i y_i^(-1/α), in plain Python floats."""

import math
from dataclasses import dataclass

EPSILON = 2.0**-52
ITERATIONS = 40
LAST_RESORT_ITERATIONS = 500
SMALLEST = 1e-290  # keeps y away from underflow
TINY = 1e-300  # what is divided by isn't smaller

Matrix = list[list[float]]


@dataclass(slots=True)
class Solution:
    """The best iterate of a sequence of Newton steps."""

    y: list[float]
    residual: float
    score: float  # the worst row's error relative to its tolerance; converged at <= 1
    iterations: int

    @property
    def converged(self) -> bool:
        """Whether every row meets its tolerance or its rounding limit."""
        return self.score <= 1.0


def solve_unit(unit: Matrix, q: list[float], alpha: float) -> Solution:
    """Solve (R y)_i = q_i y_i^(-1/α): Newton's method from the solution for orthogonal gradients, else path following.

    If gradients differ by many orders of magnitude, so do the y_i (1e-160 at α = 8), and Newton steps, which must keep
    y > 0, become tiny. Then q is replaced by q^t, with t from 0 to 1: at t = 0 the problem is well scaled, and log y is
    nearly piecewise linear in t. Its slope u' solves (diag(y) R diag(y) + diag(h)/α) u' = h ∘ log q.
    """
    start = _start(unit, q, alpha)
    solution = _newton(unit, q, alpha, start, ITERATIONS)
    if not solution.converged:
        solution = _follow_path(unit, q, alpha)
    if not solution.converged:
        solution = min(solution, _newton(unit, q, alpha, start, LAST_RESORT_ITERATIONS), key=lambda s: s.score)
    return solution


def _follow_path(unit: Matrix, q: list[float], alpha: float) -> Solution:
    logs = [math.log(value) for value in q]
    flat = [1.0] * len(q)
    path = _newton(unit, flat, alpha, _start(unit, flat, alpha), 4 * ITERATIONS)
    t, stride = 0.0, 0.125
    while t < 1.0 and stride > 1e-4:
        following = min(1.0, t + stride)
        h = [math.exp(t * log_q) * y ** (1.0 - 1.0 / alpha) for log_q, y in zip(logs, path.y, strict=True)]
        slope, _ = _newton_step(unit, path.y, [-a * b for a, b in zip(h, logs, strict=True)], h, alpha)
        steps = [max(-300.0, min(300.0, (following - t) * u)) for u in slope]
        guess = [y * math.exp(step) for y, step in zip(path.y, steps, strict=True)]
        moved = [math.exp(following * log_q) for log_q in logs]
        candidate = _newton(unit, moved, alpha, guess, ITERATIONS)
        for _ in range(3):
            if candidate.converged:
                break
            candidate = _newton(unit, moved, alpha, _sweep(unit, moved, alpha, candidate.y), ITERATIONS)
        if candidate.converged:
            path, t, stride = candidate, following, 2.0 * stride
        else:
            stride *= 0.5
    return path if t == 1.0 else _newton(unit, q, alpha, path.y, ITERATIONS)


def _sweep(unit: Matrix, q: list[float], alpha: float, y: list[float]) -> list[float]:
    """Minimise f along each axis in turn: r y_i + c = q_i y_i^(-1/α), r = R_ii, c = Σ_{j≠i} R_ij y_j, v = log y_i.

    In logarithms the equation is nearly linear, and from the bounds below Newton's method converges monotonically.
    """
    y = list(y)
    for a, row in enumerate(unit):
        r = row[a]
        c = sum(row[b] * y[b] for b in range(len(y)) if b != a)
        log_q = math.log(q[a])
        v = (log_q - math.log(r)) * alpha / (1.0 + alpha)
        if c > 0.0:
            v = min(v, alpha * (log_q - math.log(c)))
        elif c < 0.0:
            v = max(v, math.log(-c / r))
        for _ in range(20):
            own = r * math.exp(v)
            pull = math.exp(log_q - v / alpha)
            if c >= 0.0:  # log(own + c) = log(pull), convex and increasing in v
                change = math.log((own + c) / pull) / (own / (own + c) + 1.0 / alpha)
            else:  # log(own) = log(pull - c), concave and increasing in v
                change = math.log(own / (pull - c)) / (1.0 + pull / (pull - c) / alpha)
            v = max(v - change, math.log(SMALLEST))
            if abs(change) < 1e-6:
                break
        y[a] = math.exp(v)
    return y


def _newton(unit: Matrix, q: list[float], alpha: float, y: list[float], iterations: int) -> Solution:
    """Damped Newton steps in relative coordinates, y ← y (1 + s δ), from `y`.

    With h_i = q_i y_i^(1-1/α) and g = y ∘ (R y) - h, the Newton system is (diag(y) R diag(y) + diag(h)/α) δ = -g,
    which is positive definite. Every row is iterated to a relative error of 1e-13, or to 50 times its rounding error.
    """
    size = len(q)
    rows = range(size)
    exponent = 1.0 - 1.0 / alpha
    best = Solution(y, math.inf, math.inf, 0)
    patience = max(12, iterations // 2)
    stalled = 0
    for iteration in range(iterations + 1):
        h = [0.0] * size
        g = [0.0] * size
        residual = score = 0.0
        for a in rows:
            row = unit[a]
            product = magnitude = 0.0
            for b in rows:
                term = row[b] * y[b]
                product += term
                magnitude += abs(term)
            h[a] = q[a] * y[a] ** exponent
            g[a] = product * y[a] - h[a]
            if y[a] == SMALLEST and g[a] >= 0.0:  # its solution is below what is kept: it stays here
                g[a] = 0.0
                continue
            error = abs(g[a])
            residual = max(residual, error / max(h[a], TINY))
            score = max(score, error / max(1e-13 * h[a], 50.0 * EPSILON * magnitude * y[a], TINY))
        if score < best.score:
            best = Solution(y, residual, score, iteration)
            stalled = 0
        else:
            stalled += 1
        if best.converged or stalled >= patience:
            break
        delta, decrement = _newton_step(unit, y, g, h, alpha)
        if decrement > 1e-2 * sum(h):
            step = _line_search(unit, q, exponent, y, delta, decrement)
            y = [max(y[a] * (1.0 + step * delta[a]), SMALLEST) for a in rows]
        else:  # f is flat here: limit each coordinate alone, so that one near zero does not shorten all steps
            y = [max(y[a] * (1.0 + max(delta[a], -0.95)), SMALLEST) for a in rows]
    return best


def _start(unit: Matrix, q: list[float], alpha: float) -> list[float]:
    """Return the solution for orthogonal gradients, y_i = q_i^(α/(1+α)), times the factor that minimises f along it."""
    rows = range(len(q))
    y = [value ** (alpha / (1.0 + alpha)) for value in q]
    numerator = sum(q[a] * y[a] ** (1.0 - 1.0 / alpha) for a in rows)
    denominator = sum(y[a] * unit[a][b] * y[b] for a in rows for b in rows)
    if denominator > 1e-14 * numerator:
        scale = (numerator / denominator) ** (alpha / (1.0 + alpha))
        y = [value * scale for value in y]
    return y


def _newton_step(
    unit: Matrix, y: list[float], g: list[float], h: list[float], alpha: float
) -> tuple[list[float], float]:
    """Return δ and the Newton decrement gᵀA⁻¹g, A = diag(y) R diag(y) + diag(h)/α, by Jacobi-scaled Cholesky."""
    size = len(y)
    rows = range(size)
    jacobi = [1.0 / math.sqrt(max(y[a] * unit[a][a] * y[a] + h[a] / alpha, TINY)) for a in rows]
    factor: Matrix = []
    z: list[float] = []
    for a in rows:
        row: list[float] = []
        scale = y[a] * jacobi[a]
        rhs = -g[a] * jacobi[a]
        pivot = 1.0
        for b in range(a):
            value = scale * unit[a][b] * y[b] * jacobi[b]
            for c in range(b):
                value -= row[c] * factor[b][c]
            value /= factor[b][b]
            row.append(value)
            pivot -= value * value
            rhs -= value * z[b]
        row.append(math.sqrt(max(pivot, 1e-15)))
        factor.append(row)
        z.append(rhs / row[a])
    decrement = sum(value * value for value in z)
    for a in reversed(rows):
        value = z[a]
        for b in range(a + 1, size):
            value -= factor[b][a] * z[b]
        z[a] = value / factor[a][a]
    return [z[a] * jacobi[a] for a in rows], decrement


def _line_search(
    unit: Matrix, q: list[float], exponent: float, y: list[float], delta: list[float], decrement: float
) -> float:
    """Return a step length: from the longest ≤ 1 with y > 0, halved until Armijo's condition holds (factor 1e-4)."""
    lowest = min(delta)
    step = 1.0 if lowest > -0.95 else -0.95 / lowest
    before = _objective(unit, q, exponent, y)
    for _ in range(40):
        after = _objective(unit, q, exponent, [v * (1.0 + step * d) for v, d in zip(y, delta, strict=True)])
        if after <= before - 1e-4 * step * decrement + 1e-13 * abs(before):
            break
        step *= 0.5
    return step


def _objective(unit: Matrix, q: list[float], exponent: float, y: list[float]) -> float:
    """f(y) = ½ yᵀ R y - Σ q_i y_i^e / e with e = 1 - 1/α; Σ q_i log y_i where e = 0."""
    rows = range(len(y))
    value = 0.0
    for a in rows:
        product = sum(unit[a][b] * y[b] for b in rows)
        barrier = q[a] * math.log(y[a]) if exponent == 0.0 else q[a] * y[a] ** exponent / exponent
        value += 0.5 * y[a] * product - barrier
    return value


def smallest_pivot(unit: Matrix, ridge: float) -> float:
    """Return the smallest pivot of the Cholesky factorisation of R + ridge·I; ≤ 0 if it isn't positive definite."""
    size = len(unit)
    factor: Matrix = []
    smallest = math.inf
    for a in range(size):
        row: list[float] = []
        for b in range(a):
            value = unit[a][b]
            for c in range(b):
                value -= row[c] * factor[b][c]
            row.append(value / factor[b][b])
        pivot = 1.0 + ridge
        for value in row:
            pivot -= value * value
        if pivot < smallest:
            smallest = pivot
            if pivot <= 0.0:
                break
        row.append(math.sqrt(pivot))
        factor.append(row)
    return smallest
