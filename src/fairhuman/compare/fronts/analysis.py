"""Analysis of tested points: fronts of families, the untuned point beside the tuned one, and what tuning costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from fairhuman.compare.analysis import LEVEL, Verdict, verdict
from fairhuman.compare.fronts.choose import GLOBAL, REGIONS, VOLUME, Choice, Point, Tuned, budgets
from fairhuman.compare.fronts.settings import FrontSettings
from fairhuman.errors import DataError
from fairhuman.report.changes import Series, check_paired
from fairhuman.stats.estimate import Estimate
from fairhuman.stats.fronts import Array, attainment, expected_best, hypervolume
from fairhuman.stats.joint import JointChanges, joint_changes

BEYOND = 20  # draws beyond each end of the widest interval
DRAWN, LIMITS = 2000, 61  # draws and limits of a curve


@dataclass(frozen=True)
class Judged:
    """An estimate, its interval that covers jointly for all judged numbers (Bonferroni), and the verdict on it."""

    estimate: Estimate
    family: Estimate
    verdict: Verdict
    margin: float

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        return {
            "estimate": self.estimate.plain(),
            "family": self.family.plain(),
            "verdict": self.verdict,
            "margin": self.margin,
        }


@dataclass(frozen=True)
class TuningCost:
    """What a search among the rival's runs finds, beside the untuned point's one run; on tuning data, one seed.

    Attributes:
        best_n: expected lowest change of `REGIONS` after n runs in random order, n = 1..M, among runs that raise the
            global loss at most as much as the untuned point; a search without one keeps the base, whose change is 0.
        untuned: that of the untuned point.
        runs: the smallest n whose expectation reaches the untuned point; None if M runs don't.
    """

    best_n: Sequence[Estimate]
    untuned: Estimate
    runs: int | None

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        return {
            "expected best": [one.plain() for one in self.best_n],
            "untuned": self.untuned.plain(),
            "runs": self.runs,
        }


@dataclass(frozen=True)
class Curve:
    """What a family attains within each limit to the global loss: quantiles of the change of `REGIONS` over draws.

    The change is at most 0, that of the base. The curve runs through the medians; 95 % of the draws lie in the band.
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
        volumes: by budget and family, the hypervolume of the family's tested points, in share² of the base's losses.
        against: by budget and family, its hypervolume minus the rival's.
        curves: by budget and family, what its tested points attain.
        planes: the same as `against`, by objective, in the planes of the single objectives; 95 % intervals alone.
        anchors: by world (`""`: the main one) and loss, the untuned point minus the tuned rival.
        cost: what tuning costs.
        left_out: points that lack a seed.
    """

    points: Mapping[Point, Mapping[str, Estimate]]
    volumes: Mapping[str, Mapping[str, Estimate]]
    against: Mapping[str, Mapping[str, Judged]]
    curves: Mapping[str, Mapping[str, Curve]]
    planes: Mapping[str, Mapping[str, Mapping[str, Estimate]]]
    anchors: Mapping[str, Mapping[str, Judged]]
    cost: TuningCost
    left_out: Sequence[Point]

    def plain(self) -> dict[str, Any]:
        """JSON representation."""
        return {
            "points": {point.name: _plain(found) for point, found in self.points.items()},
            "hypervolume": {budget: _plain(found) for budget, found in self.volumes.items()},
            "hypervolume against rival": {budget: _plain(found) for budget, found in self.against.items()},
            "attained": {
                budget: {family: curve.plain() for family, curve in found.items()}
                for budget, found in self.curves.items()
            },
            "planes": {
                budget: {name: _plain(found) for name, found in planes.items()}
                for budget, planes in self.planes.items()
            },
            "untuned against tuned rival": {world: _plain(found) for world, found in self.anchors.items()},
            "cost of tuning": self.cost.plain(),
            "left out": [point.name for point in self.left_out],
        }


def draw_jointly(series: Sequence[Series], resamples: int) -> JointChanges:
    """Draw the changes of several methods jointly; losses in the order of the first method's.

    Raises:
        DataError: they weren't measured on the same samples and noise.
    """
    names = list(series[0].first)
    for other in series[1:]:
        for name in names:
            check_paired(other, series[0], name)
    first, last = (
        np.stack([np.stack([np.stack(sums[name], axis=-1) for name in names], axis=2) for sums in each])
        for each in ([one.first for one in series], [one.last for one in series])
    )
    return joint_changes(first, last, resamples=resamples)


def analyse(
    front: FrontSettings,
    choice: Choice,
    tuned: Mapping[Point, Tuned],
    tested: Mapping[Point, Series],
    worlds: Mapping[str, Mapping[Point, Series]],
    searched: Mapping[Point, Series],
) -> Fronts:
    """Analyse what was tested.

    Args:
        front: settings.
        choice: points and margins.
        tuned: steps and costs of the points.
        tested: losses on test data over seeds.
        worlds: losses of the untuned point and the tuned rival in other worlds; a world may lack them.
        searched: losses on tuning data of the untuned point and of the rival family.

    Raises:
        DataError: the untuned point or the tuned rival has no result, or as in `draw_jointly`.
    """
    seeds = max(len(one.first[GLOBAL][0]) for one in tested.values())
    whole = {point: one for point, one in tested.items() if len(one.first[GLOBAL][0]) == seeds}
    untuned = Point(front.untuned.cell, front.untuned.learning_rate)
    for point in (untuned, choice.rival):
        if point not in whole:
            raise DataError(f"{point.name}: not all of its test runs finished, and the others are compared with it")
    points = list(whole)
    names = list(whole[untuned].first)
    families = {
        budget: _families(front, [point for point in among if point in whole])
        for budget, among in budgets(tuned, tuned[choice.rival]).items()
    }
    judged = sum(len(found) - 1 for found in families.values()) + len(_losses(names)) * (1 + len(worlds))
    level = 1 - (1 - LEVEL) / judged
    changes = draw_jointly([whole[point] for point in points], math.ceil(2 * BEYOND / (1 - level)))
    at = {point: number for number, point in enumerate(points)}

    def volume(own: Sequence[Point], name: str = REGIONS) -> Callable[[Array], Array]:
        rows = [at[point] for point in own]
        return lambda c: hypervolume(_plane(c[..., rows, :], names, name), (front.reference, 0.0))

    def beside(found: Mapping[str, Sequence[Point]], family: str, name: str = REGIONS) -> Callable[[Array], Array]:
        own, other = volume(found[family], name), volume(found[front.rival], name)
        return lambda c: own(c) - other(c)

    def others(found: Mapping[str, Sequence[Point]]) -> list[str]:
        return [family for family in found if family != front.rival]

    judge = partial(_judge, changes, level)
    pair = {"": {untuned: whole[untuned], choice.rival: whole[choice.rival]}, **worlds}
    return Fronts(
        points={p: {n: changes.estimate(_loss(names, n, at[p])) for n in _losses(names)} for p in points},
        volumes={b: {f: changes.estimate(volume(own)) for f, own in found.items()} for b, found in families.items()},
        against={
            b: {f: judge(beside(found, f), choice.margins[VOLUME]) for f in others(found)}
            for b, found in families.items()
        },
        curves={
            b: {f: _curve(changes, names, [at[p] for p in own], front.reference) for f, own in found.items()}
            for b, found in families.items()
        },
        planes={
            b: {
                name: {f: changes.estimate(beside(found, f, name)) for f in others(found)}
                for name in names
                if name != GLOBAL
            }
            for b, found in families.items()
        },
        anchors={world: _anchors(found, untuned, choice, level) for world, found in pair.items()},
        cost=tuning_cost(searched, untuned),
        left_out=[point for point in choice.why if point not in whole],
    )


def tuning_cost(searched: Mapping[Point, Series], untuned: Point) -> TuningCost:
    """The cost of tuning from runs of the rival family and of the untuned point on tuning data; see `TuningCost`."""
    points = [untuned, *(point for point in searched if point != untuned)]
    names = list(searched[untuned].first)
    changes = draw_jointly([searched[point] for point in points], resamples=2000)

    def found(c: Array) -> Array:
        plane = _plane(c, names, REGIONS)
        within = plane[..., 1:, 0] <= plane[..., :1, 0]
        return np.asarray(np.where(within, np.minimum(plane[..., 1:, 1], 0.0), 0.0))

    best = [changes.estimate(partial(_expected, found, n)) for n in range(1, len(points))]
    own = changes.estimate(_loss(names, REGIONS, 0))
    reached = [n for n, one in enumerate(best, 1) if one.value <= own.value]
    return TuningCost(best, own, reached[0] if reached else None)


def _expected(found: Callable[[Array], Array], n: int, c: Array) -> Array:
    return expected_best(found(c), n)


def _families(front: FrontSettings, points: Sequence[Point]) -> dict[str, list[Point]]:
    """The points of each family, the rival first; empty without points of the rival."""
    found: dict[str, list[Point]] = {front.rival: []}
    for point in points:
        found.setdefault(front.family(point.cell), []).append(point)
    return found if found[front.rival] else {}


def _losses(names: Sequence[str]) -> list[str]:
    return [*names, REGIONS]


def _plane(changes: Array, names: Sequence[str], name: str) -> Array:
    """Change of the global loss and of `name`, [..., P, 2]."""
    columns = [changes[..., names.index(GLOBAL)]]
    columns.append(_column(changes, names, name))
    return np.stack(columns, axis=-1)


def _column(changes: Array, names: Sequence[str], name: str) -> Array:
    if name != REGIONS:
        return np.asarray(changes[..., names.index(name)])
    return np.asarray(changes[..., [k for k, one in enumerate(names) if one != GLOBAL]].mean(axis=-1))


def _loss(names: Sequence[str], name: str, row: int) -> Callable[[Array], Array]:
    return lambda c: _column(c, names, name)[..., row]


def _judge(changes: JointChanges, level: float, statistic: Callable[[Array], Array], margin: float) -> Judged:
    family = changes.estimate(statistic, level)
    return Judged(changes.estimate(statistic), family, verdict(family, margin), margin)


def _curve(changes: JointChanges, names: Sequence[str], rows: Sequence[int], reference: float) -> Curve:
    drawn_bp2 = _plane(changes.both_bpk[:DRAWN, list(rows)], names, REGIONS)
    lowest = min(0.0, float(_plane(changes.value_pk, names, REGIONS)[:, 0].min()))
    limits_l = np.linspace(lowest, reference, LIMITS)
    attained_bl = np.minimum(attainment(drawn_bp2, limits_l), 0.0)
    low_l, median_l, high_l = np.nanquantile(attained_bl, [0.025, 0.5, 0.975], axis=0)
    return Curve(limits_l, low_l, median_l, high_l)


def _anchors(found: Mapping[Point, Series], untuned: Point, choice: Choice, level: float) -> dict[str, Judged]:
    """The untuned point minus the tuned rival, by loss; empty if one of them is missing."""
    if not {untuned, choice.rival} <= found.keys():
        return {}
    names = list(found[untuned].first)
    changes = draw_jointly([found[untuned], found[choice.rival]], math.ceil(2 * BEYOND / (1 - level)))

    def difference(name: str, c: Array) -> Array:
        column = _column(c, names, name)
        return np.asarray(column[..., 0] - column[..., 1])

    return {
        name: _judge(changes, level, partial(difference, name), choice.margins[name])
        for name in _losses(names)
        if name in choice.margins
    }


def _plain(found: Mapping[str, Estimate | Judged]) -> dict[str, Any]:
    return {name: one.plain() for name, one in found.items()}
