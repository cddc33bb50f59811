"""Ranks of the pictures of a group, from left to right: 1 is the best, and pictures of one rank are tied.

Only the order counts, so ranks are kept dense: 1, 2, ... without gaps.
"""

from collections.abc import Sequence

JOIN = "|"  # between ranks, and between names of methods, in tables
Ranks = tuple[int, ...]


def dense(ranks: Sequence[int]) -> Ranks:
    """The same order without gaps: 2, 5, 2 becomes 1, 2, 1."""
    levels = sorted(set(ranks))
    return tuple(1 + levels.index(rank) for rank in ranks)


def sole_best(ranks: Sequence[int]) -> int | None:
    """The place of the only picture with the best rank; None: several are tied."""
    best = min(ranks)
    return ranks.index(best) if list(ranks).count(best) == 1 else None


def shared_places(ranks: Sequence[int]) -> list[float]:
    """The place of each picture in the order, 1 to n; tied ones share the mean of their places."""
    return [sum(other < rank for other in ranks) + (1 + sum(other == rank for other in ranks)) / 2 for rank in ranks]


def ranks_text(ranks: Sequence[int]) -> str:
    """Ranks as text, such as `2|1|1`."""
    return JOIN.join(map(str, ranks))


def parse_ranks(text: str, shown: int) -> Ranks:
    """The dense ranks of `shown` pictures from their text.

    Raises:
        ValueError: it isn't one whole number of 1 to `shown` for each.
    """
    words = [word.strip() for word in text.split(JOIN)]
    if len(words) != shown or not all(
        word.isascii() and word.isdecimal() and 1 <= int(word) <= shown for word in words
    ):
        raise ValueError(f"ranks must be {shown} numbers of 1 to {shown} joined by {JOIN!r}, found {text!r}")
    return dense([int(word) for word in words])
