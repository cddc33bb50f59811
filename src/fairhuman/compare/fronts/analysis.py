"""Analysis of tested points: fronts of families, the untuned point beside the tuned one, and what tuning costs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np

from fairhuman.compare.analysis import LEVEL, Judged, at_a_price, judge
from fairhuman.compare.fronts.choose import VOLUME, Choice
from fairhuman.compare.fronts.settings import COMPUTE, REGIONS, STEPS, FrontSettings, Point, PredictionSettings
from fairhuman.errors import DataError
from fairhuman.regions.settings import GLOBAL
from fairhuman.report.changes import Series, check_paired
from fairhuman.stats.estimate import Estimate
from fairhuman.stats.fronts import Array, attainment, expected_best, hypervolume
from fairhuman.stats.joint import JointChanges, joint_changes

DRAWS = 4000
LIMITS = 61  # of a curve
SEARCH_DRAWS = 2000
Number = tuple[str, str]  # budget and family, or world and loss
Runs = tuple[float | None, float | None, float | None]  # on average, and the ends of an interval; None: none reaches it
Statistic = Callable[[Array], Array]
Outcome = Literal["confirmed", "refuted", "undecided", "open"]
BETTER = {  # of a hypervolume
    "higher": "better",
    "lower": "worse",
    "same": "same",
    "moved": "moved along the front",
    "undecided": "undecided",
}
LESS = {**BETTER, "higher": "worse", "lower": "better"}  # of a loss


@dataclass(frozen=True)
class Search:
    """What a search among runs finds on tuning data, one seed.

    Attributes:
        best_n: expected lowest change of `REGIONS` after n runs in random order, n = 1..M, among runs that raise the
            global loss at most as much as the untuned point; a search without one keeps the base, whose change is 0.
        runs: runs in random order until one reaches the untuned point, on average, (M + 1) / (k + 1) if k of M do, with
            the ends of its 95 % interval over samples; None where none does. The untuned point itself isn't counted.
        runs_within: the same until one is as good within the margin of `REGIONS`.
        others: the M runs.
    """

    best_n: Sequence[Estimate]
    runs: Runs
    runs_within: Runs
    others: int

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        return {
            "expected best": [one.plain() for one in self.best_n],
            "runs": list(self.runs),
            "runs within the margin": list(self.runs_within),
        }


@dataclass(frozen=True)
class TuningCost:
    """Searches beside the untuned point's one run; on tuning data, one seed.

    Attributes:
        untuned: change of `REGIONS` of the untuned point.
        searches: by name, among the rival's cells at the untuned point's learning rate, among all runs of the rival,
            and among the learning rates of the untuned point's cell.
    """

    untuned: Estimate
    searches: Mapping[str, Search]

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        return {
            "untuned": self.untuned.plain(),
            "searches": {name: search.plain() for name, search in self.searches.items()},
        }


@dataclass(frozen=True)
class Curve:
    """What a family attains within each limit to the global loss: the change of `REGIONS`, at most 0, that of the base.

    The curve runs through the medians of draws; the band is a 95 % interval at each limit by itself.
    """

    limits_l: Array
    low_l: Array
    median_l: Array
    high_l: Array

    def plain(self) -> dict[str, list[float]]:
        """JSON representation."""
        return {
            "limits": self.limits_l.tolist(),
            "low": self.low_l.tolist(),
            "median": self.median_l.tolist(),
            "high": self.high_l.tolist(),
        }


@dataclass(frozen=True)
class Fronts:
    """Everything that is said about the tested points.

    Attributes:
        points: the tested points with results of all seeds, and their changes by loss and `REGIONS`.
        volumes: by budget and family, the hypervolume of the family's compared points, in share² of the base's losses.
        against: by budget and family, its hypervolume minus the rival's, of equally many points each.
        references: the same up to half and to twice the rise of the global loss, by that rise.
        planes: the same by objective, in the planes of the single objectives.
        curves: by budget and family, what its compared points attain.
        beside: by world (`""`: the main one) and loss, the untuned point minus the tuned rival.
        also: by point of `front.also`, the untuned point minus that one, in the same way.
        elsewhere: by other world and point, the changes there.
        judged: the numbers that are judged, jointly (Bonferroni); a number that runs are missing for isn't there.
        predictions: what was predicted, and what came of it.
        cost: what tuning costs.
        left_out: points that lack a seed.
        lost: share of the draws that lack a loss, and are left out.
    """

    points: Mapping[Point, Mapping[str, Estimate]]
    volumes: Mapping[str, Mapping[str, Estimate]]
    against: Mapping[str, Mapping[str, Estimate]]
    references: Mapping[float, Mapping[str, Mapping[str, Estimate]]]
    planes: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    curves: Mapping[str, Mapping[str, Curve]]
    beside: Mapping[str, Mapping[str, Estimate]]
    also: Mapping[Point, Mapping[str, Mapping[str, Estimate]]]
    elsewhere: Mapping[str, Mapping[Point, Mapping[str, Estimate]]]
    judged: Mapping[Number, Judged]
    predictions: Sequence[tuple[PredictionSettings, Outcome]]
    cost: TuningCost
    left_out: Sequence[Point]
    lost: float

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        return {
            "points": {point.name: _plain(found) for point, found in self.points.items()},
            "hypervolume": {budget: _plain(found) for budget, found in self.volumes.items()},
            "hypervolume against rival": {budget: _plain(found) for budget, found in self.against.items()},
            "up to other rises of the global loss": {
                f"{reference:g}": {budget: _plain(found) for budget, found in budgets.items()}
                for reference, budgets in self.references.items()
            },
            "planes": {
                budget: {name: _plain(found) for name, found in planes.items()}
                for budget, planes in self.planes.items()
            },
            "attained": {
                budget: {family: curve.plain() for family, curve in found.items()}
                for budget, found in self.curves.items()
            },
            "untuned against tuned rival": {world: _plain(found) for world, found in self.beside.items()},
            "untuned against others": {
                point.name: {world: _plain(found) for world, found in worlds.items()}
                for point, worlds in self.also.items()
            },
            "worlds": {
                world: {point.name: _plain(changes) for point, changes in found.items()}
                for world, found in self.elsewhere.items()
            },
            "judged": [{"of": list(number), **one.plain()} for number, one in self.judged.items()],
            "predictions": [
                {**prediction.model_dump(mode="json"), "outcome": outcome} for prediction, outcome in self.predictions
            ],
            "cost of tuning": self.cost.plain(),
            "left out": [point.name for point in self.left_out],
            "draws left out": self.lost,
        }


@dataclass(frozen=True)
class JointDraws:
    """Changes of points drawn jointly, and statistics of them."""

    changes: JointChanges
    names: Sequence[str]
    points: Sequence[Point]

    @cached_property
    def rows(self) -> Mapping[Point, int]:
        """The row of each point."""
        return {point: row for row, point in enumerate(self.points)}

    def column(self, changes: Array, name: str) -> Array:
        """The changes of a loss or of `REGIONS`, [..., P]."""
        if name != REGIONS:
            return np.asarray(changes[..., self.names.index(name)])
        return np.asarray(changes[..., [k for k, one in enumerate(self.names) if one != GLOBAL]].mean(axis=-1))

    def loss(self, point: Point, name: str, minus: Point | None = None) -> Statistic:
        """A point's change of a loss, or its difference to another point's."""
        rows = self.rows

        def change(changes: Array) -> Array:
            column = self.column(changes, name)
            return np.asarray(column[..., rows[point]] - (0.0 if minus is None else column[..., rows[minus]]))

        return change

    def plane(self, points: Sequence[Point], name: str = REGIONS) -> Statistic:
        """The changes of the global loss and of `name`, [..., P, 2]."""
        rows = [self.rows[point] for point in points]
        return lambda changes: np.stack([self.column(changes, axis)[..., rows] for axis in (GLOBAL, name)], axis=-1)

    def volume(self, points: Sequence[Point], reference: float, name: str = REGIONS) -> Statistic:
        """The hypervolume of points."""
        plane = self.plane(points, name)
        return lambda changes: hypervolume(plane(changes), (reference, 0.0))

    def more(self, own: Sequence[Point], other: Sequence[Point], reference: float, name: str = REGIONS) -> Statistic:
        """The hypervolume of points minus that of others, of equally many each: the more points there are, the more
        noise adds to a hypervolume.
        """
        many = min(len(own), len(other))
        first, second = (self.volume(points[:many], reference, name) for points in (own, other))
        return lambda changes: first(changes) - second(changes)


def draw_jointly(series: Mapping[Point, Series], resamples: int) -> JointDraws:
    """Draw the changes of several points jointly; losses in the order of the first point's.

    Raises:
        DataError: they weren't measured on the same samples and noise.
    """
    every = list(series.values())
    names = list(every[0].first)
    for other in every[1:]:
        for name in names:
            check_paired(other, every[0], name)
    first, last = (
        np.stack([np.stack([np.stack(sums[name], axis=-1) for name in names], axis=2) for sums in each])
        for each in ([one.first for one in every], [one.last for one in every])
    )
    return JointDraws(joint_changes(first, last, resamples=resamples), names, list(series))


def analyse(
    front: FrontSettings,
    choice: Choice,
    tested: Mapping[Point, Series],
    worlds: Mapping[str, Mapping[Point, Series]],
    searched: Mapping[Point, Series],
) -> Fronts:
    """Analyse what was tested.

    Args:
        front: settings.
        choice: points and margins.
        tested: losses on test data over seeds.
        worlds: losses of the untuned point, the tuned rival and `front.also` in other worlds, which may lack them.
        searched: losses on tuning data of the untuned point's cell and of the rival family.

    Raises:
        DataError: the untuned point or the tuned rival has no result, or as in `draw_jointly`.
    """
    untuned, rival = front.untuned.point, choice.rival
    whole = complete_points(tested, (untuned, rival))
    families = {
        budget: {family: own for family, points in found.items() if (own := [p for p in points if p in whole])}
        for budget, found in choice.compared.items()
    }
    families = {budget: found for budget, found in families.items() if front.rival in found}
    numbers = numbers_judged(front, families)
    level = joint_level(numbers)
    measured = {"": whole, **{world: found for world, found in worlds.items() if untuned in found}}
    drawn = {world: draw_jointly(found, DRAWS) for world, found in measured.items()}
    statistics = _Statistics(front, choice, families, drawn)
    judged = {number: one for number in numbers if (one := statistics.judged(number, level)) is not None}
    here = drawn[""]
    return Fronts(
        points=statistics.changes(""),
        volumes=statistics.volumes(),
        against=statistics.against(REGIONS),
        references={
            reference: statistics.against(REGIONS, reference)
            for reference in (front.reference / 2, 2 * front.reference)
        },
        planes=statistics.planes(),
        curves={
            budget: {family: _curve(here, own, front.reference) for family, own in found.items()}
            for budget, found in families.items()
        },
        beside={world: statistics.beside(world, rival) for world in ("", *worlds)},
        also={one.point: {world: statistics.beside(world, one.point) for world in ("", *worlds)} for one in front.also},
        elsewhere={world: statistics.changes(world) for world in drawn if world},
        judged=judged,
        predictions=[(one, outcome(one, judged.get(one.number))) for one in front.predictions],
        cost=tuning_cost(front, searched, untuned, choice.margins[REGIONS]),
        left_out=[point for point in choice.why if point not in whole],
        lost=here.changes.lost,
    )


@dataclass(frozen=True)
class _Statistics:
    """Estimates of what is said about families and about the untuned point in every world; see `Fronts`.

    Attributes:
        families: by budget and family, the compared points with results, those of the rival among them.
        drawn: by world, the points drawn jointly.
    """

    front: FrontSettings
    choice: Choice
    families: Mapping[str, Mapping[str, Sequence[Point]]]
    drawn: Mapping[str, JointDraws]

    @property
    def losses(self) -> list[str]:
        return [*self.drawn[""].names, REGIONS]

    def changes(self, world: str) -> dict[Point, dict[str, Estimate]]:
        there = self.drawn[world]
        return {
            point: {loss: there.changes.estimate(there.loss(point, loss)) for loss in self.losses}
            for point in there.rows
        }

    def volumes(self) -> dict[str, dict[str, Estimate]]:
        here = self.drawn[""]
        return {
            budget: {
                family: here.changes.estimate(here.volume(own, self.front.reference), least=0.0)
                for family, own in found.items()
            }
            for budget, found in self.families.items()
        }

    def against(self, loss: str, reference: float | None = None) -> dict[str, dict[str, Estimate]]:
        estimate = self.drawn[""].changes.estimate
        return {
            budget: {
                family: estimate(self.more(budget, family, loss, reference))
                for family in found
                if family != self.front.rival
            }
            for budget, found in self.families.items()
        }

    def planes(self) -> dict[str, dict[str, dict[str, Estimate]]]:
        by_loss = {name: self.against(name) for name in self.drawn[""].names if name != GLOBAL}
        return {budget: {name: found[budget] for name, found in by_loss.items()} for budget in self.families}

    def more(self, budget: str, family: str, loss: str = REGIONS, reference: float | None = None) -> Statistic:
        """A family's hypervolume minus the rival's."""
        found = self.families[budget]
        return self.drawn[""].more(found[family], found[self.front.rival], reference or self.front.reference, loss)

    def difference(self, world: str, loss: str, other: Point) -> Statistic:
        """The untuned point's change minus that of another point."""
        return self.drawn[world].loss(self.front.untuned.point, loss, other)

    def beside(self, world: str, other: Point) -> dict[str, Estimate]:
        """The differences in all losses; empty if a run is missing."""
        if not self.has(world, other):
            return {}
        return {loss: self.drawn[world].changes.estimate(self.difference(world, loss, other)) for loss in self.losses}

    def has(self, world: str, other: Point) -> bool:
        """Whether the untuned point and another one have results in a world."""
        return world in self.drawn and other in self.drawn[world].rows

    def judged(self, number: Number, level: float) -> Judged | None:
        """The verdict on a number, by its interval of `level`; None if a run of a compared point is missing."""
        at, name = number
        rival = self.choice.rival
        if at in (STEPS, COMPUTE):
            found, chosen = self.families.get(at, {}), self.choice.compared[at]
            for family in (name, self.front.rival):
                if len(found.get(family, ())) < max(1, len(chosen.get(family, ()))):
                    return None
            return judge(
                partial(self.drawn[""].changes.estimate, self.more(at, name)), self.choice.margins[VOLUME], level
            )
        if not self.has(at, rival) or name not in self.losses:
            return None
        here = self.drawn[at]
        effect = float(here.loss(rival, name)(here.changes.value_pk))
        margins = {**self.choice.margins, **(self.front.margins({name: effect}) if at else {})}
        gain, paid = (
            judge(partial(here.changes.estimate, self.difference(at, loss, rival)), margins[loss], level)
            for loss in (name, GLOBAL)
        )
        return at_a_price(gain, paid)


def complete_points(tested: Mapping[Point, Series], needed: Sequence[Point]) -> dict[Point, Series]:
    """The points with results of all seeds.

    Raises:
        DataError: one of `needed` isn't among them.
    """
    seeds = max(len(one.first[GLOBAL][0]) for one in tested.values())
    whole = {point: one for point, one in tested.items() if len(one.first[GLOBAL][0]) == seeds}
    for point in needed:
        if point not in whole:
            raise DataError(
                f"{point.name}: not all of its test runs finished, and the others are compared with it; run the same "
                "command again, which repeats failed runs"
            )
    return whole


def numbers_judged(front: FrontSettings, families: Mapping[str, Mapping[str, Sequence[Point]]]) -> list[Number]:
    """The numbers that are judged, whether or not there are results: those of the predictions, or without any all
    hypervolumes and the mean of the regions in every world. A family with the same points at both budgets has one
    number, that of the first.
    """
    if front.predictions:
        return [prediction.number for prediction in front.predictions]
    volumes: dict[tuple[tuple[Point, ...], ...], Number] = {}
    for budget, found in families.items():
        for family in found:
            if family != front.rival:
                volumes.setdefault((tuple(found[family]), tuple(found[front.rival])), (budget, family))
    return [*volumes.values(), *((world, REGIONS) for world in ("", *front.worlds))]


def joint_level(numbers: Sequence[Number]) -> float:
    """Level of each interval at which all cover jointly (Bonferroni); a loss is judged together with its price."""
    return 1 - (1 - LEVEL) / max(1, sum(1 if at in (STEPS, COMPUTE) else 2 for at, _ in numbers))


def outcome(prediction: PredictionSettings, found: Judged | None) -> Outcome:
    """Whether a verdict confirms a prediction; a small difference may be sure and yet confirm "same"."""
    if found is None:
        return "open"
    word = (LESS if prediction.family is None else BETTER)[found.verdict]
    if word in prediction.words or ("same" in prediction.words and found.within):
        return "confirmed"
    return "undecided" if word == "undecided" else "refuted"


def tuning_cost(front: FrontSettings, searched: Mapping[Point, Series], untuned: Point, margin: float) -> TuningCost:
    """The cost of tuning from runs of the rival family and of the untuned point's cell on tuning data."""
    drawn = draw_jointly(searched, SEARCH_DRAWS)
    rival = [point for point in searched if front.family(point.cell) == front.rival]
    groups = {
        f"{front.rival}, learning rate {untuned.rate:g}": [point for point in rival if point.rate == untuned.rate],
        f"{front.rival}, all learning rates": rival,
        f"{untuned.cell}, all learning rates": [point for point in searched if point.cell == untuned.cell],
    }
    own = drawn.changes.estimate(drawn.loss(untuned, REGIONS))
    return TuningCost(own, {name: _search(drawn, points, untuned, margin) for name, points in groups.items() if points})


def _search(drawn: JointDraws, points: Sequence[Point], untuned: Point, margin: float) -> Search:
    plane, limit, own = drawn.plane(points), drawn.loss(untuned, GLOBAL), drawn.loss(untuned, REGIONS)

    def best(n: int, changes: Array) -> Array:
        places = plane(changes)
        within = places[..., 0] <= limit(changes)[..., None]
        return expected_best(np.where(within, np.minimum(places[..., 1], 0.0), 0.0), n)

    others = [point for point in points if point != untuned]
    their_plane = drawn.plane(others)

    def needed(within: float, changes: Array) -> Array:
        places, own_b = their_plane(changes), own(changes)[..., None]
        reach = (places[..., 0] <= limit(changes)[..., None]) & (places[..., 1] <= own_b + within)
        many = reach.sum(axis=-1)
        return np.where(many > 0, (reach.shape[-1] + 1) / (many + 1), np.inf)

    def runs(within: float) -> Runs:
        ends = np.quantile(needed(within, drawn.changes.both_bpk), [0.025, 0.975], method="inverted_cdf")
        mean, low, high = (
            float(n) if np.isfinite(n) else None for n in (float(needed(within, drawn.changes.value_pk)), *ends)
        )
        return mean, low, high

    estimates = [drawn.changes.estimate(partial(best, n)) for n in range(1, len(points) + 1)]
    return Search(estimates, runs(0.0), runs(margin), len(others))


def _curve(drawn: JointDraws, points: Sequence[Point], reference: float) -> Curve:
    plane = drawn.plane(points)
    lowest = min(0.0, float(drawn.column(drawn.changes.value_pk, GLOBAL).min()))
    limits_l = np.linspace(lowest, reference, LIMITS)
    low_l, median_l, high_l = drawn.changes.band(lambda c: np.minimum(attainment(plane(c), limits_l), 0.0))
    return Curve(limits_l, low_l, median_l, np.minimum(high_l, 0.0))


def _plain(found: Mapping[str, Estimate]) -> dict[str, Any]:
    return {name: one.plain() for name, one in found.items()}
