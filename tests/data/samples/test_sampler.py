"""The order of samples: pure, complete, and the same however it is divided."""

from collections import Counter
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise, product

import pytest
import torch

from fairhuman.data.samples.sampler import BucketOrder, SampleOrder, StepBatches, WeightedOrder
from fairhuman.utils.randomness import seeded_generator


def test_each_epoch_is_a_permutation_of_its_own():
    order = SampleOrder(3, range(17))
    epochs = [[order.index(epoch * 17 + place) for place in range(17)] for epoch in range(6)]
    assert all(sorted(epoch) == list(range(17)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert epochs[0] != [SampleOrder(4, range(17)).index(place) for place in range(17)]


def test_no_state_any_position_in_any_order():
    forwards = [SampleOrder(1, range(10)).index(position) for position in range(50)]
    order = SampleOrder(1, range(10))
    assert [order.index(position) for position in reversed(range(50))] == forwards[::-1]


def test_successors_start_at_the_position_and_name_all_once():
    order = SampleOrder(1, range(10))
    found = list(order.successors(27))
    assert found[0] == order.index(27)
    assert found[1] == order.index(28)
    assert sorted(found) == list(range(10))


def test_generators_of_neighbours_are_unrelated():
    draws = {path: torch.rand(4, generator=seeded_generator(*path)) for path in product((0, 1, 2), (0, 1), (0, 1, 2))}
    values = torch.stack(list(draws.values()))
    assert len(values.flatten().unique()) == values.numel()
    assert torch.equal(draws[1, 0, 2], torch.rand(4, generator=seeded_generator(1, 0, 2)))


def union(batch_size: int, accumulate: int, world_size: int, start: int = 0) -> list[set[int]]:
    """Positions of each step, over all processes and micro-batches."""
    parts = [list(StepBatches(batch_size, 5, start, accumulate, world_size, rank)) for rank in range(world_size)]
    steps = []
    for step in range(5 - start):
        chosen = [batch for part in parts for batch in part[step * accumulate : (step + 1) * accumulate]]
        positions = [position for batch in chosen for position in batch]
        assert len(positions) == len(set(positions))
        steps.append(set(positions))
    return steps


@pytest.mark.parametrize(
    ("batch_size", "accumulate", "world_size"), [(12, 1, 1), (6, 2, 1), (3, 2, 2), (1, 4, 3), (2, 1, 6)]
)
def test_steps_are_the_same_however_they_are_divided(batch_size, accumulate, world_size):
    assert union(batch_size, accumulate, world_size) == [set(range(12 * s, 12 * s + 12)) for s in range(5)]


def test_a_resumed_run_continues_where_it_stopped():
    whole = list(StepBatches(2, 5, accumulate=3, world_size=2, rank=1))
    assert list(StepBatches(2, 5, 2, accumulate=3, world_size=2, rank=1)) == whole[6:]
    assert len(StepBatches(2, 5, 2, accumulate=3)) == 9
    assert list(StepBatches(2, 5, 5)) == []


def test_the_order_of_a_seed_is_that_of_earlier_versions():
    """A run that goes on with this version goes on with its own samples."""
    assert [SampleOrder(3, range(8)).index(position) for position in range(16)] == [
        3,
        7,
        6,
        1,
        0,
        2,
        5,
        4,
        3,
        7,
        2,
        4,
        1,
        6,
        0,
        5,
    ]


def test_a_record_listed_twice_occurs_twice_per_epoch():
    order = SampleOrder(2, (7, 7, 9))
    assert Counter(order.index(position) for position in range(30)) == {7: 20, 9: 10}
    assert sorted(order.successors(4)) == [7, 9]


WEIGHTS = [(1, 1), (3, 1), (7, 2, 1), (0.5, 0.25, 0.125, 0.125), (1, 1e-6), (1e-9, 5, 0.3)]


def weighted(weights: Sequence[float], seed: int = 1) -> WeightedOrder:
    sources = [SampleOrder(seed, range(10 * s, 10 * s + s + 2), (s + 1,)) for s in range(len(weights))]
    return WeightedOrder(seed, sources, [Fraction(weight) for weight in weights])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_source_has_its_share_at_any_time(weights):
    order = weighted(weights)
    given = [0] * len(weights)
    for position in range(1500):
        source, count = order.place(position)
        assert count == given[source]  # goes through its own order, without a gap
        given[source] += 1
        for share, number in zip(weights, given, strict=True):
            assert abs(number - (position + 1) * share / sum(weights)) < len(weights)


def test_each_source_keeps_to_its_own_order():
    order = weighted((7, 2, 1))
    seen: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for position in range(300):
        seen[order.index(position) // 10].append(order.index(position))
    for source, records in seen.items():
        own = order.sources[source]
        assert records == [own.index(count) for count in range(len(records))]
    assert [len(records) for records in seen.values()] == pytest.approx([210, 60, 30], abs=3)


def test_weights_need_no_state_and_follow_the_seed():
    forwards = [weighted((3, 2)).index(position) for position in range(100)]
    order = weighted((3, 2))
    assert [order.index(position) for position in reversed(range(100))] == forwards[::-1]
    assert [weighted((3, 2), seed=2).place(position) for position in range(100)] != [
        weighted((3, 2)).place(position) for position in range(100)
    ]
    far = weighted((1, 1e-6)).place(10**12)
    assert far in ((0, pytest.approx(10**12, rel=1e-5)), (1, pytest.approx(10**6, rel=1e-5)))


def test_the_same_source_takes_a_lost_record_s_place_first():
    found = list(weighted((3, 2, 1)).successors(11))
    first = weighted((3, 2, 1)).index(11)
    same = [record for record in found if record // 10 == first // 10]
    assert found[0] == first
    assert found[: len(same)] == same
    assert sorted(found) == [0, 1, 10, 11, 12, 20, 21, 22, 23]


def buckets(lengths: Sequence[float], batch: int, seed: int = 4) -> BucketOrder:
    """Buckets with that many records, numbered from 1,000 k on."""
    orders = [SampleOrder(seed, range(1000 * k, 1000 * k + int(n)), (k + 1,)) for k, n in enumerate(lengths)]
    resolutions = [(64 + 16 * k, 64) for k in range(len(lengths))]
    return BucketOrder(seed, resolutions, orders, [Fraction(length) for length in lengths], batch)


BUCKETS = [((8, 8), 8), ((9, 13, 30), 8), ((100,), 7), ((5, 6, 7, 8), 5), ((16, 40), 3), ((3, 4), 1)]


@pytest.mark.parametrize(("lengths", "batch"), BUCKETS)
def test_a_batch_holds_one_bucket_and_nothing_is_lost_or_padded(lengths, batch):
    order, total, epochs = buckets(lengths, batch), sum(lengths), 12
    counts: Counter[int] = Counter()
    steps = epochs * total // batch
    for step in range(steps):
        records = [order.index(position) for position in range(step * batch, (step + 1) * batch)]
        assert {order.resolution(p) for p in range(step * batch, (step + 1) * batch)} == {
            order.resolutions[records[0] // 1000]
        }
        assert len({record // 1000 for record in records}) == 1
        counts.update(records)
    assert len(counts) == total
    for k, length in enumerate(lengths):
        often = [counts[record] for record in range(1000 * k, 1000 * k + length)]
        assert max(often) - min(often) <= 1
        assert sum(often) == pytest.approx(epochs * length, abs=batch * (len(lengths) + 1))


@pytest.mark.parametrize(("lengths", "batch"), BUCKETS)
def test_a_record_occurs_at_most_twice_per_epoch(lengths, batch):
    order = buckets(lengths, batch)
    begins = [sum(int(Fraction(epoch * length, batch)) for length in lengths) for epoch in range(12)]
    for begin, end in pairwise(begins):
        counts = Counter(order.index(position) for position in range(begin * batch, end * batch))
        assert max(counts.values()) <= 2
        for k, length in enumerate(lengths):
            got = sum(number for record, number in counts.items() if record // 1000 == k)
            assert length - batch < got < length + batch


def test_batches_of_buckets_are_shuffled_in_each_epoch():
    order = buckets((80, 80, 80), 8)
    epochs = [[order.resolution(8 * step)[0] for step in range(30 * e, 30 * e + 30)] for e in range(3)]
    assert len({tuple(epoch) for epoch in epochs}) == 3
    assert all(Counter(epoch) == {64: 10, 80: 10, 96: 10} for epoch in epochs)
    assert all(epoch != sorted(epoch) for epoch in epochs)


def test_buckets_need_no_state():
    forwards = [buckets((9, 13, 30), 8).index(position) for position in range(400)]
    order = buckets((9, 13, 30), 8)
    assert [order.index(position) for position in reversed(range(400))] == forwards[::-1]
    assert [buckets((9, 13, 30), 8, seed=5).index(position) for position in range(400)] != forwards


def test_a_record_of_the_same_bucket_takes_a_lost_one_s_place_first():
    order = buckets((9, 13, 30), 8)
    for position in range(0, 200, 8):
        found = list(order.successors(position))
        assert found[0] == order.index(position)
        size = (9, 13, 30)[found[0] // 1000]
        assert {record // 1000 for record in found[:size]} == {found[0] // 1000}
        assert len(found) == len(set(found)) == 52


@pytest.mark.parametrize(("batch_size", "accumulate", "world_size"), [(12, 1, 1), (3, 2, 2), (1, 4, 3), (2, 1, 6)])
def test_a_step_is_of_one_bucket_however_it_is_divided(batch_size, accumulate, world_size):
    order = buckets((30, 50, 70), 12)
    whole = [sorted(map(order.index, positions)) for positions in union(12, 1, 1)]
    assert [sorted(map(order.index, positions)) for positions in union(batch_size, accumulate, world_size)] == whole
    assert all(len({record // 1000 for record in step}) == 1 for step in whole)


def test_contracts():
    with pytest.raises(ValueError, match="records must not be empty"):
        SampleOrder(0, ())
    with pytest.raises(ValueError, match=r"rank must be in 0\.\.1"):
        StepBatches(1, 1, world_size=2, rank=2)
    with pytest.raises(ValueError, match="at least 1"):
        StepBatches(0, 1)
    with pytest.raises(ValueError, match="start_step"):
        StepBatches(1, 1, -1)
