"""Which pictures make the set: draws that depend on the seed and on each picture's key alone.

Every key has its place in an order by hash. So a set stays nearly the same when records come or go, and the first n of
a set of random pictures are a random set themselves.
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
    """Keys in the order of SHA-256 over seed and key."""
    return sorted(keys, key=lambda key: (_hash(key, seed), key))


def _hash(text: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}:{text}".encode()).digest()


def draw(
    strata: Mapping[str, Stratum], count: int, seed: int, sampling: Sampling, allocation: Allocation = "proportional"
) -> list[str]:
    """Keys of a set of `count`, or of all where there are fewer, in the draw's order.

    Args:
        strata: of all that may be drawn, by key.
        count: of the set.
        seed: another one gives an independent set.
        sampling: `random`, or `stratified`: so many from each stratum as `allocate` says.
        allocation: of `stratified`.

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
    """How many of each stratum; their sum is `count`, or all there are.

    `proportional`: n_s = count · N_s / N, rounded by largest remainders (Hamilton). `equal`: the same number of each,
    as far as a stratum has so many; what small ones lack is shared among the others. Ties are drawn, or scenes at the
    beginning of the alphabet would always win.
    """
    total = sum(sizes.values())
    count = min(count, total)
    if not count:
        return dict.fromkeys(sizes, 0)
    by_lot = {name: place for place, name in enumerate(sorted(sizes, key=lambda name: _hash(repr(name), seed)))}
    if allocation == "proportional":
        quotas = {name: count * size // total for name, size in sizes.items()}
        rest = sorted(sizes, key=lambda name: (-(count * sizes[name] % total), by_lot[name]))
        for name in rest[: count - sum(quotas.values())]:
            quotas[name] += 1
        return quotas
    quotas = {}
    left = count
    smallest_first = sorted(sizes, key=lambda name: (sizes[name], by_lot[name]))
    for place, name in enumerate(smallest_first):
        quotas[name] = min(sizes[name], left // (len(sizes) - place))
        left -= quotas[name]
    return quotas


@dataclass(frozen=True, slots=True)
class ValueShare:
    """How often one value of a dimension occurs, as a share 0..1; mean, standard deviation and range over draws."""

    candidates: float
    chosen: float
    mean: float
    deviation: float
    low: float
    high: float


def mix(
    strata: Mapping[str, Stratum], dimensions: Sequence[str], chosen: Sequence[str], draws: Sequence[Sequence[str]]
) -> dict[str, dict[str, ValueShare]]:
    """Shares of the values of each dimension, the most frequent first.

    Args:
        strata: of all candidates, by key.
        dimensions: names of a stratum's places.
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


def overlap(draws: Sequence[Sequence[str]]) -> float:
    """Mean share of the first draw that is in each of the others; 0 where there is one draw."""
    first = set(draws[0])
    return fmean(len(first & set(other)) / len(first) for other in draws[1:]) if len(draws) > 1 else 0.0
