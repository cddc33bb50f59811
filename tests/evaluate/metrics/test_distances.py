"""Distances: closed forms, torch-fidelity's and scipy's numbers, invariances, and errors that cover what they say."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm
from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import KEY_METRIC_KID_MEAN, KEY_METRIC_KID_STD, kid_features_to_metric

from fairhuman.errors import DataError
from fairhuman.evaluate.metrics.distances import (
    LEAST_GROUPS,
    Distance,
    measure_frechet,
    measure_kernel,
    paired_difference,
    size_warning,
)

Array = NDArray[np.float64]
Measure = Callable[..., Distance]

MEASURES = [measure_frechet, measure_kernel]
SIZES = [(60, 50, 8), (12, 15, 40), (9, 200, 30)]  # N, M, D: more pictures than features, fewer, and one of each


def sets(n: int, m: int, d: int, seed: int = 0) -> tuple[Array, Array]:
    """Correlated features of two sets with other means and covariances."""
    generator = np.random.default_rng(seed)
    mix0, mix1 = np.eye(d) + 0.3 * generator.normal(size=(2, d, d))
    return generator.normal(size=(n, d)) @ mix0 + 0.5, generator.normal(size=(m, d)) @ mix1


def with_moments(mean_d: Array, covariance_dd: Array, n: int) -> Array:
    """Features whose sample mean and covariance are exactly these."""
    d = len(mean_d)
    x = np.random.default_rng(5).normal(size=(n, d))
    x = np.linalg.qr(x - x.mean(axis=0))[0] * math.sqrt(n - 1)
    return np.asarray(mean_d + x @ np.linalg.cholesky(covariance_dd).T)


def torch_fidelity_frechet(x: Array, y: Array) -> float:
    statistics = [fid_features_to_statistics(torch.from_numpy(z)) for z in (x, y)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def torch_fidelity_kernel(x: Array, y: Array, subsets: int, size: int) -> tuple[float, float]:
    found = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=subsets, kid_subset_size=size, rng_seed=3, verbose=False
    )
    return found[KEY_METRIC_KID_MEAN], found[KEY_METRIC_KID_STD]


def frechet_distance(x: Array, y: Array) -> float:
    return measure_frechet(x, y).value


def kernel_distance(x: Array, y: Array) -> float:
    return measure_kernel(x, y).value


def weighted_frechet(x: Array, y: Array, weights_n: Array) -> float:
    """The distance of `x` with weights that sum to 1, covariances by scipy; uniform weights give the plain one."""
    n = len(x)
    mean_d = weights_n @ x
    covariance_dd = n / (n - 1) * (x - mean_d).T @ (weights_n[:, None] * (x - mean_d))
    other_dd = np.cov(y, rowvar=False)
    root_dd = sqrtm(covariance_dd @ other_dd).real
    return float(((mean_d - y.mean(axis=0)) ** 2).sum() + np.trace(covariance_dd + other_dd - 2 * root_dd))


@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_the_frechet_distance_is_that_of_torch_fidelity(n: int, m: int, d: int) -> None:
    x, y = sets(n, m, d)
    # eigvals of a singular product gives √ε of noise for each missing dimension
    assert frechet_distance(x, y) == pytest.approx(torch_fidelity_frechet(x, y), rel=1e-10 if min(n, m) > d else 1e-4)


def test_the_frechet_distance_is_that_by_scipys_square_root() -> None:
    x, y = sets(300, 200, 16)
    assert frechet_distance(x, y) == pytest.approx(weighted_frechet(x, y, np.full(300, 1 / 300)), rel=1e-9)


def test_the_frechet_distance_of_gaussians_has_its_closed_form() -> None:
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    a, b = np.array([1.0, 4.0, 9.0, 0.25]), np.array([4.0, 1.0, 9.0, 2.25])
    shift = np.array([3.0, 0.0, -4.0, 0.0])
    first = with_moments(shift, rotation @ np.diag(a) @ rotation.T, 40)
    second = with_moments(np.zeros(4), rotation @ np.diag(b) @ rotation.T, 25)
    assert frechet_distance(first, second) == pytest.approx(25 + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum(), rel=1e-10)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("n", "m", "d"), SIZES)
def test_distances_are_symmetric_and_blind_to_order_and_rotation(measure: Measure, n: int, m: int, d: int) -> None:
    x, y = sets(n, m, d)
    generator = np.random.default_rng(2)
    rotation, _ = np.linalg.qr(generator.normal(size=(d, d)))
    one = measure(x, y)
    other = measure(y, x)
    assert other.value == pytest.approx(one.value, rel=1e-9)
    assert (other.shares0, other.shares1) == (pytest.approx(one.shares1), pytest.approx(one.shares0))
    for changed in (measure(generator.permutation(x), y), measure(x @ rotation, y @ rotation)):
        assert changed.value == pytest.approx(one.value, rel=1e-9)
        assert changed.measured().standard_error == pytest.approx(one.measured().standard_error, rel=1e-6)


def test_the_frechet_distance_ignores_a_common_shift_and_grows_as_the_square_of_the_scale() -> None:
    x, y = sets(30, 40, 10)
    assert frechet_distance(x + 7, y + 7) == pytest.approx(frechet_distance(x, y), rel=1e-9)
    assert frechet_distance(3 * x, 3 * y) == pytest.approx(9 * frechet_distance(x, y), rel=1e-9)


@pytest.mark.parametrize(("n", "d"), [(50, 8), (10, 64)])
def test_equal_sets_have_no_frechet_distance(n: int, d: int) -> None:
    x, _ = sets(n, 2, d)
    spread = np.cov(x, rowvar=False).trace()
    assert 0 <= frechet_distance(x, x[::-1]) < 1e-12 * spread
    assert measure_frechet(x, x).measured().standard_error < 1e-12 * spread


def test_float32_features_are_measured_in_float64() -> None:
    x, y = (1000 + z.astype(np.float32) for z in sets(60, 50, 8))
    assert frechet_distance(x, y) == pytest.approx(frechet_distance(x.astype(float), y.astype(float)), rel=1e-14)


@pytest.mark.parametrize(("n", "m", "d"), [(40, 30, 6), (200, 9, 4)])
def test_pulls_are_the_slopes_of_the_distance_in_the_weights(n: int, m: int, d: int) -> None:
    x, y = sets(n, m, d)
    shares0 = measure_frechet(x, y).shares0
    assert sum(shares0.values()) == pytest.approx(0, abs=1e-10)
    step = 1e-5
    for i in (0, 3, n - 1):
        toward_n = np.eye(n)[i] - 1 / n
        slope = (
            weighted_frechet(x, y, 1 / n + step * toward_n) - weighted_frechet(x, y, 1 / n - step * toward_n)
        ) / step
        assert shares0[i] == pytest.approx(slope / 2 / n, rel=1e-5, abs=1e-9)


@pytest.mark.parametrize(("n", "d"), [(20, 5), (30, 50)])
def test_all_pictures_as_the_only_subset_are_torch_fidelitys_kernel_distance(n: int, d: int) -> None:
    x, y = sets(n, n, d)
    mean, deviation = torch_fidelity_kernel(x, y, 1, n)
    assert kernel_distance(x, y) == pytest.approx(mean, rel=1e-10)
    assert deviation == 0.0


def test_subsets_are_drawn_as_torch_fidelity_draws_them() -> None:
    x, y = sets(50, 40, 6)
    random = np.random.RandomState(3)  # torch-fidelity's generator and order of draws
    values = [kernel_distance(*(z[random.choice(len(z), 15, replace=False)] for z in (x, y))) for _ in range(20)]
    mean, deviation = float(np.mean(values)), float(np.std(values))
    assert (mean, deviation) == pytest.approx(torch_fidelity_kernel(x, y, 20, 15), rel=1e-10)
    assert deviation > 0


def test_the_kernel_distance_is_its_definition_pair_by_pair() -> None:
    x, y = sets(7, 5, 3)

    def k(a: Array, b: Array) -> float:
        return float((a @ b / 3 + 1) ** 3)

    within = [
        sum(k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j) / (len(z) * (len(z) - 1))
        for z in (x, y)
    ]
    across = np.mean([[k(a, b) for b in y] for a in x])
    assert kernel_distance(x, y) == pytest.approx(sum(within) - 2 * across, rel=1e-12)


def test_blocks_of_the_kernel_matrix_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = sets(30, 25, 4)
    whole = measure_kernel(x, y)
    monkeypatch.setattr("fairhuman.evaluate.metrics.distances.BLOCK", 7)
    parts = measure_kernel(x, y)
    assert parts.value == pytest.approx(whole.value, rel=1e-12)
    assert parts.shares1 == pytest.approx(whole.shares1)


def test_the_kernel_distance_of_one_distribution_is_zero_on_average() -> None:
    generator = np.random.default_rng(0)
    values = [kernel_distance(*generator.normal(size=(2, 20, 10))) for _ in range(400)]
    assert abs(np.mean(values)) < 4 * np.std(values) / math.sqrt(400)
    assert min(values) < 0


def draw(generator: np.random.Generator, n: int, d: int, scale: float) -> tuple[Array, Array, Array]:
    """Pictures of two methods for the same prompts, with tails, and a reference."""
    prompts = generator.normal(size=(n, d))
    tails = np.exp(0.2 * generator.normal(size=(n, 1)))
    a = scale * tails * (prompts + 0.3 * generator.normal(size=(n, d))) + 0.3 * (scale - 1)
    b = scale * 1.05 * tails * (prompts + 0.3 * generator.normal(size=(n, d)))
    return a, b, generator.normal(size=(n, d))


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(
    ("n", "d", "scale", "most"),
    [
        pytest.param(120, 6, 1.5, 0.98, id="far"),
        pytest.param(60, 12, 1.3, 1.0, id="near", marks=pytest.mark.slow),
        pytest.param(40, 60, 1.2, 1.0, id="fewer pictures than features", marks=pytest.mark.slow),
        pytest.param(100, 6, 1.0, 1.0, id="one distribution", marks=pytest.mark.slow),
    ],
)
def test_intervals_hold_the_mean_of_other_sets_of_the_same_size(
    measure: Measure, n: int, d: int, scale: float, most: float
) -> None:
    generator = np.random.default_rng(n)
    singles, pairs = [], []
    for _ in range(300):
        a, b, reference = draw(generator, n, d, scale)
        first, second = measure(a, reference), measure(b, reference)
        singles.append(first.measured())
        pairs.append(paired_difference(first, second).measured)
    for found in (singles, pairs):
        mean = np.mean([one.value for one in found])
        held = np.mean([one.low <= mean <= one.high for one in found])
        assert 0.92 <= held <= most, f"{held:.3f}"
    spread = np.mean([one.standard_error for one in singles])
    assert np.mean([one.standard_error for one in pairs]) < spread, "what both methods share cancels"


@pytest.mark.parametrize("measure", MEASURES)
def test_copies_of_a_picture_are_no_news_to_its_group(measure: Measure) -> None:
    x, y = sets(40, 2000, 5)
    single = measure(x, y).measured()
    grouped = measure(np.repeat(x, 4, axis=0), y, groups0=[f"prompt {i // 4}" for i in range(160)]).measured()
    ungrouped = measure(np.repeat(x, 4, axis=0), y).measured()
    assert (grouped.n, grouped.prompts) == (160, 40)
    # not equal: pairs of copies enter the kernel distance, and (n - 1) the covariance
    assert grouped.standard_error == pytest.approx(single.standard_error, rel=0.25)
    assert ungrouped.standard_error < 0.6 * grouped.standard_error


@pytest.mark.parametrize("measure", MEASURES)
def test_a_method_does_not_differ_from_itself(measure: Measure) -> None:
    x, y = sets(30, 20, 4)
    found = paired_difference(measure(x, y), measure(x, y))
    assert (found.measured.value, found.measured.standard_error, found.p) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_difference_of_few_groups_is_not_tested(measure: Measure) -> None:
    """Methods that are exchangeable: a Wald test on 3 prompts would tell them apart in a sixth of all cases."""
    generator = np.random.default_rng(0)
    for groups, known in ((2, False), (LEAST_GROUPS - 1, False), (LEAST_GROUPS, True)):
        a, b = generator.normal(size=(2, 2 * groups, 8))
        names = [row // 2 for row in range(2 * groups)]
        found = paired_difference(*(measure(x, generator.normal(size=(9, 8)), names) for x in (a, b)))
        assert math.isfinite(found.measured.value)
        assert math.isfinite(found.p) is known


@pytest.mark.parametrize("measure", MEASURES)
def test_pairs_are_made_by_group_and_not_by_place(measure: Measure) -> None:
    x, y = sets(30, 20, 4)
    names = [f"prompt {i}" for i in range(30)]
    forward = measure(x, y, groups0=names)
    backward = measure(x[::-1] + 0.01, y, groups0=names[::-1])
    by_name = paired_difference(backward, forward)
    by_place = paired_difference(measure(x[::-1] + 0.01, y), measure(x, y))
    assert by_name.measured.standard_error < 0.1 * by_place.measured.standard_error
    assert by_name.p < by_place.p
    reversed_signs = paired_difference(forward, backward)
    assert reversed_signs.measured.value == -by_name.measured.value
    assert reversed_signs.p == by_name.p


def test_a_group_that_one_method_lacks_counts_as_it_is() -> None:
    x, y = sets(30, 20, 4)
    all_of_them = measure_frechet(x, y, groups0=range(30))
    fewer = measure_frechet(x[:25], y, groups0=range(25))
    found = paired_difference(all_of_them, fewer).measured
    assert (found.n, found.prompts) == (25, 30)
    assert math.isfinite(found.standard_error)


def test_one_group_has_no_error() -> None:
    x, y = sets(30, 20, 4)
    found = measure_frechet(x, y, groups0=["one"] * 30).measured()
    assert math.isfinite(found.value)
    assert all(map(math.isnan, (found.standard_error, found.high)))


def test_a_frechet_interval_does_not_go_below_zero_and_a_kernel_interval_may() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 30, 3))
    y[0] += 15
    assert measure_frechet(x, y).measured().low == 0.0
    assert measure_kernel(x, y).measured().low < 0.0


@pytest.mark.parametrize("function", MEASURES)
def test_bad_features_are_named(function: Callable[[Array, Array], object]) -> None:
    x, y = sets(30, 20, 4)
    y[[7, 11], 2] = math.nan, math.inf
    with pytest.raises(DataError, match=r"second set must be finite: 2 of 20 rows aren't, the first is row 7"):
        function(x, y)
    with pytest.raises(DataError, match=r"at least 2 pictures in each set, not 1"):
        function(x, x[:1])
    for wrong in (x[:, :3], x[0]):
        with pytest.raises(ValueError, match=r"\[N, D\] and \[M, D\]"):
            function(x, wrong)


def test_other_references_and_missing_groups_are_refused() -> None:
    x, y = sets(30, 20, 4)
    with pytest.raises(ValueError, match="one reference, got 20 and 19 groups"):
        paired_difference(measure_frechet(x, y), measure_frechet(x, y[:19]))
    with pytest.raises(ValueError, match="a group for each of 30 pictures, not 29"):
        measure_frechet(x, y, groups0=range(29))


def test_sizes_are_judged() -> None:
    with pytest.raises(DataError, match="not 1"):
        size_warning(1, 2048)
    assert "2049 can" in (size_warning(2048, 2048) or "")
    assert "too large by about c / n" in (size_warning(2049, 2048) or "")
    assert size_warning(10_000, 2048) is None
    assert "12801 can" in (size_warning(10_000, 12_800) or "")


def test_the_warning_tells_the_truth_fewer_pictures_give_a_larger_frechet_distance() -> None:
    generator = np.random.default_rng(0)
    x, y = generator.normal(size=(2, 800, 20))
    values = [frechet_distance(x[:n], y[:n]) for n in (15, 50, 200, 800)]
    assert values == sorted(values, reverse=True)
    assert values[0] > 20 * values[-1]
