"""Orders of records: pure functions of (seed, position), so that a resumed run needs no state.

A *position* is the index of a sample since the first step of a run, over all processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from typing import Protocol

import torch

from fairhuman.utils.randomness import Stream, mixed_seed, seeded_generator


class Order(Protocol):
    """Assignment of records to positions."""

    def index(self, position: int) -> int:
        """Number of the record at a position ≥ 0."""

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: that of the position, then its substitutes in order of preference."""


@dataclass(frozen=True)
class SampleOrder:
    """A permutation of the records in each epoch, which depends on (seed, epoch, part) alone.

    Attributes:
        seed: ≥ 0.
        records: at least one; a record listed r times occurs r times per epoch.
        part: distinguishes orders with the same seed; the last number must be ≥ 1.
    """

    seed: int
    records: Sequence[int]
    part: tuple[int, ...] = ()
    _kept: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.records or self.seed < 0:
            raise ValueError(f"records must not be empty and seed at least 0, found {len(self.records)}, {self.seed}")

    def index(self, position: int) -> int:
        """Record at a position ≥ 0: entry `position % n` of the permutation of epoch `position // n`."""
        epoch, place = divmod(position, len(self.records))
        permutation = _permutation(self._kept, len(self.records), self.seed, epoch, *self.part)
        return self.records[int(permutation[place])]

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: that of the position, then the next ones of its epoch, wrapping around."""
        n = len(self.records)
        epoch, place = divmod(position, n)
        return _unique(self.index(epoch * n + (place + step) % n) for step in range(n))


@dataclass(frozen=True)
class WeightedOrder:
    """Positions assigned to sources in exact proportion; each source has its own order of records.

    With shares w_s (Σ w_s = 1), r_s = w_s / (w_s + w_s+1 + ...) and phases 0 ≤ φ_s < 1 drawn from the seed: of the
    first p positions floor(p r_1 + φ_1) go to source 1; of the remaining q, floor(q r_2 + φ_2) go to source 2; and so
    on. So after any p positions source s has p w_s ± S samples, with S sources, without any state.

    Attributes:
        seed: ≥ 0.
        sources: at least one.
        weights: one per source, > 0; only their proportion matters.
        part: as in `SampleOrder`.
    """

    seed: int
    sources: Sequence[Order]
    weights: Sequence[Fraction]
    part: tuple[int, ...] = ()

    def index(self, position: int) -> int:
        """Record at a position ≥ 0."""
        source, count = self.place(position)
        return self.sources[source].index(count)

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: those of the position's source first."""
        source, count = self.place(position)
        rest = (order.successors(0) for number, order in enumerate(self.sources) if number != source)
        return _unique(chain(self.sources[source].successors(count), *rest))

    def place(self, position: int) -> tuple[int, int]:
        """Source of a position, and the number of its samples before."""
        left = sum(self.weights)
        for source, weight in enumerate(self.weights):
            path = (Stream.ORDER, source, *self.part, 0, 1)
            phase = Fraction(mixed_seed(self.seed, *path), 2**63)
            taken = int(position * weight / left + phase)
            if int((position + 1) * weight / left + phase) > taken:
                return source, taken
            position -= taken
            left -= weight
        raise AssertionError("the last source takes all remaining positions")


@dataclass(frozen=True)
class BucketOrder:
    """Batches of a single bucket each; a bucket holds the records of one resolution.

    Bucket k gives n_k samples per epoch; a batch has G. Each bucket follows its own order, G samples at a time: in
    epoch e it gives its batches floor(e n_k / G) ... floor((e + 1) n_k / G) - 1, and the remainder comes first in the
    next epoch. A permutation per epoch shuffles the batches of all buckets. So nothing is lost or padded; at any time,
    all records listed once in their bucket's order have occurred equally often, ± 1; and for n_k ≥ G such a record
    occurs at most twice per epoch. A bucket with n_k < G gives a batch every G / n_k epochs, the first after half of
    that; its records repeat within the batch, so over a run they occur as often as all others.

    Attributes:
        seed: ≥ 0.
        resolutions: (height, width) of each bucket.
        orders: order of each bucket's records.
        lengths: n_k, each > 0; may be fractions.
        batch: G, the samples of a step over all processes and micro-batches, all from one bucket.
    """

    seed: int
    resolutions: Sequence[tuple[int, int]]
    orders: Sequence[Order]
    lengths: Sequence[Fraction]
    batch: int
    _kept: dict[int, torch.Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def index(self, position: int) -> int:
        """Record at a position ≥ 0."""
        bucket, count = self._place(position)
        return self.orders[bucket].index(count)

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: those of the position's bucket first."""
        bucket, count = self._place(position)
        rest = (order.successors(0) for number, order in enumerate(self.orders) if number != bucket)
        return _unique(chain(self.orders[bucket].successors(count), *rest))

    def resolution(self, position: int) -> tuple[int, int]:
        """Height and width of a position's samples."""
        return self.resolutions[self._place(position)[0]]

    def resolutions_of_records(self) -> dict[int, tuple[int, int]]:
        """Height and width of each record's samples."""
        pairs = zip(self.resolutions, self.orders, strict=True)
        return {record: resolution for resolution, order in pairs for record in order.successors(0)}

    def _place(self, position: int) -> tuple[int, int]:
        """Bucket of a position, and the number of its samples before."""
        step, place = divmod(position, self.batch)
        # A lower bound: epochs consist of full batches, of which small buckets give half a batch ahead of time.
        ahead = Fraction(sum(length < self.batch for length in self.lengths), 2)
        epoch = int(max(step - ahead, Fraction(0)) * self.batch / sum(self.lengths))
        while sum(self._before(epoch + 1)) <= step:
            epoch += 1
        first, last = self._before(epoch), self._before(epoch + 1)
        permutation = _permutation(self._kept, sum(last) - sum(first), self.seed, epoch, 0, 0, 1)
        at = step - sum(first)
        low = 0
        for bucket, (begin, end) in enumerate(zip(first, last, strict=True)):
            high = low + end - begin
            if low <= int(permutation[at]) < high:
                earlier = int(((permutation[:at] >= low) & (permutation[:at] < high)).sum())
                return bucket, (begin + earlier) * self.batch + place
            low = high
        raise AssertionError("each batch belongs to a bucket")

    def _before(self, epoch: int) -> list[int]:
        """Number of batches of each bucket before an epoch."""
        half = Fraction(1, 2)
        return [int(epoch * length / self.batch + half * (length < self.batch)) for length in self.lengths]


@dataclass(frozen=True)
class SizedOrder:
    """An order of records that have a resolution each, (height, width); neighbours may differ in it."""

    order: Order
    resolutions: Sequence[tuple[int, int]]

    def index(self, position: int) -> int:
        """Record at a position ≥ 0."""
        return self.order.index(position)

    def successors(self, position: int) -> Iterator[int]:
        """All records, each once: those of the position's resolution first."""
        wanted, rest = self.resolution(position), []
        for record in self.order.successors(position):
            if self.resolutions[record] == wanted:
                yield record
            else:
                rest.append(record)
        yield from rest

    def resolution(self, position: int) -> tuple[int, int]:
        """Height and width of a position's sample."""
        return self.resolutions[self.index(position)]

    def resolutions_of_records(self) -> dict[int, tuple[int, int]]:
        """Height and width of each record's samples."""
        return dict(enumerate(self.resolutions))


def _unique(records: Iterator[int]) -> Iterator[int]:
    seen: set[int] = set()
    for record in records:
        if record not in seen:
            seen.add(record)
            yield record


def _permutation(kept: dict[int, torch.Tensor], n: int, seed: int, epoch: int, *part: int) -> torch.Tensor:
    """The permutation of an epoch; two are cached, because a batch may cross the end of an epoch."""
    if epoch not in kept:
        while len(kept) > 1:
            del kept[next(iter(kept))]
        kept[epoch] = torch.randperm(n, generator=seeded_generator(seed, Stream.ORDER, epoch, *part))
    return kept[epoch]


@dataclass(frozen=True)
class StepBatches:
    """Positions of one process by micro-batch: the `batch_sampler` of a DataLoader.

    With B = batch_size, A = accumulate, W = world_size, step s has the positions s·B·A·W ... (s+1)·B·A·W - 1.
    Micro-batch a of process r takes B positions from s·B·A·W + (a·W + r)·B on. So the samples of a step depend
    only on B·A·W, not on its division.

    Attributes:
        batch_size: samples of one micro-batch on one process.
        steps: optimiser steps of the whole run; the last one is `steps` - 1.
        start_step: first step, counted from 0; in a resumed run, that of the checkpoint.
        accumulate: micro-batches per optimiser step.
        world_size, rank: number of processes, and the index of this one.
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
