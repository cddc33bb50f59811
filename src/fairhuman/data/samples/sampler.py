"""Which record comes when: pure functions of (seed, position), so that a resumed run needs no state.

A *position* is the running number of a sample since the first step of a run, over all processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Protocol

import torch

from fairhuman.utils.randomness import Stream, mixed_seed, seeded_generator


class Order(Protocol):
    """Which record is at a position."""

    def index(self, position: int) -> int:
        """Number of the record of a position ≥ 0."""

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: that of the position, then those that may take its place, the best first."""


@dataclass(frozen=True)
class SampleOrder:
    """Epoch after epoch through a list of records, each in an order that depends on (seed, epoch, part) alone.

    Attributes:
        seed: ≥ 0.
        records: at least one; a record that stands there r times comes r times an epoch.
        part: sets orders of one seed apart; numbers, the last one ≥ 1.

    """

    seed: int
    records: Sequence[int]
    part: tuple[int, ...] = ()
    _kept: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.records or self.seed < 0:
            raise ValueError(f"records must not be empty and seed at least 0, found {len(self.records)}, {self.seed}")

    def index(self, position: int) -> int:
        """Record of a position ≥ 0: with n records, entry `position % n` of the permutation of `position // n`."""
        epoch, place = divmod(position, len(self.records))
        mixed = _permutation(self._kept, len(self.records), self.seed, epoch, *self.part)
        return self.records[int(mixed[place])]

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: that of the position, then the next ones of its epoch, around its end."""
        n = len(self.records)
        epoch, place = divmod(position, n)
        return _unique(self.index(epoch * n + (place + step) % n) for step in range(n))


@dataclass(frozen=True)
class WeightedOrder:
    """Positions dealt out to sources in exact proportion; each source goes through its own records in its own order.

    With shares w_s of a sum of 1, r_s = w_s / (w_s + w_s+1 + ...) and phases 0 ≤ φ_s < 1 drawn from the seed: of the
    first p positions floor(p r_1 + φ_1) go to source 1; of the q that are left floor(q r_2 + φ_2) go to source 2; and
    so on. So after p positions source s had p w_s samples, give or take S for S sources; for any p, without state.

    Attributes:
        seed: ≥ 0.
        sources: at least one.
        weights: one a source, > 0; only their proportion counts.
        part: as that of `SampleOrder`.

    """

    seed: int
    sources: Sequence[Order]
    weights: Sequence[Fraction]
    part: tuple[int, ...] = ()

    def index(self, position: int) -> int:
        """Record of a position ≥ 0."""
        source, count = self.place(position)
        return self.sources[source].index(count)

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: those of the position's source first."""
        source, count = self.place(position)
        others = (order.successors(0) for other, order in enumerate(self.sources) if other != source)
        return _unique(chain(self.sources[source].successors(count), *others))

    def place(self, position: int) -> tuple[int, int]:
        """Source of a position, and the number of samples that it gave before."""
        left = sum(self.weights)
        for source, weight in enumerate(self.weights):
            path = (Stream.ORDER, source, *self.part, 0, 1)
            phase = Fraction(mixed_seed(self.seed, *path), 2**63)
            taken = int(position * weight / left + phase)
            if int((position + 1) * weight / left + phase) > taken:
                return source, taken
            position -= taken
            left -= weight
        raise AssertionError("the last source takes all that is left")


@dataclass(frozen=True)
class BucketOrder:
    """Batches that hold one bucket each, a bucket being records that are shown at one resolution.

    Bucket k gives n_k samples an epoch, N together; a batch has G. Each bucket goes through its own order, G samples
    at a time: in epoch e it gives its batches floor(e n_k / G) ... floor((e + 1) n_k / G) - 1, and what is left over
    comes first in the next epoch. Which bucket is next is mixed by a permutation of the epoch. So nothing is lost or
    padded; at any moment all records that come once in their bucket's order came equally often, give or take one; and
    where n_k ≥ G such a record comes at most twice in an epoch.

    Attributes:
        seed: ≥ 0.
        resolutions: (height, width) of each bucket.
        orders: that of each bucket's records.
        lengths: n_k, each > 0; may be fractions.
        batch: G, the samples of a step over all processes and micro-batches; all of a step are of one bucket.

    """

    seed: int
    resolutions: Sequence[tuple[int, int]]
    orders: Sequence[Order]
    lengths: Sequence[Fraction]
    batch: int
    _kept: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def index(self, position: int) -> int:
        """Record of a position ≥ 0."""
        bucket, count = self._place(position)
        return self.orders[bucket].index(count)

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: those of the position's bucket first."""
        bucket, count = self._place(position)
        others = (order.successors(0) for other, order in enumerate(self.orders) if other != bucket)
        return _unique(chain(self.orders[bucket].successors(count), *others))

    def resolution(self, position: int) -> tuple[int, int]:
        """Height and width of a position's samples."""
        return self.resolutions[self._place(position)[0]]

    def resolutions_of_records(self) -> dict[int, tuple[int, int]]:
        """Height and width of each record's samples."""
        pairs = zip(self.resolutions, self.orders, strict=True)
        return {record: resolution for resolution, order in pairs for record in order.successors(0)}

    def _place(self, position: int) -> tuple[int, int]:
        """Bucket of a position, and the number of samples that it gave before."""
        step, place = divmod(position, self.batch)
        epoch = int(step * self.batch / sum(self.lengths))  # or a little later: whole batches are behind
        while sum(self._before(epoch + 1)) <= step:
            epoch += 1
        first, last = self._before(epoch), self._before(epoch + 1)
        mixed = _permutation(self._kept, sum(last) - sum(first), self.seed, epoch, 0, 0, 1)
        at = step - sum(first)
        low = 0
        for bucket, (begin, end) in enumerate(zip(first, last, strict=True)):
            high = low + end - begin
            if low <= int(mixed[at]) < high:
                earlier = int(((mixed[:at] >= low) & (mixed[:at] < high)).sum())
                return bucket, (begin + earlier) * self.batch + place
            low = high
        raise AssertionError("each batch is one of a bucket's")

    def _before(self, epoch: int) -> list[int]:
        """Batches that each bucket gave before an epoch."""
        return [int(epoch * length / self.batch) for length in self.lengths]


def _unique(records: Iterator[int]) -> Iterator[int]:
    seen: set[int] = set()
    for record in records:
        if record not in seen:
            seen.add(record)
            yield record


def _permutation(kept: dict[int, torch.Tensor], n: int, seed: int, epoch: int, *part: int) -> torch.Tensor:
    """The permutation of an epoch; two are kept, as a batch may reach over the end of one."""
    if epoch not in kept:
        while len(kept) > 1:
            del kept[next(iter(kept))]
        kept[epoch] = torch.randperm(n, generator=seeded_generator(seed, Stream.ORDER, epoch, *part))
    return kept[epoch]


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
