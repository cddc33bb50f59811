"""Fronts: dominance, hypervolume, attainment and the best of n runs, each against an independent statement."""

from itertools import combinations

import numpy as np
import pytest

from fairhuman.stats.fronts import attainment, expected_best, hypervolume, non_dominated

POINTS = np.array([[0.0, -1.0], [0.1, -2.0], [0.1, -1.5], [0.3, -2.0], [-0.2, 0.5], [0.4, -3.0]])


def test_the_front_is_what_no_other_point_dominates() -> None:
    assert non_dominated(POINTS).tolist() == [True, True, False, False, True, True]
    assert non_dominated(np.array([[1.0, 1.0], [1.0, 1.0]])).all(), "equal points don't dominate each other"


def test_three_objectives_have_larger_fronts_than_two() -> None:
    points = np.random.default_rng(0).random((40, 3))
    whole, plane = non_dominated(points), non_dominated(points[:, :2])
    assert whole[plane].all()
    assert whole.sum() > plane.sum()


def test_the_hypervolume_is_the_area_under_attainment() -> None:
    limits = np.linspace(-0.3, 0.5, 80001)
    attained = np.minimum(attainment(POINTS, limits), 0.0)
    area = float(-attained[:-1].sum() * (limits[1] - limits[0]))
    assert hypervolume(POINTS, (0.5, 0.0)) == pytest.approx(area, abs=1e-4)
    # (0 .. 0.1) x 1 + (0.1 .. 0.4) x 2 + (0.4 .. 0.5) x 3
    assert hypervolume(POINTS, (0.5, 0.0)) == pytest.approx(0.1 + 0.6 + 0.3)


def test_points_outside_the_reference_and_dominated_ones_add_nothing() -> None:
    more = np.concatenate([POINTS, [[0.6, -9.0], [0.2, -1.9], [0.2, 4.0]]])
    assert hypervolume(more, (0.5, 0.0)) == pytest.approx(hypervolume(POINTS, (0.5, 0.0)))
    assert hypervolume(POINTS, (-0.5, 0.0)) == 0.0


def test_leading_axes_are_draws() -> None:
    draws = POINTS + np.random.default_rng(1).normal(0, 0.1, (7, *POINTS.shape))
    assert hypervolume(draws, (0.5, 0.0)).tolist() == pytest.approx(
        [float(hypervolume(one, (0.5, 0.0))) for one in draws]
    )
    assert attainment(draws, [0.0, 0.2]).shape == (7, 2)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_the_expected_best_is_the_mean_over_all_choices(n: int) -> None:
    values = np.array([0.3, -1.0, 0.0, -1.0, 2.0, -0.4])
    assert expected_best(values, n) == pytest.approx(np.mean([min(some) for some in combinations(values, n)]))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: expected_best(np.zeros(3), 4), r"n must be in 1..3, the number of values, got 4"),
        (lambda: hypervolume(np.zeros((0, 2)), (0.0, 0.0)), r"P of at least 1, got \(0, 2\)"),
        (lambda: non_dominated(np.array([[np.nan, 0.0]])), r"points must be finite"),
        (lambda: non_dominated(np.zeros(3)), r"shape \[P, K\], got \(3,\)"),
    ],
)
def test_wrong_input_is_refused(call, message) -> None:
    with pytest.raises(ValueError, match=message):
        call()
