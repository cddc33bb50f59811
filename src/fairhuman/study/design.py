"""Design of a study: a balanced incomplete block design of items, methods and positions.

Over the whole study, counts are as equal as the numbers allow:

- every item is seen equally often, by no participant twice, and equally often at each position in the session;
- every set of methods is shown equally often: to each participant, for each item, and overall;
- every method appears equally often at each position from left to right: for each participant, and overall.

"Equally" means a difference of at most 1. Chance decides which items, participants and methods get the extra one.
Where a seed alone is the source of chance, whoever knows this module can work out the sides from a guess at the seed;
so a study adds a secret.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import combinations
from math import comb, gcd

import numpy as np

from fairhuman.errors import RecipeError
from fairhuman.study.balance import Chain, equitable_colouring, shuffled
from fairhuman.study.study import StudyItem, StudySettings, Trial

MOST_TRIED = 200_000  # choices of sets
Order = list[list[int]]  # ordered items of each participant


def make_trials(
    settings: StudySettings, methods: Sequence[str], checks: Sequence[StudyItem], secret: str | None = None
) -> tuple[tuple[Trial, ...], ...]:
    """The trials of each participant; items are numbered as in `Design.items`, real ones first, then the checks.

    Args:
        settings: settings of the study; the seed is one source of chance.
        methods: names, in the order of `Design.methods`.
        checks: the attention checks.
        secret: 32 hexadecimal digits, the other source; None: none, as in studies made before there was one.

    Raises:
        RecipeError: fewer methods than pictures shown side by side.
    """
    if len(methods) < settings.shown:
        raise RecipeError(f"shown must be at most the number of methods ({', '.join(methods)}); found {settings.shown}")
    generator = np.random.default_rng([settings.seed, 1, *([] if secret is None else [int(secret, 16)])])
    seen = settings.per_participant or settings.items
    order = item_orders(settings.participants, settings.items, seen, generator)
    shown = _arrange(order, _method_sets(order, len(methods), settings.shown, generator), len(methods), generator)
    trials = [
        [Trial(item, tuple(methods[number] for number in row)) for item, row in zip(items, rows, strict=True)]
        for items, rows in zip(order, shown, strict=True)
    ]
    for participant, of_one in enumerate(_check_trials(settings, checks, generator)):
        trials[participant] = _insert(trials[participant], of_one, generator)
    return tuple(map(tuple, trials))


def item_orders(participants: int, items: int, seen: int, generator: np.random.Generator) -> Order:
    """The items of each participant, in order.

    The s-th of R items of participant p is (o_p + w_s) mod I under a random numbering of the items. The offsets
    o_p = p R + ⌊p g / I⌋ with g = gcd(R, I) place the windows of R items end to end, and take every value once in I
    participants. The steps of w = 0, R - 1, 1, R - 2, ... are all different, so that no two items repeatedly follow
    each other (Williams, Australian J. Sci. Res. A 2, 1949).
    """
    zigzag = [place // 2 if place % 2 == 0 else seen - 1 - place // 2 for place in range(seen)]
    around = items // gcd(seen, items)
    numbers, places = shuffled(items, generator), shuffled(participants, generator)
    return [[numbers[(p * seen + p // around + step) % items] for step in zigzag] for p in places]


def _method_sets(order: Order, methods: int, shown: int, generator: np.random.Generator) -> list[list[tuple[int, ...]]]:
    """The set of methods that each trial shows, in the shape of `order`."""
    every = list(combinations(range(methods), shown))
    sets = [every[place] for place in shuffled(len(every), generator)]
    trials = [(participant, item) for participant, items in enumerate(order) for item in items]
    mixed = shuffled(len(trials), generator)
    participants: list[Chain] = [("all", trials[place][0]) for place in mixed]
    items: list[Chain] = [(trials[place][1],) for place in mixed]
    loose = ["none"] * len(mixed)
    colours = equitable_colouring([number % len(sets) for number in range(len(mixed))], participants, items, loose)
    named = _evenest(sets, Counter(colours))
    of_trial = {trials[place]: named[colour] for place, colour in zip(mixed, colours, strict=True)}
    return [[of_trial[participant, item] for item in items_of] for participant, items_of in enumerate(order)]


def _evenest(sets: Sequence[tuple[int, ...]], counts: Counter[int]) -> dict[int, tuple[int, ...]]:
    """Assign sets to colours so that the sets shown once more than others are spread over the pairs of methods.

    All choices of these sets are tried, or, if they are too many, one set is added after the other.
    """
    often = [colour for colour in range(len(sets)) if counts[colour] > min(counts[c] for c in range(len(sets)))]

    def unevenness(chosen: Sequence[tuple[int, ...]]) -> int:
        pairs = Counter(pair for methods in chosen for pair in combinations(methods, 2))
        return sum(number**2 for number in pairs.values())

    chosen: Sequence[tuple[int, ...]] = ()
    if 1 < comb(len(sets), len(often)) <= MOST_TRIED:
        chosen = min(combinations(sets, len(often)), key=unevenness)
    elif often and len(often) < len(sets):
        for _ in often:
            chosen = min(([*chosen, each] for each in sets if each not in chosen), key=unevenness)
    rest = iter([methods for methods in sets if methods not in chosen])
    more = iter(chosen)
    return {colour: next(more) if chosen and colour in often else next(rest) for colour in range(len(sets))}


def _arrange(
    order: Order, sets: Sequence[Sequence[tuple[int, ...]]], methods: int, generator: np.random.Generator
) -> list[list[tuple[int, ...]]]:
    """The methods of each trial, ordered from left to right.

    An element is a method in a trial, and its colour is its position; each position occurs once per trial. Positions
    are balanced for each participant and, as far as possible, for each item. With only two methods, the position of one
    determines the other, so one of them is balanced by participant and the other by item, and both are exact.
    """
    trials = [(p, s) for p, items in enumerate(order) for s in range(len(items))]
    trials = [trials[place] for place in shuffled(len(trials), generator)]
    elements = [(p, s, method) for p, s in trials for method in sets[p][s]]
    colours = [place for p, s in trials for place in shuffled(len(sets[p][s]), generator)]

    def right(p: int, s: int, method: int) -> Chain:
        if methods == 2 and method == 1:
            return (method, (method, order[p][s]))
        return (method, (method, p), (method, p, sets[p][s]))

    left: list[Chain] = [((p, s),) for p, s, _ in elements]
    loose = [(method, order[p][s]) for p, s, method in elements]
    colours = equitable_colouring(colours, left, [right(*element) for element in elements], loose)
    place_of = dict(zip(elements, colours, strict=True))
    return [
        [tuple(sorted(of, key=lambda method: place_of[p, s, method])) for s, of in enumerate(rows)]
        for p, rows in enumerate(sets)
    ]


def _check_trials(
    settings: StudySettings, checks: Sequence[StudyItem], generator: np.random.Generator
) -> list[list[Trial]]:
    """Each participant's attention checks in random order, with the correct picture equally often at each position."""
    elements = [(participant, check) for participant in range(settings.participants) for check in range(len(checks))]
    mixed = [elements[place] for place in shuffled(len(elements), generator)]
    colours = [number % settings.shown for number in range(len(mixed))]
    participants: list[Chain] = [("all", participant) for participant, _ in mixed]
    sides = equitable_colouring(colours, participants, [(check,) for _, check in mixed], ["none"] * len(mixed))
    trials: list[list[Trial]] = [[] for _ in range(settings.participants)]
    for (participant, number), side in zip(mixed, sides, strict=True):
        check = checks[number]
        others = [name for name in check.pictures if name != check.better]
        row = [others[place] for place in shuffled(len(others), generator)]
        row.insert(side, str(check.better))
        trials[participant].append(Trial(settings.items + number, tuple(row)))
    return trials


def _insert(trials: Sequence[Trial], checks: Sequence[Trial], generator: np.random.Generator) -> list[Trial]:
    """Spread the checks over the session, one per equal section, and if possible never as the first trial."""
    ends = np.linspace(0, len(trials), len(checks) + 1).astype(int)
    row: list[Trial] = []
    for check, start, end in zip(checks, ends[:-1], ends[1:], strict=True):
        before = int(generator.integers(start + 1, max(end, start + 1) + 1))
        row += [*trials[start : min(before, end)], check, *trials[min(before, end) : end]]
    return row if checks else list(trials)
