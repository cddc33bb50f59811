"""Which record comes when: pure functions of (seed, position), so that a resumed run needs no state.

A *position* is the running number of a sample since the first step of a run, over all processes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch

from fairhuman.randomness import Stream, seeded_generator


@dataclass(frozen=True)
class SampleOrder:
    """Epoch after epoch through n records, each in an order that depends on (seed, epoch) alone."""

    seed: int
    n: int

    def __post_init__(self) -> None:
        if self.n < 1 or self.seed < 0:
            raise ValueError(f"n must be at least 1 and seed at least 0, not n = {self.n}, seed = {self.seed}")

    def index(self, position: int) -> int:
        """Record of a position ≥ 0: entry `position % n` of the permutation of epoch `position // n`."""
        epoch, place = divmod(position, self.n)
        return int(_permutation(self.seed, epoch, self.n)[place])

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: that of the position, then the next ones of its epoch, around its end."""
        epoch, place = divmod(position, self.n)
        for step in range(self.n):
            yield self.index(epoch * self.n + (place + step) % self.n)


@lru_cache(maxsize=4)  # two for training (a batch may reach over the end of an epoch), two for validation
def _permutation(seed: int, epoch: int, n: int) -> torch.Tensor:
    return torch.randperm(n, generator=seeded_generator(seed, Stream.ORDER, epoch))


@dataclass(frozen=True)
class StepBatches:
    """The positions of one process, micro-batch by micro-batch: the `batch_sampler` of a DataLoader.

    With B = batch_size, A = accumulate, W = world_size, step s owns positions s·B·A·W ... (s+1)·B·A·W - 1.
    Its micro-batch a on process r takes the B positions from s·B·A·W + (a·W + r)·B. So what a step learns
    from depends on B·A·W alone, not on how it is divided.

    Attributes:
        batch_size: samples of one micro-batch on one process.
        steps: optimiser steps of the whole run; the last one is `steps` - 1.
        start_step: first step to give, counted from 0; that of the checkpoint when a run goes on.
        accumulate: micro-batches of an optimiser step.
        world_size, rank: number of processes, and which of them this is.

    """

    batch_size: int
    steps: int
    start_step: int = 0
    accumulate: int = 1
    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if min(self.batch_size, self.accumulate, self.world_size) < 1:
            raise ValueError("batch_size, accumulate and world_size must be at least 1")
        if not 0 <= self.rank < self.world_size:
            raise ValueError(f"rank must be in 0..{self.world_size - 1}, not {self.rank}")
        if self.start_step < 0:
            raise ValueError(f"start_step must be at least 0, not {self.start_step}")

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start_step, self.steps):
            for part in range(self.accumulate):
                first = ((step * self.accumulate + part) * self.world_size + self.rank) * self.batch_size
                yield list(range(first, first + self.batch_size))

    def __len__(self) -> int:
        return max(self.steps - self.start_step, 0) * self.accumulate
