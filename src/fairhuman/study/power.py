"""Power analysis: the number of participants needed to detect a difference, by simulation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import Field, model_validator
from scipy.optimize import brentq
from scipy.special import expit
from scipy.stats import norm

from fairhuman.config import Settings
from fairhuman.errors import RecipeError
from fairhuman.report.text import percent
from fairhuman.stats.bootstrap import Array
from fairhuman.study.design import item_orders
from fairhuman.study.intervals import half_width, variance_of_sums

CELLS = 4_000_000  # simulated votes per batch


class PowerSettings(Settings):
    """Model of two methods A and B, and how preferences vary over participants and prompts.

    A participant prefers A on an item with probability expit(μ + a + b), with a normal over participants and b normal
    over items; μ follows from the difference. With spreads of 0.5 and 1 and no difference, A wins 38 % to 62 % of the
    votes for two thirds of the participants, and 27 % to 73 % for two thirds of the items.
    """

    difference: float = Field(gt=0.0, lt=1.0, description="score of A minus score of B; 0.1 means 0.55 and 0.45")
    items: int = Field(default=100, ge=2, description="items of the study")
    per_participant: int | None = Field(default=None, ge=1, description="items per participant; None: all")
    ties: float = Field(default=0.2, ge=0.0, lt=1.0, description="share of ties among votes")
    people_spread: float = Field(default=0.5, ge=0.0, le=5.0, description="standard deviation over people, in logits")
    items_spread: float = Field(default=1.0, ge=0.0, le=5.0, description="standard deviation over items, in logits")
    power: float = Field(default=0.8, gt=0.0, lt=1.0, description="required probability of detecting the difference")
    simulations: int = Field(default=1000, ge=100, description="simulated studies")
    most: int = Field(default=400, ge=2, description="maximum number of participants")
    seed: int = Field(default=0, ge=0, description="seed of the simulations")

    @model_validator(mode="after")
    def _possible(self) -> "PowerSettings":
        if self.difference + self.ties >= 1:
            raise ValueError(f"difference must be less than 1 - ties = {1 - self.ties:g}, found {self.difference:g}")
        if self.per_participant is not None and self.per_participant > self.items:
            raise ValueError(
                f"per_participant must be at most items (--pairs) = {self.items}, found {self.per_participant}"
            )
        return self


@dataclass(frozen=True, slots=True)
class Power:
    """Power p for a number of participants, and its Monte Carlo error √(p (1 - p) / n)."""

    participants: int
    chance: float
    error: float


def find_participants(
    settings: PowerSettings, say: Callable[[Power], None] = lambda _: None
) -> tuple[int, list[Power]]:
    """The smallest number of participants with the required power, by bisection, and all results.

    Raises:
        RecipeError: `most` participants aren't enough.
    """
    tried: dict[int, Power] = {}

    def reaches(participants: int) -> bool:
        if participants not in tried:
            tried[participants] = power(settings, participants)
            say(tried[participants])
        return tried[participants].chance >= settings.power

    high = min(5, settings.most)
    while not reaches(high):
        if high == settings.most:
            raise RecipeError(
                f"most: {high} participants give a power of {percent(tried[high].chance)} ± "
                f"{percent(2 * tried[high].error)}, not {percent(settings.power)}; more items may help more than more "
                "participants"
            )
        high = min(2 * high, settings.most)
    low = max((p for p in tried if p < high), default=1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return high, sorted(tried.values(), key=lambda one: one.participants)


def power(settings: PowerSettings, participants: int) -> Power:
    """Fraction of simulated studies in which the 95 % interval of A's score lies above 0.5.

    It uses the closed-form interval, mean ± t √V, which differs little from the bootstrap interval of the report.
    """
    generator = np.random.default_rng([settings.seed, participants])
    seen = settings.per_participant or settings.items
    orders = item_orders(participants, settings.items, seen, generator)
    asked_pi = np.zeros((participants, settings.items), bool)
    for row, items in zip(asked_pi, orders, strict=True):
        row[items] = True
    asked_pi = asked_pi[:, asked_pi.any(axis=0)]
    block = max(1, CELLS // asked_pi.size)
    found = 0
    for start in range(0, settings.simulations, block):
        found += int(_seen(settings, asked_pi, min(block, settings.simulations - start), generator).sum())
    chance = found / settings.simulations
    return Power(participants, chance, float(np.sqrt(chance * (1 - chance) / settings.simulations)))


def _seen(settings: PowerSettings, asked_pi: Array, count: int, generator: np.random.Generator) -> Array:
    """Whether each of `count` simulated studies [S] sees the difference."""
    people, items = asked_pi.shape
    of_people_sp1 = generator.normal(0, settings.people_spread, (count, people, 1))
    of_items_s1i = generator.normal(0, settings.items_spread, (count, 1, items))
    chances_spi = expit(_centre(settings) + of_people_sp1 + of_items_s1i)
    scores_spi = (generator.random(chances_spi.shape) < chances_spi).astype(np.float64)
    scores_spi[generator.random(chances_spi.shape) < settings.ties] = 0.5
    votes = int(asked_pi.sum())
    mean_s = (scores_spi * asked_pi).sum(axis=(1, 2)) / votes
    influence_spi = (scores_spi - mean_s[:, None, None]) * asked_pi / votes
    variance_s = variance_of_sums(
        influence_spi.sum(axis=2), influence_spi.sum(axis=1), influence_spi.reshape(count, -1)
    )
    return np.asarray(mean_s - np.sqrt(variance_s) * half_width(1.0, people, items) > 0.5)


def _centre(settings: PowerSettings) -> float:
    """μ such that expit(μ + a + b) has mean 0.5 + difference / 2 / (1 - ties), as ties count half for both methods."""
    wanted = 0.5 + settings.difference / 2 / (1 - settings.ties)
    spread = np.hypot(settings.people_spread, settings.items_spread)
    normal = spread * norm.ppf((np.arange(2000) + 0.5) / 2000)

    def gap(centre: float) -> float:
        return float(expit(centre + normal).mean()) - wanted

    return float(brentq(gap, -60.0, 60.0))


def power_summary(settings: PowerSettings, participants: int, tried: Sequence[Power]) -> str:
    """The result as a sentence."""
    found = next(one for one in tried if one.participants == participants)
    seen = settings.per_participant or settings.items
    return (
        f"{participants} participants with {seen} of {settings.items} items each detect a difference of "
        f"{settings.difference:g} with a power of {percent(found.chance, 1)} ± {percent(2 * found.error, 1)} "
        f"({settings.simulations} simulations)"
    )
