"""What thresholds of filters would leave out, and which values would keep most pictures."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fairhuman.data.pictures.filters import Filter, Measures

KEPT = 0.9  # share of the pictures that a suggested value keeps; a filter that leaves out more of them is harsh
FEW = 100  # up to so many pictures a suggested value keeps all


class Harm(NamedTuple):
    """What one bound of a filter leaves out.

    Attributes:
        reason: that of the rejection, such as `shorter side below 512 pixels`.
        rejected, pictures: number of pictures that it leaves out, and of all.
        advice: what to change, such as `lower min_side: min_side=338 would keep all`.
    """

    reason: str
    rejected: int
    pictures: int
    advice: str

    @property
    def harsh(self) -> bool:
        """Whether it leaves out more than 90 % of the pictures."""
        return self.rejected > KEPT * self.pictures

    @property
    def line(self) -> str:
        """The filter, its counts and the advice."""
        return f"{self.reason} ({self.rejected} of {self.pictures}): {self.advice}"


def harms(
    filters: Sequence[Filter], measures: Sequence[Measures], section: str = "", unknown_kept: bool = True
) -> list[Harm]:
    """What each filter by itself leaves out of the pictures, for bounds that leave out any.

    Args:
        filters: with their thresholds.
        measures: of all pictures.
        section: before names of settings, such as `filters.`.
        unknown_kept: whether pictures whose measure is unknown are kept.
    """
    found = []
    for rule in filters:
        known = np.array([value for each in measures if (value := rule.value(each)) is not None], dtype=np.float64)
        unjudged = len(measures) - len(known)
        unknown = unjudged if unknown_kept else 0
        if unjudged and not unknown_kept:
            found.append(Harm(rule.unjudged, unjudged, len(measures), f"{section}unknown=keep would keep them"))
        for sign, verb, bound, reason, setting in zip(
            (1, -1), ("lower", "raise"), (rule.low, rule.high), rule.reasons, rule.settings, strict=True
        ):
            rejected = 0 if bound is None else int((sign * known < sign * bound).sum())
            if rejected:
                advice = f"{'change' if setting == 'needs' else verb} {section}{setting}"
                if rule.suggests:
                    value = sign * _keeping(sign * known)
                    kept = unknown + int((sign * known >= sign * value).sum())
                    count = "all" if kept == len(measures) else f"{kept} of {len(measures)}"
                    advice += f": {section}{setting}={value:.10g} would keep {count}"
                found.append(Harm(reason, rejected, len(measures), advice))
    return found


def _keeping(values: NDArray[np.float64]) -> float:
    """The largest lower bound, rounded down to four digits, that keeps 90 % of the values, or all of a few."""
    left = int(len(values) * (1 - KEPT) + 1e-9) if len(values) > FEW else 0
    bound = float(np.sort(values)[left])
    if bound == round(bound):
        return bound
    step = 10.0 ** (math.floor(math.log10(abs(bound))) - 3)
    return math.floor(bound / step) * step
