"""Wilson's interval against scipy's."""

import math

import pytest
from scipy.stats import binomtest

from fairhuman.stats.estimate import wilson


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (1, 1), (8, 10), (95, 100), (100, 100), (3, 200)])
@pytest.mark.parametrize("level", [0.8, 0.95])
def test_wilson_agrees_with_scipy(successes: int, n: int, level: float) -> None:
    share = wilson(successes, n, level)
    interval = binomtest(successes, n).proportion_ci(level, method="wilson")
    assert (share.value, share.n) == (successes / n, n)
    assert (share.low, share.high) == pytest.approx((interval.low, interval.high), abs=1e-12)


def test_wilson_of_nothing_is_not_a_number() -> None:
    share = wilson(0, 0)
    assert share.n == 0
    assert all(math.isnan(value) for value in (share.value, share.low, share.high))
