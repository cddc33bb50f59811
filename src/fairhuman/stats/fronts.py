"""Fronts of points in a plane where less is better on both axes: what a point pays (x) and what it gains (y).

A point dominates another if it is nowhere worse and somewhere better. The front is the set of points that no other one
dominates (Zitzler, Thiele, IEEE Trans. Evol. Comp. 3(4), 1999, also for the hypervolume; Fonseca, Fleming, PPSN 1996,
for attainment).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def non_dominated(points_pk: Array) -> NDArray[np.bool_]:
    """Whether no other point dominates a point, [P]; of equal points, all are kept.

    Raises:
        ValueError: the points aren't a finite table [P, K].
    """
    points_pk = np.asarray(points_pk, dtype=np.float64)
    if points_pk.ndim != 2:
        raise ValueError(f"points must have the shape [P, K], got {points_pk.shape}")
    if not np.isfinite(points_pk).all():
        raise ValueError("points must be finite")
    no_worse_pp = (points_pk[:, None] <= points_pk[None]).all(axis=2)
    better_pp = (points_pk[:, None] < points_pk[None]).any(axis=2)
    return np.asarray(~(no_worse_pp & better_pp).any(axis=0))


def attainment(points_bp2: Array, limits_l: Sequence[float] | Array) -> Array:
    """Smallest y among the points whose x is at most a limit, [..., L]; infinite where there is none.

    `points_bp2`: [..., P, 2]; leading axes such as bootstrap draws are kept.
    """
    x_bp1, y_bp1 = points_bp2[..., 0, None], points_bp2[..., 1, None]
    return np.asarray(np.where(x_bp1 <= np.asarray(limits_l), y_bp1, np.inf).min(axis=-2))


def hypervolume(points_bp2: Array, reference: tuple[float, float]) -> Array:
    """Area that the points dominate below `reference` (x, y), [...]; 0 if none of them lies below it on both axes.

    It equals the integral over limits up to reference x of how far attainment lies below reference y, so that its unit
    is that of x times that of y. `points_bp2`: [..., P, 2], P ≥ 1.

    Raises:
        ValueError: the last axes aren't [P ≥ 1, 2].
    """
    if points_bp2.ndim < 2 or points_bp2.shape[-1] != 2 or points_bp2.shape[-2] < 1:
        raise ValueError(f"points must have the shape [..., P, 2] with P of at least 1, got {points_bp2.shape}")
    order = np.argsort(points_bp2[..., 0], axis=-1)
    x_bp, y_bp = (np.take_along_axis(points_bp2[..., axis], order, axis=-1) for axis in (0, 1))
    x_bp = np.minimum(x_bp, reference[0])
    ends_bp = np.concatenate([x_bp[..., 1:], np.full_like(x_bp[..., :1], reference[0])], axis=-1)
    gains_bp = np.maximum(0.0, reference[1] - np.minimum.accumulate(y_bp, axis=-1))
    return np.asarray(((ends_bp - x_bp) * gains_bp).sum(axis=-1))


def expected_best(values_bm: Array, n: int) -> Array:
    """Expected smallest of `n` values drawn without replacement from the M on the last axis, [...].

    With the values in ascending order, value i is the smallest of n drawn ones with the probability
    C(M - i, n - 1) / C(M, n), i = 1..M: what a search by n runs in random order finds on average.

    Raises:
        ValueError: n isn't in 1..M.
    """
    m = values_bm.shape[-1]
    if not 1 <= n <= m:
        raise ValueError(f"n must be in 1..{m}, the number of values, got {n}")
    shares = np.empty(m)
    shares[0] = n / m
    for i in range(1, m):  # C(m - i - 1, n - 1) / C(m - i, n - 1) = (m - i - n + 1) / (m - i)
        shares[i] = shares[i - 1] * max(0, m - i - n + 1) / (m - i)
    return np.asarray(np.sort(values_bm, axis=-1) @ shares)
