"""Draw the pictures of a set; a draw depends only on the seed and the pictures' keys.

Keys are ordered by hash. So a set changes little when records are added or removed, and the first n pictures of a
random set are a random set themselves.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

from fairhuman.data.validation.strata import Stratum

Sampling = Literal["random", "stratified"]
Allocation = Literal["proportional", "equal"]


def draw_order(keys: Iterable[str], seed: int) -> list[str]:
    """Keys ordered by the SHA-256 of seed and key."""
    return sorted(keys, key=lambda key: (_hash(key, seed), key))


def _hash(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


def draw_keys(
    strata: Mapping[str, Stratum], count: int, seed: int, sampling: Sampling, allocation: Allocation = "proportional"
) -> list[str]:
    """Keys of a set of `count` (or all if there are fewer), in the order of the draw; another seed gives an independent
    set.

    `strata` has the stratum of each candidate, by key. A `stratified` set has the numbers per stratum from `allocate`.
    """
    order = draw_order(strata, seed)
    if sampling == "random":
        return order[:count]
    left = allocate(Counter(strata.values()), count, allocation, seed)
    chosen = []
    for key in order:
        if left[strata[key]] > 0:
            left[strata[key]] -= 1
            chosen.append(key)
    return chosen


def allocate(sizes: Mapping[Stratum, int], count: int, allocation: Allocation, seed: int = 0) -> dict[Stratum, int]:
    """Number of records per stratum; the sum is `count`, or all records if there are fewer.

    `proportional`: n_s = count · N_s / N, rounded by largest remainders (Hamilton). `equal`: the same number of each,
    as far as a stratum is large enough; the rest is shared among the others. Ties are broken at random, so that
    strata early in the alphabet don't always win.
    """
    total = sum(sizes.values())
    count = min(count, total)
    if not count:
        return dict.fromkeys(sizes, 0)
    tie_rank = {name: rank for rank, name in enumerate(sorted(sizes, key=lambda name: _hash(repr(name), seed)))}
    if allocation == "proportional":
        quotas = {name: count * size // total for name, size in sizes.items()}
        rest = sorted(sizes, key=lambda name: (-(count * sizes[name] % total), tie_rank[name]))
        for name in rest[: count - sum(quotas.values())]:
            quotas[name] += 1
        return quotas
    quotas = {}
    left = count
    smallest_first = sorted(sizes, key=lambda name: (sizes[name], tie_rank[name]))
    for place, name in enumerate(smallest_first):
        quotas[name] = min(sizes[name], left // (len(sizes) - place))
        left -= quotas[name]
    return quotas


@dataclass(frozen=True, slots=True)
class ValueShare:
    """Share, 0..1, of one value of a dimension; mean, standard deviation and range are over draws."""

    candidates: float
    chosen: float
    mean: float
    deviation: float
    low: float
    high: float


def value_shares(
    strata: Mapping[str, Stratum], dimensions: Sequence[str], chosen: Sequence[str], draws: Sequence[Sequence[str]]
) -> dict[str, dict[str, ValueShare]]:
    """Shares of the values of each dimension, most frequent first.

    Args:
        strata: stratum of each candidate, by key.
        dimensions: names of a stratum's components.
        chosen: keys of the set.
        draws: keys of repeated draws.
    """
    result: dict[str, dict[str, ValueShare]] = defaultdict(dict)
    for place, dimension in enumerate(dimensions):
        of_all = Counter(values[place] for values in strata.values())
        of_chosen = Counter(strata[key][place] for key in chosen)
        of_draws = [Counter(strata[key][place] for key in keys) for keys in draws]
        for value, number in sorted(of_all.items(), key=lambda item: (-item[1], item[0])):
            shares = [counted[value] / counted.total() for counted in of_draws]
            result[dimension][value] = ValueShare(
                number / len(strata),
                of_chosen[value] / len(chosen),
                fmean(shares),
                stdev(shares) if len(shares) > 1 else 0.0,
                min(shares),
                max(shares),
            )
    return dict(result)


def mean_overlap(draws: Sequence[Sequence[str]]) -> float:
    """Mean share of the first draw that is in each of the other draws; 0 for a single draw."""
    first = set(draws[0])
    return fmean(len(first & set(other)) / len(first) for other in draws[1:]) if len(draws) > 1 else 0.0
