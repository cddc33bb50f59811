"""Choice of the points to test, from tuning results alone, and the file that keeps it.

The file is JSON. Its `sha256` is the digest of the other values (`_seal`), by which a changed file is noticed.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.compare.fronts.settings import COMPUTE, REGIONS, STEPS, FrontSettings, Point
from fairhuman.errors import DataError
from fairhuman.regions.settings import GLOBAL
from fairhuman.stats.fronts import Array, hypervolume, non_dominated
from fairhuman.utils.digest import content_digest
from fairhuman.utils.files import write_json
from fairhuman.utils.parse import parse_json

VOLUME = "hypervolume"
NEARLY = 1.02  # a cost up to this share of a budget counts as within it: single audits may differ
SAME = 1e-6  # tolerance of a stored change
SEAL = "sha256"
Compared = Mapping[str, Mapping[str, Sequence[Point]]]  # by budget and family


@dataclass(frozen=True)
class Tuned:
    """What a point changed on tuning data.

    Attributes:
        changes: relative change of each held-out loss.
        steps: training steps.
        cost: cost of the run in passes of a sample with one gradient.
    """

    changes: Mapping[str, float]
    steps: int
    cost: float

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
        edges: points of a front at an end of the learning rates or of a row of weights, so that better ones may lie
            beyond, to the setting in which they do.
        compared: by budget and family, the points whose hypervolume is compared, the most important ones first.
        failed: points without a tuning result when the others were chosen; they take no part, also if they finish
            later.
    """

    why: Mapping[Point, str]
    rival: Point
    margins: Mapping[str, float]
    edges: Mapping[Point, str]
    compared: Compared
    failed: Sequence[Point] = field(default=())


def budgets(tuned: Mapping[Point, Tuned], rival: Tuned) -> dict[str, list[Point]]:
    """The points that are compared at the steps, and at the compute, of a run of the rival."""
    return {
        STEPS: [point for point, one in tuned.items() if one.steps == rival.steps],
        COMPUTE: [point for point, one in tuned.items() if one.cost <= NEARLY * rival.cost],
    }


def choose(front: FrontSettings, tuned: Mapping[Point, Tuned], failed: Sequence[Point] = ()) -> Choice:
    """Choose points: the untuned one and the tuned rival; `front.each` points of each family whose hypervolume is
    judged, one of each in turn; the best of the other families; more of the other families.

    At most `front.at_most` points, in this order. Of a family, each next point is the one that adds the most to the
    hypervolume of those before it.

    Raises:
        DataError: the untuned point or all points of the rival family are missing.
    """
    untuned, rival = untuned_and_rival(front, tuned)
    among = budgets(tuned, tuned[rival])
    ranked = {name: _by_family(points, tuned, front) for name, points in among.items()}
    why: dict[Point, str] = {untuned: "untuned", rival: f"tuned {front.rival}"}
    for point, reason in _candidates(front, ranked):
        if len(why) < front.at_most:
            why.setdefault(point, reason)
    compared = {
        name: {family: list(takewhile(why.__contains__, points)) for family, points in families.items()}
        for name, families in ranked.items()
    }
    volume = hypervolume(_places(compared[STEPS][front.rival] or [rival], tuned), _reference(front))
    effects = {**tuned[rival].changes, REGIONS: tuned[rival].place[1], VOLUME: float(volume)}
    return Choice(why, rival, front.margins(effects), _edges(front, among, tuned), compared, tuple(failed))


def volumes_of_cells(front: FrontSettings, tuned: Mapping[Point, Tuned]) -> dict[str, tuple[int, float]]:
    """By cell, its runs on tuning data and the hypervolume of all of them: as many runs each, whatever their family."""
    cells: dict[str, list[Point]] = {}
    for point in tuned:
        cells.setdefault(point.cell, []).append(point)
    return {
        cell: (len(points), float(hypervolume(_places(points, tuned), _reference(front))))
        for cell, points in cells.items()
    }


def untuned_and_rival(front: FrontSettings, tuned: Mapping[Point, Tuned]) -> tuple[Point, Point]:
    """The untuned point, and the tuned one of the rival family; see `Choice`.

    Raises:
        DataError: one of them has no tuning result.
    """
    untuned = front.untuned.point
    advice = "their logs lie beside the runs; mend the cause and run the same command again"
    if untuned not in tuned:
        raise DataError(f"front.untuned: the tuning run of {untuned.name} failed, and nothing can stand in; {advice}")
    own = [point for point in tuned if front.family(point.cell) == front.rival and point != untuned]
    if not own:
        raise DataError(
            f"front.rival: all tuning runs of {front.rival} failed, so there is nothing to compare with; {advice}"
        )
    allowed = [point for point in own if tuned[point].place[0] <= tuned[untuned].place[0]]
    if allowed:
        return untuned, min(allowed, key=lambda point: tuned[point].place[1])
    return untuned, min(own, key=lambda point: tuned[point].place[0])


def keep_choice(
    file: Path,
    front: FrontSettings,
    tuned: Mapping[Point, Tuned],
    tested: bool,
    rest: Mapping[str, Any] | None = None,
    failed: Sequence[Point] = (),
    say: Callable[[str], object] = lambda _: None,
) -> Choice:
    """The choice in `file`, with points of cells that were added since; chosen and written if there is none.

    Points of cells that are no more stay in the file, and are left out of what is returned; those of a family that is
    judged may not go.

    Args:
        file: `chosen.json`.
        front: settings of the choice.
        tuned: tuning results.
        tested: whether results on test data exist; then the choice in the file stands.
        rest: further settings that must stay as they are once results on test data exist, as JSON.
        failed: points whose tuning run failed.
        say: is called with a note if an earlier version wrote the file, without a digest.

    Raises:
        DataError: results on test data exist, and the file is missing, can't be read, was changed, or was made from
            other tuning results, settings or cells.
    """
    settings = {**_decisive(front), **(rest or {})}
    before: Mapping[str, Any] = {"families": {}, "tuned": {}}
    if tested:
        choice, before = read_choice(file, say)
        settings = _without_added(settings, before["settings"])
        _check_same(file, settings, front, choice.rival, tuned, failed, before)
        choice = _with_added(choice, front, tuned, before)
    else:
        choice = choose(front, tuned, failed)
    write_json(file, _plain(choice, settings, front, tuned, before))
    return replace(choice, why={point: why for point, why in choice.why.items() if point in tuned})


def _with_added(
    choice: Choice, front: FrontSettings, tuned: Mapping[Point, Tuned], before: Mapping[str, Any]
) -> Choice:
    """The choice with families that were added later: the first `front.each` points of each, at every budget, and those
    of a family that is within no budget, which are shown alone.
    """
    new = [p for p in tuned if p.name not in before["tuned"] and p.cell not in before["families"]]
    among = budgets(tuned, tuned[choice.rival])
    beyond = [point for point in new if not any(point in points for points in among.values())]
    why = dict(choice.why)
    compared = {name: dict(families) for name, families in choice.compared.items()}
    for name, points in among.items():
        own = _by_family([point for point in points if point in new], tuned, front)
        compared[name] |= own
        why = {**{point: "of a family added later" for each in own.values() for point in each}, **why}
    for each in _by_family(beyond, tuned, front).values():
        why |= dict.fromkeys(each, "of a family added later, within no budget")
    return replace(choice, why=why, compared=compared)


def _candidates(front: FrontSettings, ranked: Compared) -> Iterator[tuple[Point, str]]:
    lists = [(name, family) for name, families in ranked.items() for family in families]
    judged = [one for one in lists if front.judges(*one)]
    others = [one for one in lists if one not in judged]
    for rank in range(front.each):
        for name, family in judged:
            for point in ranked[name][family][rank : rank + 1]:
                yield point, f"hypervolume of {family} at {name}"
    yield from ((ranked[name][family][0], f"best of {family} at {name}") for name, family in others)
    for rank in range(1, front.each):
        for name, family in others:
            for point in ranked[name][family][rank : rank + 1]:
                yield point, f"hypervolume of {family} at {name}"


def _by_family(points: Sequence[Point], tuned: Mapping[Point, Tuned], front: FrontSettings) -> dict[str, list[Point]]:
    """The first `front.each` points of each family, the rival first."""
    families: dict[str, list[Point]] = {}
    for point in sorted(points, key=lambda point: front.family(point.cell) != front.rival):
        families.setdefault(front.family(point.cell), []).append(point)
    return {family: _ranked(own, tuned, front) for family, own in families.items()}


def _ranked(points: Sequence[Point], tuned: Mapping[Point, Tuned], front: FrontSettings) -> list[Point]:
    """The first `front.each` points: each next one adds the most to the hypervolume of those before it; of points that
    add nothing, those within the reference with the lowest regions.
    """
    ordered: list[Point] = []

    def place(point: Point) -> tuple[float, bool, float, Point]:
        x, y = tuned[point].place
        volume = float(hypervolume(_places([*ordered, point], tuned), _reference(front)))
        return -volume, x > front.reference, y, point

    while len(ordered) < min(front.each, len(points)):
        ordered.append(min((point for point in points if point not in ordered), key=place))
    return ordered


def _edges(
    front: FrontSettings, among: Mapping[str, Sequence[Point]], tuned: Mapping[Point, Tuned]
) -> dict[Point, str]:
    """The points that none of their budget dominates, at an end of the learning rates or of their row of cells."""
    rates = {point.rate for point in tuned}
    fronts = [
        point
        for points in among.values()
        if points
        for point, free in zip(points, non_dominated(_places(points, tuned)), strict=True)
        if free
    ]
    found: dict[Point, str] = {}
    for point in dict.fromkeys(fronts):
        row = next(row for row in front.rows(front.family(point.cell)) if point.cell in row)
        at = ["learning rate"] if len(rates) > 1 and point.rate in (min(rates), max(rates)) else []
        at += ["weights"] if len(row) > 1 and point.cell in (row[0], row[-1]) else []
        if at:
            found[point] = " and ".join(at)
    return found


def _places(points: Sequence[Point], tuned: Mapping[Point, Tuned]) -> Array:
    return np.array([tuned[point].place for point in points])


def _reference(front: FrontSettings) -> tuple[float, float]:
    return front.reference, 0.0


def _check_same(
    file: Path,
    settings: Mapping[str, Any],
    front: FrontSettings,
    rival: Point,
    tuned: Mapping[Point, Tuned],
    failed: Sequence[Point],
    stored: Mapping[str, Any],
) -> None:
    advice = "results on test data exist, so the choice can't be repeated; use other `out` and `results`, and new seeds"
    other = [name for name, value in settings.items() if stored["settings"].get(name) != value]
    if other:
        values = f"{other[0]} was {stored['settings'].get(other[0])}, is {settings[other[0]]}"
        raise DataError(f"{file}: chosen with other settings than now: {values}; {advice}")
    if rival not in tuned:
        raise DataError(f"{file}: the rival, {rival.name}, has no tuning result any more; {advice}")
    cells, known = {point.cell for point in (*tuned, *failed)}, stored["families"]
    compared = {front.rival, *(one.family for one in front.predictions)} if front.predictions else set()
    if gone := [cell for cell, family in known.items() if family in compared and cell not in cells]:
        raise DataError(f"{file}: {gone[0]!r} of the family {known[gone[0]]!r}, which is judged, is gone; {advice}")
    for cell in sorted(cells):
        family = front.family(cell)
        if cell in known and family != known[cell]:
            raise DataError(f"{file}: {cell!r} was of the family {known[cell]!r}, is of {family!r}; {advice}")
        if cell not in known and family in known.values():
            raise DataError(
                f"{file}: {cell!r} was added after the choice, so it can't join the family {family!r}; give it a "
                "family of its own"
            )
    now = {point.name: one.changes for point, one in tuned.items()}
    for name, changes in stored["tuned"].items():
        here = now.get(name, {})
        same = all(loss in here and abs(here[loss] - value) <= SAME for loss, value in changes.items())
        if not same and name.rpartition(", ")[0] in cells:
            raise DataError(f"{file}: the tuning result of {name} isn't what it was when points were chosen; {advice}")


def _without_added(settings: Mapping[str, Any], stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings with the sets of people and the worlds that the choice knew: further ones may join later, and those
    that no prediction is about may be left out.
    """
    kept = dict(settings)
    for name in ("people", "front.worlds"):
        known, now = stored.get(name), settings.get(name)
        if isinstance(known, dict) and isinstance(now, dict):
            kept[name] = {key: now.get(key, value) for key, value in known.items()}
    return kept


def _decisive(front: FrontSettings) -> dict[str, Any]:
    kept = {"rival", "untuned", "predictions", "each", "at_most", "reference", "margin", "worlds"}
    return {f"front.{name}": value for name, value in front.model_dump(mode="json", include=kept).items()}


def _plain(
    choice: Choice,
    settings: Mapping[str, Any],
    front: FrontSettings,
    tuned: Mapping[Point, Tuned],
    before: Mapping[str, Any],
) -> dict[str, Any]:
    content = {
        "settings": dict(settings),
        "points": [{**point._asdict(), "why": why} for point, why in choice.why.items()],
        "rival": choice.rival._asdict(),
        "margins": dict(choice.margins),
        "edges": [{**point._asdict(), "of": of} for point, of in choice.edges.items()],
        "compared": {
            budget: {family: [point._asdict() for point in points] for family, points in families.items()}
            for budget, families in choice.compared.items()
        },
        "failed": [point._asdict() for point in choice.failed],
        "families": {**{p.cell: front.family(p.cell) for p in (*tuned, *choice.failed)}, **before["families"]},
        "tuned": {**before["tuned"], **{point.name: dict(one.changes) for point, one in tuned.items()}},
    }
    return {**content, SEAL: _seal(content)}


def _seal(content: Mapping[str, Any]) -> str:
    """Digest of a choice's values, in whatever order and layout the file has them."""
    return content_digest(json.dumps(content, sort_keys=True).encode())


def read_choice(file: Path, say: Callable[[str], object] = lambda _: None) -> tuple[Choice, Mapping[str, Any]]:
    """The choice in a file, and the settings, families and tuning results of the time when it was made.

    Raises:
        DataError: the file is missing, can't be read or was changed.
    """
    if not file.is_file():
        raise DataError(
            f"{file}: is missing, and results on test data exist, so points can't be chosen again; restore the file, "
            "or use new seeds and a new `out` and `results`"
        )
    try:
        found = dict(parse_json(file.read_text(encoding="utf-8")))
        seal = found.pop(SEAL, None)  # an earlier version wrote none
        if seal not in (None, _seal(found)):
            raise ValueError(f"it was changed: {SEAL} isn't that of the other values; restore it as it was written")
        compared = {
            budget: {family: [_point(one) for one in points] for family, points in found["compared"][budget].items()}
            for budget in (STEPS, COMPUTE)
        }
        choice = Choice(
            {_point(one): str(one["why"]) for one in found["points"]},
            _point(found["rival"]),
            _numbers(found["margins"]),
            {_point(one): str(one["of"]) for one in found["edges"]},
            compared,
            tuple(_point(one) for one in found["failed"]),
        )
        points = (point for families in compared.values() for own in families.values() for point in own)
        if strange := [point.name for point in (choice.rival, *points) if point not in choice.why]:
            raise ValueError(f"{strange[0]} is compared, but isn't one of the points")
        changes = {str(name): _numbers(one) for name, one in found["tuned"].items()}
        before = {"settings": dict(found["settings"]), "families": dict(found["families"]), "tuned": changes}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{file}: can't be read as a choice of points: {error!r}") from error
    if seal is None:
        say(f"{file}: has no digest, as an earlier version wrote it; it is used unchecked")
    return choice, before


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    numbers = {str(name): float(value) for name, value in found.items()}
    if wrong := [name for name, value in numbers.items() if not math.isfinite(value)]:
        raise ValueError(f"{wrong[0]} must be finite")
    return numbers


def _point(found: Mapping[str, Any]) -> Point:
    return Point(str(found["cell"]), float(found["rate"]))
