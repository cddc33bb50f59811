"""Changes of several methods' held-out losses drawn jointly over seeds and samples, and any statistic of them.

Methods that were trained with the same seeds and measured on the same samples share most of their noise. A draw takes
the same seeds and the same samples for all of them, so that the shared part cancels in differences, also in those of
non-linear statistics such as hypervolumes. The design is that of `change_over_seeds`: seeds and samples are crossed,
and S - 1 of the S seeds are taken. Few seeds have few such draws, so that their extreme quantiles say little about the
high levels of joint intervals: an interval is value ± t_ν s, with the standard deviation s of the draws. Resampling
both, crossed, counts what seeds and samples do together three times (Owen, Ann. Appl. Stat. 1(2), 2007), so that s errs
on the wide side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fairhuman.stats.bootstrap import Array, sample_counts, seed_weights, stretch, t_quantile
from fairhuman.stats.estimate import Estimate

PARTS = 2000  # draws that the shares of seeds and samples in the variance are estimated from


@dataclass(frozen=True)
class JointChanges:
    """Relative changes L_last / L_first - 1 of P methods and K losses, means over S seeds, and their draws.

    Attributes:
        value_pk: on all seeds and samples, [P, K].
        seeds_spk: of each seed, [S, P, K].
        both_bpk: draws of seeds and samples, [B, P, K].
        over_seeds_bpk, over_samples_bpk: draws of seeds alone, and of samples alone.
        samples: N, number of samples.
    """

    value_pk: Array
    seeds_spk: Array
    both_bpk: Array
    over_seeds_bpk: Array
    over_samples_bpk: Array
    samples: int

    @property
    def lost(self) -> float:
        """Share of the draws that lack a loss, as no drawn sample has the region; statistics leave them out."""
        return float(1 - np.isfinite(self.both_bpk).all(axis=(1, 2)).mean())

    def estimate(self, statistic: Callable[[Array], Array], level: float = 0.95, least: float = -np.inf) -> Estimate:
        """A statistic of the changes with its interval of `level`; `statistic` maps [..., P, K] to [...].

        The bootstrap's estimate of the bias, such as that of a minimum over noisy points, is subtracted from the value.
        That reduces the bias; where many points are equally good, about half of it is left
        (`tests/stats/test_joint.py`). `least` is the smallest value that the statistic can have: a corrected value or
        end below it becomes `least`.

        Raises:
            ValueError: `level` is outside (0, 1).
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, got {level}")
        plain = float(statistic(self.value_pk))
        drawn_b = statistic(self.both_bpk)
        known_b = drawn_b[np.isfinite(drawn_b)]
        if not (np.isfinite(plain) and len(known_b)):
            return Estimate(np.nan, np.nan, np.nan, self.samples)
        value = 2 * plain - float(known_b.mean())
        parts = [float(part) for part in self._parts(statistic)]
        deviation = float(known_b.std(ddof=1))
        half = deviation * t_quantile(parts[0], parts[1], len(self.seeds_spk), self.samples, (1 - level) / 2)
        value, low, high = (max(number, least) for number in (value, value - half, value + half))
        return Estimate(value, low, high, self.samples, deviation)

    def band(self, statistic: Callable[[Array], Array], level: float = 0.95) -> tuple[Array, Array, Array]:
        """Low end, median and high end, [L] each, of a statistic that maps [..., P, K] to [..., L].

        Pointwise: each interval covers by itself. The ends are stretched about the median for few seeds.
        """
        tail = (1 - level) / 2
        drawn_bl = _finite(statistic(self.both_bpk[:PARTS]))
        low_l, median_l, high_l = np.nanquantile(drawn_bl, [tail, 0.5, 1 - tail], axis=0)
        pairs = zip(*self._parts(statistic), strict=True)
        factor_l = np.array([stretch(a, b, len(self.seeds_spk), self.samples, tail) for a, b in pairs])
        return median_l + factor_l * (low_l - median_l), median_l, median_l + factor_l * (high_l - median_l)

    def _parts(self, statistic: Callable[[Array], Array]) -> list[Array]:
        """The variances of a statistic due to seeds and due to samples, over the draws in which it is finite."""
        draws = (self.over_seeds_bpk, self.over_samples_bpk)
        return [np.asarray(np.nanvar(_finite(statistic(each)), axis=0)) for each in draws]


def joint_changes(first_psnk2: Array, last_psnk2: Array, *, resamples: int = 4000) -> JointChanges:
    """Draw the changes of P methods jointly from errors and areas [P, S, N, K, 2] before and after training.

    A sample without a region has area 0 there and doesn't count for that loss. A draw that has none with the region
    gives NaN.

    Raises:
        ValueError: the shapes differ or aren't [P, S, N, K, 2], an axis is empty, or an area is negative.
    """
    first_psnk2, last_psnk2 = (np.asarray(each, dtype=np.float64) for each in (first_psnk2, last_psnk2))
    shape = first_psnk2.shape
    if shape != last_psnk2.shape or len(shape) != 5 or shape[-1] != 2 or 0 in shape:
        raise ValueError(f"expected errors and areas [P, S, N, K, 2] twice, got {shape} and {last_psnk2.shape}")
    if (first_psnk2[..., 1] < 0).any() or (last_psnk2[..., 1] < 0).any():
        raise ValueError("areas must be ≥ 0")
    p, s, n, k, _ = shape
    table_npskc = np.concatenate([first_psnk2, last_psnk2], axis=-1).transpose(2, 0, 1, 3, 4)
    columns_nc = np.ascontiguousarray(table_npskc).reshape(n, -1)
    generator = np.random.default_rng(0)

    def changes(sums_bc: Array) -> Array:
        sums = sums_bc.reshape(-1, p, s, k, 4)
        with np.errstate(divide="ignore", invalid="ignore"):
            before, after = sums[..., 0] * sums[..., 3], sums[..., 2] * sums[..., 1]
            return np.asarray(((after - before) / before).transpose(0, 2, 1, 3))

    seeds_spk = changes(columns_nc.sum(axis=0, keepdims=True))[0]
    both: list[Array] = []
    over_samples: list[Array] = []
    for counts_bn in sample_counts(generator, n, resamples, columns_nc.shape[1]):
        drawn_bspk = changes(counts_bn @ columns_nc)
        if sum(map(len, over_samples)) < PARTS:
            over_samples.append(drawn_bspk.mean(axis=1))
        both.append(np.einsum("bs,bspk->bpk", seed_weights(generator, s, len(counts_bn)), drawn_bspk))
    weights_bs = seed_weights(generator, s, PARTS) if s > 1 else np.ones((1, 1))
    over_seeds = np.einsum("bs,spk->bpk", weights_bs, seeds_spk)
    return JointChanges(
        seeds_spk.mean(axis=0), seeds_spk, np.concatenate(both), over_seeds, np.concatenate(over_samples), n
    )


def _finite(drawn: Array) -> Array:
    return np.where(np.isfinite(drawn), drawn, np.nan)
