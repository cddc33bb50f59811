"""The order of a run's samples: how often each source occurs, and which records share a batch."""

from array import array
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairhuman.data.samples.buckets import Size, log_aspects, nearest
from fairhuman.data.samples.sampler import BucketOrder, Order, SampleOrder, WeightedOrder


class SourceShare(NamedTuple):
    """Record numbers of one source, and how often they occur: `repeats` times per epoch, or by `weight`."""

    records: Sequence[int]
    repeats: int = 1
    weight: float | None = None


def mixed_order(seed: int, shares: Sequence[SourceShare], part: tuple[int, ...] = ()) -> Order:
    """Order over several sources, all with repeats or all with weights; see `SampleOrder` and `WeightedOrder`."""
    if any(share.weight is None for share in shares):
        if len(shares) == 1 and shares[0].repeats == 1:
            return SampleOrder(seed, shares[0].records, part)
        repeated = array("q", [number for share in shares for number in share.records for _ in range(share.repeats)])
        return SampleOrder(seed, repeated, part)
    sources = [SampleOrder(seed, share.records, (*part, number)) for number, share in enumerate(shares, start=1)]
    return WeightedOrder(seed, sources, [Fraction(share.weight or 0) for share in shares], part)


def bucketed_order(
    seed: int,
    shares: Sequence[SourceShare],
    sizes: Sequence[Size],
    resolutions: Sequence[Size],
    batch: int,
    most_cropped: float = 1.0,
) -> BucketOrder:
    """Order in which each batch, of `batch` samples over all processes and micro-batches, holds records of a single
    bucket.

    A record goes to the bucket with the nearest log aspect ratio. Buckets with less than one batch per epoch are
    closed, smallest first, and their records go to the nearest open bucket, but only where each of these records loses
    at most `most_cropped` (0..1) of its area there. Sizes and resolutions are (height, width); `shares` are those of
    `mixed_order`.
    """
    lengths = _samples_per_epoch(shares, len(sizes))
    aspects, centres = log_aspects(sizes), log_aspects(resolutions)
    opened = np.arange(len(centres))

    def cropped(records: NDArray[np.bool_], others: NDArray[np.int64]) -> float:
        moved = others[nearest(aspects[records], centres[others])]
        return float(1.0 - np.exp(-np.abs(aspects[records] - centres[moved]).max()))

    while True:
        bucket_of = opened[nearest(aspects, centres[opened])]
        length_of: dict[int, Fraction] = {}
        for share, length in zip(shares, lengths, strict=True):
            for bucket, count in zip(*np.unique(bucket_of[share.records], return_counts=True), strict=True):
                length_of[int(bucket)] = length_of.get(int(bucket), Fraction(0)) + int(count) * length
        if len(length_of) == 1:
            break
        for small in sorted(length_of, key=lambda bucket: (length_of[bucket], bucket)):
            others = np.asarray([bucket for bucket in length_of if bucket != small])
            if length_of[small] < batch and cropped(bucket_of == small, others) <= most_cropped:
                opened = others
                break
        else:
            break
    kept = sorted(length_of)
    orders = [_order_of_bucket(seed, shares, bucket_of == bucket, (bucket + 1,)) for bucket in kept]
    return BucketOrder(seed, [resolutions[k] for k in kept], orders, [length_of[k] for k in kept], batch)


def _samples_per_epoch(shares: Sequence[SourceShare], records: int) -> list[Fraction]:
    """How often a record of each source occurs per epoch; with weights, an epoch has as many samples as records."""
    if any(share.weight is None for share in shares):
        return [Fraction(share.repeats) for share in shares]
    total = sum(Fraction(share.weight or 0) for share in shares)
    return [Fraction(share.weight or 0) / total * records / len(share.records) for share in shares]


def _order_of_bucket(
    seed: int, shares: Sequence[SourceShare], inside: NDArray[np.bool_], part: tuple[int, ...]
) -> Order:
    """Order of the records of one bucket; a source's weight is scaled by its share of records in the bucket."""
    kept: list[SourceShare] = []
    for share in shares:
        numbers = np.asarray(share.records, np.int64)
        records = array("q", numbers[inside[numbers]].tobytes())
        if records:
            weight = None if share.weight is None else share.weight * len(records) / len(share.records)
            kept.append(SourceShare(records, share.repeats, weight))
    return mixed_order(seed, kept, part)
