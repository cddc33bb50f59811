"""Ratios over images with intervals, paired differences of two methods, and p-values corrected for multiple tests.

Every statistic is a ratio of sums r = Σ_i t_i / Σ_i b_i over images i: for a mean b = 1, for a detection confidence b
is the number of expected parts. Images of one prompt are correlated, so prompts are the resampling unit: intervals are
percentile bootstraps over prompts (`fairhuman.stats.bootstrap.pooled_ratio`), with t_p and b_p the sums of prompt p.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fairhuman.stats.bootstrap import Array, pooled_ratio, ratio_difference
from fairhuman.stats.estimate import Estimate

FLIPS = 9999
Values = Sequence[float] | Array


@dataclass(frozen=True, slots=True)
class Measured(Estimate):
    """An estimate over `n` pictures.

    Attributes:
        prompts: number of independent prompts that the pictures come from.
        informing: number of prompts with a denominator above 0, such as those with a hand that was found; of a
            difference the smaller number of both methods; None: all prompts.
    """

    prompts: int = 0
    informing: int | None = None

    @property
    def independent(self) -> int:
        """Number of independent values; of a distance, `n` pairs may be fewer than the prompts of one method."""
        return min(self.prompts, self.n, *([] if self.informing is None else [self.informing]))


@dataclass(frozen=True, slots=True)
class Difference:
    """Method a against method b on the same prompts.

    Attributes:
        measured: r_a - r_b; n counts the pictures that both have.
        p: of the two-sided test that the methods are exchangeable within each prompt; NaN with nothing to test.
        equal: whether both methods have the same values for every picture, so that the difference is exactly 0.
    """

    measured: Measured
    p: float
    equal: bool = False


def ratio(tops_n: Values, bottoms_n: Values, prompts_n: Sequence[Hashable], *, resamples: int = 2000) -> Measured:
    """Return Σ tops / Σ bottoms over images with its interval over prompts; images with a NaN are left out.

    The standard error is that of a ratio with whole prompts as units (Cochran, Sampling Techniques, 1977, Eq. 6.13):
    √(P / (P - 1) Σ_p (t_p - r b_p)²) / Σ_p b_p.

    Raises:
        ValueError: the lengths differ, a value is infinite, or a bottom is negative.
    """
    columns_nc = _columns([tops_n, bottoms_n], prompts_n)
    known_n = np.asarray(~np.isnan(columns_nc).any(axis=1))
    sums_pc = _by_prompt(columns_nc, prompts_n, known_n)
    found = pooled_ratio(*sums_pc.T, resamples=resamples)
    error = _error(_influence(sums_pc))
    return Measured(found.value, found.low, found.high, int(known_n.sum()), error, len(sums_pc), _above_zero(sums_pc))


def paired_difference(
    a: tuple[Values, Values], b: tuple[Values, Values], prompts_n: Sequence[Hashable], *, resamples: int = 2000
) -> Difference:
    """Return r_a - r_b for the same images of two methods, its interval over prompts, and a permutation test.

    The test swaps the methods within prompts (Fisher, The Design of Experiments, 1935, § 21): it enumerates all swaps
    if there are at most 9,999, and otherwise draws that many at random. Images with a NaN in either method are left
    out.

    Raises:
        ValueError: as in `ratio`.
    """
    columns_nc = _columns([*a, *b], prompts_n)
    known_n = np.asarray(~np.isnan(columns_nc).any(axis=1))
    sums_pc = _by_prompt(columns_nc, prompts_n, known_n)
    a_pc, b_pc = sums_pc[:, :2], sums_pc[:, 2:]
    found = ratio_difference((b_pc[:, 0], b_pc[:, 1]), (a_pc[:, 0], a_pc[:, 1]), resamples=resamples)
    error = _error(_influence(a_pc) - _influence(b_pc))
    n, prompts = int(known_n.sum()), len(sums_pc)
    informing = min(_above_zero(a_pc), _above_zero(b_pc))
    measured = Measured(found.value, found.low, found.high, n, error, prompts, informing)
    equal = n > 0 and np.array_equal(columns_nc[known_n, :2], columns_nc[known_n, 2:])
    return Difference(measured, _swap_test(a_pc, b_pc, found.value), equal)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values with Holm's step-down correction (Holm, Scand. J. Statist. 6, 1979); NaN stays NaN.

    The i-th smallest of m p-values becomes max over j ≤ i of min(1, (m - j + 1) p_(j)).
    """
    p_m = np.asarray(p_values, np.float64)
    corrected = np.full(len(p_m), np.nan)
    known = np.flatnonzero(~np.isnan(p_m))
    order = known[np.argsort(p_m[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    corrected[order] = np.maximum.accumulate(np.minimum(1.0, factors * p_m[order]))
    return [float(p) for p in corrected]


def _columns(columns: Sequence[Values], prompts_n: Sequence[Hashable]) -> Array:
    """Stack columns to [N, C] and check them."""
    arrays = [np.asarray(column, np.float64) for column in columns]
    lengths = [array.shape for array in arrays]
    if any(shape != (len(prompts_n),) for shape in lengths):
        raise ValueError(f"expected one value per image: got {len(prompts_n)} prompts and values of shapes {lengths}")
    columns_nc = np.stack(arrays, axis=1)
    if np.isinf(columns_nc).any():
        place = int(np.isinf(columns_nc).any(axis=1).argmax())
        raise ValueError(f"values must be finite or NaN, got an infinity for image {place}")
    return columns_nc


def _by_prompt(columns_nc: Array, prompts_n: Sequence[Hashable], known_n: NDArray[np.bool_]) -> Array:
    """Return the sums [P, C] over the known images of each prompt, in order of first appearance."""
    numbers: dict[Hashable, int] = {}
    places = [numbers.setdefault(prompt, len(numbers)) for prompt, k in zip(prompts_n, known_n, strict=True) if k]
    sums_pc = np.zeros((len(numbers), columns_nc.shape[1]))
    np.add.at(sums_pc, places, columns_nc[known_n])
    return sums_pc


def _above_zero(sums_pc: Array) -> int:
    return int((sums_pc[:, 1] > 0).sum())


def _influence(sums_pc: Array) -> Array:
    """Return (t_p - r b_p) / Σ b [P], the influence of each prompt on the ratio."""
    total = sums_pc[:, 1].sum()
    if not total > 0:
        return np.full(len(sums_pc), np.nan)
    return np.asarray((sums_pc[:, 0] - sums_pc[:, 0].sum() / total * sums_pc[:, 1]) / total)


def _error(influence_p: Array) -> float:
    prompts = len(influence_p)
    return float(np.sqrt(prompts / (prompts - 1) * (influence_p**2).sum())) if prompts > 1 else float("nan")


def _swap_test(a_pc: Array, b_pc: Array, value: float) -> float:
    """Return the share of swaps whose absolute difference is at least that of `value`."""
    prompts = len(a_pc)
    if prompts == 0 or not np.isfinite(value):
        return float("nan")
    exact = 2**prompts <= FLIPS
    if exact:
        swaps_fp = np.arange(2**prompts)[:, None] >> np.arange(prompts) & 1
    else:
        swaps_fp = np.random.default_rng(0).integers(0, 2, (FLIPS, prompts))
    moved_fc = swaps_fp @ (b_pc - a_pc)
    a_fc, b_fc = a_pc.sum(axis=0) + moved_fc, b_pc.sum(axis=0) - moved_fc
    with np.errstate(divide="ignore", invalid="ignore"):  # a swap may leave a method without any detections
        differences_f = a_fc[:, 0] / a_fc[:, 1] - b_fc[:, 0] / b_fc[:, 1]
    as_large = int((~(np.abs(differences_f) < abs(value) * (1 - 1e-12))).sum())
    return as_large / 2**prompts if exact else (as_large + 1) / (FLIPS + 1)
