"""Fréchet and kernel distances between two sets of features, with standard errors and paired differences.

On the 2048 features of `inception.py` they are FID (Heusel et al., GANs Trained by a Two Time-Scale Update Rule, 2017,
Eq. 6) and KID (Bińkowski et al., Demystifying MMD GANs, 2018, Section 4); on other features they have other names.

Standard errors use the infinitesimal jackknife (Jaeckel 1972; Efron, The Jackknife, the Bootstrap and Other Resampling
Plans, 1982, ch. 6). With θ(w) the distance of weighted sets, the influence of picture i is u_i = ∂θ/∂w_i, centred, and
SE² = Σ over both sets of G / (G - 1) Σ_g s_g², where s_g = Σ_{i in g} u_i / n over G groups of pictures (all pictures
of a prompt, all crops of a picture; without groups each picture is its own). The interval is θ ± 1.96 SE. It takes a
single pass and repeats no picture; the repeats of a bootstrap shrink covariances and inflate a Fréchet distance.

Limits. The Fréchet distance of finite sets is biased upwards by about c / n (Chong, Forsyth, Effectively Unbiased FID
and Inception Score, 2020). Its interval is for the mean over sets *of the same sizes*, not for infinite sets, and
distances of sets of different sizes are not comparable (`size_warning`). The kernel distance has no such bias as long
as the pictures of a set are independent. From about 6 groups on, intervals are too wide rather than too narrow between
sets of the same distribution (influences vanish, second-order terms remain) and for fewer pictures than features, as
simulations in the tests show. From fewer groups the standard error is too small: with 2 a Wald test rejects a true
hypothesis in 29 % of cases at p < 0.05, with 3 in 16 %. So differences of fewer than `LEAST_GROUPS` aren't tested.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from fairhuman.errors import DataError
from fairhuman.stats.paired import Difference, Measured

Array = NDArray[np.float64]
Features = NDArray[np.float32] | NDArray[np.float64]
Groups = Sequence[Hashable] | None

NORMAL = NormalDist()
LEVEL = 0.95
BLOCK = 1024  # rows of a kernel matrix in memory at once
LEAST_GROUPS = 6  # for a test, also a permutation test: with 5 its smallest p is 2 / 2⁵ > 0.05
ENOUGH = 10_000  # minimum number of pictures according to the authors of FID (github.com/bioinf-jku/TTUR, README)


@dataclass(frozen=True, slots=True)
class Distance:
    """A distance and the first-order influence of each group of pictures on it.

    Attributes:
        value: the distance.
        lowest: lower bound of such a distance.
        n: pictures in the first set.
        shares0, shares1: influence s_g by group in the first and second set; without groups the keys are picture
            indices.
    """

    value: float
    lowest: float
    n: int
    shares0: Mapping[Hashable, float]
    shares1: Mapping[Hashable, float]

    def measured(self) -> Measured:
        """The distance with its standard error and 95 % interval, which are NaN for a single group."""
        error = _standard_error(self.shares0, self.shares1)
        half = NORMAL.inv_cdf((1 + LEVEL) / 2) * error
        low = max(self.lowest, self.value - half)
        return Measured(self.value, low, self.value + half, self.n, error, len(self.shares0))


def paired_difference(a: Distance, b: Distance) -> Difference:
    """Distance of method A minus that of method B, both (first set) to the same reference (second set).

    Influences of groups that both methods have (prompts), and those of the reference, are subtracted before squaring,
    so common variation cancels. A group that one method lacks (no hand to crop) has influence 0 there. The test is a
    Wald test, z = difference / SE; p is NaN if a method has fewer than `LEAST_GROUPS` groups. For sets of the same
    sizes most of the bias of a Fréchet distance cancels too.

    Raises:
        ValueError: the groups of the two references differ.
    """
    if a.shares1.keys() != b.shares1.keys():
        raise ValueError(
            f"a paired difference needs one reference, got {len(a.shares1)} and {len(b.shares1)} groups "
            "with different keys"
        )
    difference = Distance(
        a.value - b.value, -np.inf, min(a.n, b.n), _subtract(a.shares0, b.shares0), _subtract(a.shares1, b.shares1)
    )
    if difference.value == 0 and not any((*difference.shares0.values(), *difference.shares1.values())):
        return Difference(Measured(0.0, 0.0, 0.0, difference.n, 0.0, len(difference.shares0)), 1.0, equal=True)
    measured = difference.measured()
    if min(len(a.shares0), len(b.shares0)) < LEAST_GROUPS:
        p = float("nan")
    elif measured.standard_error > 0:
        p = 2 * NORMAL.cdf(-abs(measured.value) / measured.standard_error)
    else:
        p = 1.0 if measured.value == 0 else float("nan")
    return Difference(measured, p)


def size_warning(n: int, width: int) -> str | None:
    """Warning about a Fréchet distance of `n` pictures on `width` features, or None if there are enough.

    Raises:
        DataError: fewer than 2 pictures, which have no covariance.
    """
    if n < 2:
        raise DataError(f"a distance needs at least 2 pictures in each set, not {n}")
    if n <= width:
        return (
            f"{n} pictures can't fill the covariance of {width} features (at least {width + 1} can): the Fréchet "
            "distance is far too large; compare it only with sets of the same size, and prefer the kernel distance "
            "(KID of metrics=[fid], whose weights are a download)"
        )
    if n < ENOUGH:
        return (
            f"{n} pictures are fewer than {ENOUGH:,}: the Fréchet distance is too large by about c / n; "
            "compare it only with sets of the same size"
        )
    return None


def measure_frechet(
    features0_nd: Features, features1_md: Features, groups0: Groups = None, groups1: Groups = None
) -> Distance:
    """|μ0 - μ1|² + tr(Σ0 + Σ1 - 2 (Σ0 Σ1)^½) of the Gaussians with the means and covariances (by n - 1) of two sets.

    With centred features X = Q R √(n - 1) the last trace is the sum of the singular values of R0 R1ᵀ: no covariance is
    formed, so none is singular, and there may be fewer pictures than features. In float64; at least 0, in squared units
    of the features. The influences of the pictures, which cost about as much again, are

    u_i = 2 (μ0 - μ1)·x_i + n/(n - 1) (|x_i|² - x_iᵀ T x_i), centred, for the centred x_i of the first set, with T the
    optimal transport map of its Gaussian to the other, ∂(2 tr(Σ0 Σ1)^½) / ∂Σ0; from R0 R1ᵀ = U S Vᵀ it is
    n/(n - 1) x_iᵀ T x_i = n Σ_k (Q0 U)²_ik S_k.

    Args:
        features0_nd, features1_md: one row per picture, [N, D] and [M, D].
        groups0, groups1: group of each picture, see the module.

    Raises:
        DataError: a set has fewer than 2 rows, or rows that aren't finite; states their number and the first.
        ValueError: the shapes don't match, or the numbers of groups and rows differ.
    """
    x0, x1 = _checked(features0_nd, features1_md)
    (q0, root0), (q1, root1) = (np.linalg.qr(_centred(x)) for x in (x0, x1))
    root0, root1 = root0 / np.sqrt(len(x0) - 1), root1 / np.sqrt(len(x1) - 1)
    u, singular_k, vt = np.linalg.svd(root0 @ root1.T, full_matrices=False)
    apart_d = x0.mean(axis=0) - x1.mean(axis=0)
    shares = []
    for x, q, side, step_d in ((x0, q0, u, apart_d), (x1, q1, vt.T, -apart_d)):
        centred = _centred(x)
        squares_n = (centred**2).sum(axis=1) / (len(x) - 1)
        shares.append(2 * centred @ step_d / len(x) + squares_n - (q @ side) ** 2 @ singular_k)
    value = _frechet(apart_d, root0, root1, singular_k)
    return Distance(value, 0.0, len(x0), _by_group(shares[0], groups0), _by_group(shares[1], groups1))


def measure_kernel(
    features0_nd: Features, features1_md: Features, groups0: Groups = None, groups1: Groups = None
) -> Distance:
    """The unbiased estimate of MMD² with the kernel k(x, y) = (x·y / D + 1)³, from all pictures; may be negative.

    Σ_{i≠j} k(x_i, x_j) / (n (n - 1)) + Σ_{i≠j} k(y_i, y_j) / (m (m - 1)) - 2 Σ k(x_i, y_j) / (n m): Gretton et al.,
    A Kernel Two-Sample Test, 2012, Eq. 3. The influences are u_i = 2 (mean_{j≠i} k(x_i, x_j) - mean_j k(x_i, y_j)),
    centred.

    Arguments and errors are those of `measure_frechet`.
    """
    x0, x1 = _checked(features0_nd, features1_md)
    n, m = len(x0), len(x1)
    across0_n, across1_m = _kernel_sums(x0, x1)
    within0_n, within1_m = (_kernel_sums(x, x)[0] - _kernel((x**2).sum(axis=1), x.shape[1]) for x in (x0, x1))
    value = within0_n.sum() / (n * (n - 1)) + within1_m.sum() / (m * (m - 1)) - 2 * across0_n.sum() / (n * m)
    shares0_n = 2 * (within0_n / (n - 1) - across0_n / m) / n
    shares1_m = 2 * (within1_m / (m - 1) - across1_m / n) / m
    return Distance(float(value), -np.inf, n, _by_group(shares0_n, groups0), _by_group(shares1_m, groups1))


def _frechet(apart_d: Array, root0: Array, root1: Array, singular_k: Array) -> float:
    value = apart_d @ apart_d + (root0**2).sum() + (root1**2).sum() - 2 * singular_k.sum()
    return max(0.0, float(value))  # rounding may leave equal sets a little below 0


def _kernel(products: Array, width: int) -> Array:
    base = products / width + 1
    return np.asarray(base * base * base)


def _kernel_sums(x0: Array, x1: Array) -> tuple[Array, Array]:
    """Row sums [N] and column sums [M] of the kernel matrix [N, M]."""
    rows, columns_m = [], np.zeros(len(x1))
    for start in range(0, len(x0), BLOCK):
        block = _kernel(x0[start : start + BLOCK] @ x1.T, x0.shape[1])
        rows.append(block.sum(axis=1))
        columns_m += block.sum(axis=0)
    return np.concatenate(rows), columns_m


def _centred(x: Array) -> Array:
    return np.asarray(x - x.mean(axis=0))


def _checked(features0_nd: Features, features1_md: Features) -> tuple[Array, Array]:
    arrays = np.asarray(features0_nd, np.float64), np.asarray(features1_md, np.float64)
    if any(x.ndim != 2 for x in arrays) or arrays[0].shape[1] != arrays[1].shape[1] or not arrays[0].shape[1]:
        raise ValueError(f"features must be [N, D] and [M, D] with D ≥ 1, got {arrays[0].shape} and {arrays[1].shape}")
    for which, x in zip(("first", "second"), arrays, strict=True):
        size_warning(len(x), x.shape[1])
        bad_n = ~np.isfinite(x).all(axis=1)
        if bad_n.any():
            raise DataError(
                f"features of the {which} set must be finite: {bad_n.sum()} of {len(x)} rows aren't, "
                f"the first is row {bad_n.argmax()}"
            )
    return arrays


def _by_group(shares_n: Array, groups: Groups) -> dict[Hashable, float]:
    """Centred influences, summed within each group."""
    if groups is not None and len(groups) != len(shares_n):
        raise ValueError(f"expected a group for each of {len(shares_n)} pictures, not {len(groups)}")
    sums: dict[Hashable, float] = {}
    centred_n = shares_n - shares_n.mean()
    for group, share in zip(range(len(shares_n)) if groups is None else groups, centred_n, strict=True):
        sums[group] = sums.get(group, 0.0) + float(share)
    return sums


def _subtract(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> dict[Hashable, float]:
    return {group: a.get(group, 0.0) - b.get(group, 0.0) for group in {**a, **b}}


def _standard_error(*sets: Mapping[Hashable, float]) -> float:
    variance = 0.0
    for shares in sets:
        if len(shares) < 2:
            return float("nan")
        variance += len(shares) / (len(shares) - 1) * sum(share**2 for share in shares.values())
    return float(np.sqrt(variance))
