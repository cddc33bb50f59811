"""Equitable colouring: assign colours so that in every group all colours occur equally often, to within 1.

A study's design uses it three times: for the methods that a trial shows, for their positions, and for the position of
the correct picture in an attention check. Each time two families of groups must be balanced simultaneously, such as the
trials of each participant and the trials of each item. This is always possible to within 1 (de Werra, Equitable
colorations of graphs, RIRO 5(R-3), 1971); the algorithm follows the proof.
"""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from itertools import combinations

import numpy as np

Chain = Sequence[Hashable]  # nested groups of an element, from the widest to the narrowest


def equitable_colouring(
    colours_n: Sequence[int], left_n: Sequence[Chain], right_n: Sequence[Chain], loose_n: Sequence[Hashable]
) -> list[int]:
    """Change colours until the counts of any two colours in every group differ by at most 1.

    Two colours at a time are redistributed; this keeps their total in each group and lowers the sum of squared counts,
    so the loop terminates.

    Args:
        colours_n: initial colours; must contain every colour that may be used.
        left_n, right_n: groups of each element in two families; groups of a family are nested or disjoint.
        loose_n: a third group of each element, balanced as far as the others allow.
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
    """The numbers 0..`count` - 1 in random order."""
    return [int(number) for number in generator.permutation(count)]


def _even(colours_n: Sequence[int], pair: tuple[int, int], chains_n: Sequence[Chain]) -> bool:
    surplus: Counter[tuple[int, Hashable]] = Counter()
    for colour, chain in zip(colours_n, chains_n, strict=True):
        for level, group in enumerate(chain):
            surplus[level, group] += 1 if colour == pair[0] else -1
    return all(abs(number) <= 1 for number in surplus.values())


def _halve(left_n: Sequence[Chain], right_n: Sequence[Chain], loose_n: Sequence[Hashable]) -> list[bool]:
    """Split all groups in half simultaneously.

    Elements are paired within groups, narrowest first, once for each family. The two pairings together form paths and
    even cycles, along which the halves alternate: every pair is split, and a group has at most one unpaired element.
    The half with which a path starts is free; the loose groups decide it.
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
    """The path or cycle of an element, with alternating halves."""
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
