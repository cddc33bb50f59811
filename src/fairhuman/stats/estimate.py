"""A number and how sure it is."""

import math
from dataclasses import asdict, dataclass
from statistics import NormalDist


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, the ends of its interval and the number of samples behind it; NaN where there is nothing to estimate.

    `standard_error`: of the value. NaN with one sample, or where it isn't known.
    """

    value: float
    low: float
    high: float
    n: int
    standard_error: float = math.nan

    def scaled(self, factor: float) -> "Estimate":
        """The estimate in another unit; `factor` > 0."""
        value, low, high, error = (factor * each for each in (self.value, self.low, self.high, self.standard_error))
        return Estimate(value, low, high, self.n, error)

    def plain(self) -> dict[str, float | None]:
        """Ready for JSON: null instead of NaN."""
        known = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: value if math.isfinite(value) else None for name, value in known.items()}


def wilson(successes: int, n: int, level: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson, JASA 1927, Eq. 4): right for shares near 0 and 1.

    centre = (p + z²/2n) / (1 + z²/n), half = z √(p (1 - p)/n + z²/4n²) / (1 + z²/n), z the normal quantile.

    Raises:
        ValueError: `successes` isn't in 0..n, or `level` not in (0, 1).
    """
    if not 0 <= successes <= n:
        raise ValueError(f"successes must be in 0..{n}, not {successes}")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}")
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0)
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre, stretch = p + z * z / (2 * n), 1 + z * z / n
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else (centre - half) / stretch
    high = 1.0 if successes == n else (centre + half) / stretch
    return Estimate(p, low, high, n)
