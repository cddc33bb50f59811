"""The order of samples: pure, complete, and the same however it is divided."""

from itertools import product

import pytest
import torch

from fairhuman.data.sampler import SampleOrder, StepBatches
from fairhuman.randomness import seeded_generator


def test_each_epoch_is_a_permutation_of_its_own():
    order = SampleOrder(seed=3, n=17)
    epochs = [[order.index(epoch * 17 + place) for place in range(17)] for epoch in range(6)]
    assert all(sorted(epoch) == list(range(17)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6
    assert epochs[0] != [SampleOrder(seed=4, n=17).index(place) for place in range(17)]


def test_no_state_any_position_in_any_order():
    forwards = [SampleOrder(1, 10).index(position) for position in range(50)]
    order = SampleOrder(1, 10)
    assert [order.index(position) for position in reversed(range(50))] == forwards[::-1]


def test_successors_start_at_the_position_and_name_all_once():
    order = SampleOrder(1, 10)
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


def test_a_resumed_run_goes_on_where_it_stopped():
    whole = list(StepBatches(2, 5, accumulate=3, world_size=2, rank=1))
    assert list(StepBatches(2, 5, 2, accumulate=3, world_size=2, rank=1)) == whole[6:]
    assert len(StepBatches(2, 5, 2, accumulate=3)) == 9
    assert list(StepBatches(2, 5, 5)) == []


def test_contracts():
    with pytest.raises(ValueError, match="n = 0"):
        SampleOrder(0, 0)
    with pytest.raises(ValueError, match=r"rank must be in 0\.\.1"):
        StepBatches(1, 1, world_size=2, rank=2)
    with pytest.raises(ValueError, match="at least 1"):
        StepBatches(0, 1)
    with pytest.raises(ValueError, match="start_step"):
        StepBatches(1, 1, -1)
