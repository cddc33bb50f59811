"""Choice of the points to test, from tuning results alone, and the file that keeps it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fairhuman.compare.fronts.settings import FrontSettings
from fairhuman.errors import DataError
from fairhuman.stats.fronts import Array, contributions, hypervolume, non_dominated
from fairhuman.utils.files import write_json
from fairhuman.utils.parse import parse_json

GLOBAL, REGIONS, VOLUME = "global", "regions", "hypervolume"
STEPS, COMPUTE = "equal steps", "equal compute"
ADDED = 3  # points of a cell that was added after the choice
SAME = 1e-6  # tolerance of a stored change


class Point(NamedTuple):
    """A cell with a learning rate."""

    cell: str
    rate: float

    @property
    def name(self) -> str:
        """Its name in tables and folders."""
        return f"{self.cell}, {self.rate:g}"


@dataclass(frozen=True)
class Tuned:
    """What a point changed on tuning data.

    Attributes:
        changes: relative change of each held-out loss.
        steps: training steps.
        gradients: cost of the run in steps with one gradient.
    """

    changes: Mapping[str, float]
    steps: int
    gradients: float

    @property
    def place(self) -> tuple[float, float]:
        """The point in the plane: change of the global loss, and mean change of the others."""
        others = [value for name, value in self.changes.items() if name != GLOBAL]
        return self.changes[GLOBAL], sum(others) / len(others)


@dataclass(frozen=True)
class Choice:
    """Points to test, and what is said about them beforehand.

    Attributes:
        why: points to the reason for which they are tested.
        rival: the tuned point of the rival family: the lowest regions among those that raise the global loss at most
            as much as the untuned point; if there is none, the lowest global loss.
        margins: differences that count as none, by loss, `REGIONS` and `VOLUME`.
        edges: points of a front at the smallest or largest learning rate, so that better ones may lie beyond.
    """

    why: Mapping[Point, str]
    rival: Point
    margins: Mapping[str, float]
    edges: Sequence[Point]


def budgets(tuned: Mapping[Point, Tuned], rival: Tuned) -> dict[str, list[Point]]:
    """The points that are compared at the steps, and at the compute, of a run of the rival."""
    return {
        STEPS: [point for point, one in tuned.items() if one.steps == rival.steps],
        COMPUTE: [point for point, one in tuned.items() if one.gradients <= rival.gradients],
    }


def choose(front: FrontSettings, tuned: Mapping[Point, Tuned]) -> Choice:
    """Choose points: the untuned one and the tuned rival, the points that no other one dominates at equal steps or
    equal compute, the best of each family, neighbours of the front, then the rest of each family's own front.

    At most `front.at_most` points, in this order; within a part, those with the largest share of the hypervolume first.

    Raises:
        DataError: the untuned point or all points of the rival family are missing.
    """
    untuned, rival = anchors(front, tuned)
    why: dict[Point, str] = {untuned: "untuned", rival: f"tuned {front.rival}"}
    fronts = {name: _front(points, tuned, front) for name, points in budgets(tuned, tuned[rival]).items()}
    for point, reason in _candidates(front, tuned, fronts):
        if len(why) < front.at_most:
            why.setdefault(point, reason)
    volume = hypervolume(_places([p for p in tuned if front.family(p.cell) == front.rival], tuned), _reference(front))
    return Choice(why, rival, _margins(front, [tuned[point] for point in why], float(volume)), _edges(fronts, tuned))


def anchors(front: FrontSettings, tuned: Mapping[Point, Tuned]) -> tuple[Point, Point]:
    """The untuned point, and the tuned one of the rival family; see `Choice`.

    Raises:
        DataError: one of them has no tuning result.
    """
    untuned = Point(front.untuned.cell, front.untuned.learning_rate)
    if untuned not in tuned:
        raise DataError(f"front.untuned: the tuning run of {untuned.name} failed, and nothing can stand in its place")
    own = [point for point in tuned if front.family(point.cell) == front.rival and point != untuned]
    if not own:
        raise DataError(f"front.rival: all tuning runs of {front.rival} failed, so there is nothing to compare with")
    allowed = [point for point in own if tuned[point].place[0] <= tuned[untuned].place[0]]
    if allowed:
        return untuned, min(allowed, key=lambda point: tuned[point].place[1])
    return untuned, min(own, key=lambda point: tuned[point].place[0])


def keep_choice(file: Path, front: FrontSettings, tuned: Mapping[Point, Tuned], tested: bool) -> Choice:
    """The choice in `file`, with points of cells that were added since; chosen and written if there is none.

    Points of cells that are no more stay in the file, and are left out of what is returned.

    Args:
        file: `chosen.json`.
        front: settings of the choice.
        tuned: tuning results.
        tested: whether results on test data exist; then the choice in the file stands.

    Raises:
        DataError: the file can't be read, or was made from other tuning results or settings and results on test data
            exist.
    """
    before: Mapping[str, Any] = {"cells": [], "tuned": {}}
    if file.is_file() and tested:
        choice, before = _read(file)
        known = {point: one for point, one in tuned.items() if point.cell in before["cells"]}
        _check_same(file, front, known, before)
        choice = _with_added(choice, front, {point: one for point, one in tuned.items() if point not in known})
    else:
        choice = choose(front, tuned)
    write_json(file, _plain(choice, front, tuned, before))
    return replace(choice, why={point: why for point, why in choice.why.items() if point in tuned})


def _with_added(choice: Choice, front: FrontSettings, added: Mapping[Point, Tuned]) -> Choice:
    why = dict(choice.why)
    for cell in dict.fromkeys(point.cell for point in added):
        own = _front([point for point in added if point.cell == cell], added, front)
        why |= {point: "of a cell added later" for point in own[:ADDED] if point not in why}
    return Choice(why, choice.rival, choice.margins, choice.edges)


def _candidates(
    front: FrontSettings, tuned: Mapping[Point, Tuned], fronts: Mapping[str, Sequence[Point]]
) -> Iterator[tuple[Point, str]]:
    for name, points in fronts.items():
        yield from ((point, f"front at {name}") for point in points)
    families: dict[str, list[Point]] = {}
    for point in tuned:
        families.setdefault(front.family(point.cell), []).append(point)
    own = {family: _front(points, tuned, front) for family, points in families.items()}
    yield from ((points[0], f"best of {family}") for family, points in own.items())
    on_front = dict.fromkeys(point for points in fronts.values() for point in points)
    for point in on_front:
        yield from ((other, f"neighbour of {point.name}") for other in _neighbours(point, front, tuned))
    for rank in range(1, max(map(len, own.values()))):
        yield from ((points[rank], f"front of {family}") for family, points in own.items() if rank < len(points))


def _neighbours(point: Point, front: FrontSettings, tuned: Mapping[Point, Tuned]) -> Iterator[Point]:
    """The same cell with the next learning rates, then the next cells of the family with the same learning rate."""
    rates = sorted({other.rate for other in tuned if other.cell == point.cell})
    cells = list(front.families.get(front.family(point.cell), ()))
    wanted: list[Point] = [Point(point.cell, rate) for rate in _beside(rates, point.rate)]
    wanted += [Point(cell, point.rate) for cell in _beside(cells, point.cell)]
    yield from (other for other in wanted if other in tuned)


def _beside(row: Sequence[Any], item: object) -> list[Any]:
    """The items before and after `item` in a row."""
    at = row.index(item) if item in row else None
    return [] if at is None else [row[i] for i in (at - 1, at + 1) if 0 <= i < len(row)]


def _front(points: Sequence[Point], tuned: Mapping[Point, Tuned], front: FrontSettings) -> list[Point]:
    """The points that none of `points` dominates, those that matter most to the hypervolume first."""
    if not points:
        return []
    places = _places(points, tuned)
    left = [point for point, free in zip(points, non_dominated(places), strict=True) if free]
    shares = contributions(_places(left, tuned), _reference(front))
    within = [tuned[point].place[0] <= front.reference for point in left]
    order = sorted(range(len(left)), key=lambda i: (not within[i], -shares[i], left[i]))
    return [left[i] for i in order]


def _edges(fronts: Mapping[str, Sequence[Point]], tuned: Mapping[Point, Tuned]) -> list[Point]:
    rates = {point.rate for point in tuned}
    points = dict.fromkeys(point for points in fronts.values() for point in points)
    return [point for point in points if len(rates) > 1 and point.rate in (min(rates), max(rates))]


def _margins(front: FrontSettings, chosen: Sequence[Tuned], volume: float) -> dict[str, float]:
    effects = {name: max(abs(one.changes[name]) for one in chosen) for name in chosen[0].changes}
    effects |= {REGIONS: max(abs(one.place[1]) for one in chosen), VOLUME: volume}
    return {name: front.margin * effect for name, effect in effects.items()}


def _places(points: Sequence[Point], tuned: Mapping[Point, Tuned]) -> Array:
    return np.array([tuned[point].place for point in points])


def _reference(front: FrontSettings) -> tuple[float, float]:
    return front.reference, 0.0


def _check_same(file: Path, front: FrontSettings, tuned: Mapping[Point, Tuned], stored: Mapping[str, Any]) -> None:
    advice = "results on test data exist, so the choice can't be repeated; use other `out` and `results`, and new seeds"
    if stored["settings"] != _decisive(front):
        raise DataError(f"{file}: chosen with other settings of `front` than now; {advice}")
    now = {point.name: one.changes for point, one in tuned.items()}
    for name, changes in stored["tuned"].items():
        same = name in now and all(abs(now[name][loss] - value) <= SAME for loss, value in changes.items())
        if not same and name.rpartition(", ")[0] in {point.cell for point in tuned}:
            raise DataError(f"{file}: the tuning result of {name} isn't what it was when points were chosen; {advice}")


def _decisive(front: FrontSettings) -> dict[str, Any]:
    return front.model_dump(mode="json", include={"rival", "untuned", "at_most", "reference", "margin"})


def _plain(
    choice: Choice, front: FrontSettings, tuned: Mapping[Point, Tuned], before: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "settings": _decisive(front),
        "points": [{**point._asdict(), "why": why} for point, why in choice.why.items()],
        "rival": choice.rival._asdict(),
        "margins": dict(choice.margins),
        "edges": [point._asdict() for point in choice.edges],
        "cells": list(dict.fromkeys([*before["cells"], *(point.cell for point in tuned)])),
        "tuned": {**before["tuned"], **{point.name: dict(one.changes) for point, one in tuned.items()}},
    }


def _read(file: Path) -> tuple[Choice, Mapping[str, Any]]:
    try:
        found = parse_json(file.read_text(encoding="utf-8"))
        why = {_point(one): str(one["why"]) for one in found["points"]}
        margins = {str(name): float(value) for name, value in found["margins"].items()}
        return Choice(why, _point(found["rival"]), margins, [_point(one) for one in found["edges"]]), found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: can't be read as a choice of points: {error!r}") from error


def _point(found: Mapping[str, Any]) -> Point:
    return Point(str(found["cell"]), float(found["rate"]))
