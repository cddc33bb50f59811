"""Colours shared out so that no group gets more of one than of another.

A study's design asks for it three times: which methods a trial shows, where each of them stands, on which side of an
attention check the right picture is. Each time two families of groups have to come out even at once, such as all
trials of a participant and all trials of an item. That can always be had to within 1 (de Werra, Equitable colorations
of graphs, RIRO 5(R-3), 1971); the proof is the algorithm here.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

import numpy as np

Chain = Sequence[Hashable]  # an element's groups from the widest to the narrowest, each inside the one before


def share_out(
    colours_n: Sequence[int], left_n: Sequence[Chain], right_n: Sequence[Chain], loose_n: Sequence[Hashable]
) -> list[int]:
    """Change colours until those of every group differ in number by at most 1.

    The number of elements of two colours that a group has together is kept while they are shared out anew, and the sum
    of squares of all counts falls each time, so this ends.

    Args:
        colours_n: the colours to start from; each that may be used occurs.
        left_n, right_n: the groups of each element in two families; those of a family lie inside each other or apart.
        loose_n: a third group of each element, made as even as the others leave room for.

    """
    colours = list(colours_n)
    pairs = list(combinations(sorted(set(colours)), 2))
    changed = True
    while changed:
        changed = False
        for pair in pairs:
            places = [place for place, colour in enumerate(colours) if colour in pair]
            left, right = ([family[place] for place in places] for family in (left_n, right_n))
            if all(_even([colours[place] for place in places], pair, family) for family in (left, right)):
                continue
            halves = _halve(left, right, [loose_n[place] for place in places])
            for place, half in zip(places, halves, strict=True):
                colours[place] = pair[half]
            changed = True
    return colours


def shuffled(count: int, generator: np.random.Generator) -> list[int]:
    """The numbers below `count` in a random order."""
    return [int(number) for number in generator.permutation(count)]


def _even(colours_n: Sequence[int], pair: tuple[int, int], chains_n: Sequence[Chain]) -> bool:
    surplus: Counter[tuple[int, Hashable]] = Counter()
    for colour, chain in zip(colours_n, chains_n, strict=True):
        for level, group in enumerate(chain):
            surplus[level, group] += 1 if colour == pair[0] else -1
    return all(abs(number) <= 1 for number in surplus.values())


def _halve(left_n: Sequence[Chain], right_n: Sequence[Chain], loose_n: Sequence[Hashable]) -> list[bool]:
    """Halves of all groups at once.

    Elements are paired within groups, the narrowest first, once for each family. Both pairings together make paths and
    even cycles, along which the halves take turns: every pair is cut in two, and a group has one element without a pair
    at most. With which half a path begins is free, and decided by the loose groups.
    """
    partners = _pairs(left_n), _pairs(right_n)
    halves: dict[int, bool] = {}
    surplus: Counter[Hashable] = Counter()
    for start in range(len(left_n)):
        if start in halves:
            continue
        path = _path(start, partners)
        there: Counter[Hashable] = Counter()
        for place, half in path.items():
            there[loose_n[place]] += 1 if half else -1
        turned = sum(surplus[group] * number for group, number in there.items()) > 0
        for place, half in path.items():
            halves[place] = half != turned
        for group, number in there.items():
            surplus[group] += -number if turned else number
    return [halves[place] for place in range(len(left_n))]


def _path(start: int, partners: tuple[Mapping[int, int], Mapping[int, int]]) -> dict[int, bool]:
    """The path or cycle that an element lies on, in turns."""
    path = {start: False}
    for family in (0, 1):
        place, turn = start, family
        while (following := partners[turn].get(place)) is not None and following not in path:
            path[following] = not path[place]
            place, turn = following, 1 - turn
    return path


def _pairs(chains_n: Sequence[Chain]) -> dict[int, int]:
    pairs: dict[int, int] = {}
    left = list(range(len(chains_n)))
    for level in reversed(range(max(map(len, chains_n), default=0))):
        waiting: dict[Hashable, int] = {}
        rest = []
        for place in left:
            if level >= len(chains_n[place]):
                rest.append(place)
                continue
            other = waiting.pop(chains_n[place][level], None)
            if other is None:
                waiting[chains_n[place][level]] = place
            else:
                pairs[place], pairs[other] = other, place
        left = sorted([*rest, *waiting.values()])
    return pairs
