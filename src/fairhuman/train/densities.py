"""Noise levels drawn where an objective learns most, without a change of any loss's expectation.

Levels are drawn by rank: r in [0, 1) is the share of the base's own draws that have less noise. With q_k the density of
objective k over ranks (1 where none is set) and n the objectives that a sample has, the rank is drawn from the mixture

    p(r) = 1/n Σ_k q_k(r)

and the sample's loss is weighted by 1/p(r), so that E_p[l(r) / p(r)] = E_uniform[l(r)] for every objective. As long as
one of them has q = 1, the weight is at most n. Importance sampling of training samples: Katharopoulos, Fleuret, ICML
2018; of timesteps: Nichol, Dhariwal, ICML 2021, section 3.3.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

import torch


class RankDraw(NamedTuple):
    """A rank in [0, 1), and 1 / p(rank)."""

    rank: float
    weight: float


class LevelDensities:
    """The densities q_k of the objectives, piecewise constant in bins of equal width.

    Args:
        densities: objective to relative densities, each above 0, from the least noise; scaled to a mean of 1.
        objectives: the whole picture, then the regions.
    """

    def __init__(self, densities: Mapping[str, Sequence[float]], objectives: Sequence[str]) -> None:
        given = [densities.get(name, (1.0,)) for name in objectives]
        self._densities = [[value * len(values) / sum(values) for value in values] for values in given]
        self._ends = [[end / len(values) for end in accumulate(values)] for values in self._densities]

    def draw(self, generator: torch.Generator, seen: Sequence[bool]) -> RankDraw:
        """Draw the rank of a sample that has the objectives `seen` [K]; the generator is advanced by two numbers.

        A sample without any objective counts for none, so its rank is uniform.
        """
        numbers = torch.rand(2, generator=generator, dtype=torch.float64).tolist()
        own = [k for k, one in enumerate(seen) if one]
        if not own:
            return RankDraw(numbers[1], 1.0)
        chosen = own[int(numbers[0] * len(own))]
        ends, densities = self._ends[chosen], self._densities[chosen]
        number = min(bisect_right(ends, numbers[1]), len(ends) - 1)
        before = ends[number - 1] if number else 0.0
        rank = (number + (numbers[1] - before) / (ends[number] - before)) / len(densities)
        rank = min(rank, 1.0 - 2.0**-53)  # rounding may reach the end
        return RankDraw(rank, len(own) / sum(self._at(k, rank) for k in own))

    def _at(self, objective: int, rank: float) -> float:
        densities = self._densities[objective]
        return densities[int(rank * len(densities))]
