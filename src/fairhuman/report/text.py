"""Human-readable numbers."""

import math
from collections.abc import Sequence
from itertools import pairwise

from fairhuman.stats.estimate import Estimate

MOST_DECIMALS = 6


def duration(seconds: float) -> str:
    """A human-readable duration: `40 s`, `3 min`, `2.1 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def whole_percent(share: float) -> str:
    """A share as whole percent, rounded down: what isn't whole everywhere isn't 100 %."""
    return f"{math.floor(100 * share + 1e-9)} %"


def percent(share: float, places: int = 0, *, signed: bool = False) -> str:
    """`12 %`, a share rounded to so many decimals; a dash for NaN."""
    return "-" if math.isnan(share) else f"{round(100 * share, places) + 0.0:{'+' if signed else ''}.{places}f} %"


def fine_percent(share: float, *, signed: bool = False) -> str:
    """`2.0 %`, a share with one decimal, or with its first digit where that would be 0: `0.04 %`."""
    value = 100 * share
    return f"{value:{'+' if signed else ''}{'.1f' if round(value, 1) else '.1g'}} %"


def listed(words: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def funnel_rows(stages: Sequence[tuple[str, int]]) -> list[tuple[str, str, str]]:
    """Name, records left and records lost of each stage; a stage is its name and the number of records after it."""
    return [
        (name, f"{left:,}", f"-{was - left:,}" if was > left else "")
        for (_, was), (name, left) in pairwise((*stages[:1], *stages))
    ]


def plural(number: int, word: str) -> str:
    """`1 picture`, `8 pictures`."""
    return f"{number:,} {word}" if number == 1 else f"{number:,} {word}s"


def picture_count(pictures: int, prompts: int) -> str:
    """`8 pictures`, and `8 pictures of 3 prompts` where some are of the same prompt."""
    return plural(pictures, "picture") + (f" of {plural(prompts, 'prompt')}" if prompts < pictures else "")


def prompt_count(prompts: Sequence[str | None]) -> str:
    """What so many pictures with these prompts show: `8 prompts`, or `8 pictures of 3 prompts` where some are equal.

    Where one is unknown, `None`, only the pictures are counted.
    """
    different = len(set(prompts))
    if None in prompts:
        return plural(len(prompts), "picture")
    return plural(different, "prompt") if different == len(prompts) else picture_count(len(prompts), different)


def decimals(low: float, high: float) -> int:
    """Decimals that an interval allows: the last one is between 2 % and 20 % of its width."""
    return min(max(math.ceil(-math.log10((high - low) / 5)), 0), MOST_DECIMALS)


def estimate_text(estimate: Estimate, form: str = "{:.4g}", *, signed: bool = False, percent: bool = False) -> str:
    """`value [low, high]` with the digits that the interval allows; `form` where there is no interval.

    Ends that differ by rounding alone are no interval; without a value there is nothing to measure. `percent` is for
    shares.
    """
    sign = "+" if signed else ""
    scale, unit = (100, " %") if percent else (1, "")
    value, low, high = (scale * number for number in (estimate.value, estimate.low, estimate.high))
    if math.isnan(value):
        return "nothing to measure"
    if not (math.isfinite(low) and math.isfinite(high) and high - low > 10**-MOST_DECIMALS):
        rounded = round(value, 2 * MOST_DECIMALS) + 0.0
        return (form if rounded else form.replace("+", "")).format(rounded) + unit
    places = decimals(low, high)
    rounded_ends = (round(number, places) + 0.0 for number in (value, low, high))  # + 0.0: no minus before a zero
    value_text, low_text, high_text = (f"{number:{sign if number else ''}.{places}f}" for number in rounded_ends)
    return f"{value_text}{unit} [{low_text}, {high_text}]"
