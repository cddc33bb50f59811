"""Draws depend on seed and key alone; quotas add up, fit, and are as fair as they can be."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairhuman.data.validation.sampling import allocate, draw_keys, draw_order, mean_overlap, value_shares

KEYS = [f"images/{number:04}.jpg" for number in range(400)]
STRATA = {key: ("street" if number % 4 else "studio", str(number % 3)) for number, key in enumerate(KEYS)}
sizes = st.dictionaries(st.tuples(st.text("abc", min_size=1, max_size=3)), st.integers(1, 50), min_size=1, max_size=8)


@given(sizes, st.integers(0, 300), st.sampled_from(["proportional", "equal"]))
def test_quotas_add_up_and_fit(sizes: dict, count: int, allocation: str) -> None:
    quotas = allocate(sizes, count, allocation)
    assert quotas.keys() == sizes.keys()
    assert sum(quotas.values()) == min(count, sum(sizes.values()))
    assert all(0 <= quotas[name] <= sizes[name] for name in sizes)


@given(sizes, st.integers(1, 300))
def test_proportional_quotas_are_within_one_of_their_share(sizes: dict, count: int) -> None:
    total = sum(sizes.values())
    for name, quota in allocate(sizes, count, "proportional").items():
        assert abs(quota - min(count, total) * sizes[name] / total) < 1


@given(sizes, st.integers(1, 300))
def test_equal_quotas_differ_by_one_at_most_where_there_is_enough(sizes: dict, count: int) -> None:
    quotas = allocate(sizes, count, "equal")
    unfilled = [quotas[name] for name in sizes if quotas[name] < sizes[name]]
    assert not unfilled or max(quotas.values()) - min(unfilled) <= 1


@given(sizes, st.integers(1, 300), st.sampled_from(["proportional", "equal"]), st.randoms())
def test_quotas_do_not_depend_on_the_order(sizes: dict, count: int, allocation: str, random) -> None:
    names = list(sizes)
    random.shuffle(names)
    assert allocate({name: sizes[name] for name in names}, count, allocation) == allocate(sizes, count, allocation)


@pytest.mark.parametrize("sampling", ["random", "stratified"])
def test_a_draw_has_distinct_keys_in_an_order_that_does_not_depend_on_the_source_s(sampling: str) -> None:
    drawn = draw_keys(STRATA, 100, 7, sampling)
    assert len(set(drawn)) == len(drawn) == 100
    assert draw_keys(dict(reversed(STRATA.items())), 100, 7, sampling) == drawn
    assert draw_keys(STRATA, 100, 8, sampling) != drawn
    assert sorted(draw_keys(STRATA, 1000, 7, sampling)) == KEYS


def test_a_smaller_random_set_is_the_beginning_of_a_larger_one() -> None:
    assert draw_keys(STRATA, 200, 0, "random")[:50] == draw_keys(STRATA, 50, 0, "random")


@pytest.mark.parametrize("sampling", ["random", "stratified"])
def test_a_set_stays_nearly_the_same_when_records_go(sampling: str) -> None:
    before = draw_keys(STRATA, 100, 0, sampling)
    left = {key: value for key, value in STRATA.items() if key not in before[:5]}
    after = draw_keys(left, 100, 0, sampling)
    assert len(set(before) & set(after)) >= 90


def test_seeds_are_independent() -> None:
    """Of two sets of 100 out of 400 a quarter is shared on average (standard deviation 3.8 for one pair)."""
    draws = [draw_keys(STRATA, 100, seed, "random") for seed in range(30)]
    assert mean_overlap(draws) == pytest.approx(0.25, abs=0.03)
    assert mean_overlap(draws[:1]) == 0.0


def test_all_records_come_equally_often_at_the_first_place() -> None:
    first = Counter(draw_order("abcd", seed)[0] for seed in range(2000))
    assert all(abs(count - 500) < 90 for count in first.values())  # 4.6 standard deviations


def test_stratified_keeps_the_mix_and_equal_evens_it_out() -> None:
    proportional = Counter(STRATA[key] for key in draw_keys(STRATA, 60, 0, "stratified", "proportional"))
    for name, size in Counter(STRATA.values()).items():
        assert abs(proportional[name] - 60 * size / 400) < 1
    equal = Counter(STRATA[key] for key in draw_keys(STRATA, 60, 0, "stratified", "equal"))
    assert set(equal.values()) == {10}


def test_ties_favour_no_stratum() -> None:
    """Ten strata of four, one place in two each: over many seeds every one gets as many."""
    sizes = {(str(number),): 4 for number in range(10)}
    quotas = [allocate(sizes, 5, "proportional", seed) for seed in range(400)]
    taken = Counter({name: sum(quota[name] for quota in quotas) for name in sizes})
    assert all(abs(count - 200) < 50 for count in taken.values())  # 5 standard deviations


def test_mix_gives_shares_of_all_and_their_spread_over_draws() -> None:
    draws = [draw_keys(STRATA, 100, seed, "random") for seed in range(20)]
    shares = value_shares(STRATA, ("scene", "rest"), draws[0], draws)
    street = shares["scene"]["street"]
    assert list(shares["scene"]) == ["street", "studio"]
    assert street.candidates == 0.75
    assert street.chosen == sum(STRATA[key][0] == "street" for key in draws[0]) / 100
    assert street.low <= street.mean <= street.high
    # hypergeometric: sqrt(n p (1-p) (N-n)/(N-1)) / n = 0.0375
    assert 0.02 < street.deviation < 0.06
    assert sum(share.mean for share in shares["rest"].values()) == pytest.approx(1)
