"""The report of a comparison in two stages: numbers as JSON, figures and a page."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from fairhuman.compare.analysis import Judged
from fairhuman.compare.fronts.analysis import BETTER, LESS, Curve, Fronts, Number, Outcome, Runs, Search
from fairhuman.compare.fronts.choose import Tuned, volumes_of_cells
from fairhuman.compare.fronts.run import FrontRuns
from fairhuman.compare.fronts.samples import FrontSamples
from fairhuman.compare.fronts.settings import COMPUTE, REGIONS, STEPS, FrontSettings, Point, PredictionSettings
from fairhuman.compare.paper.measurements import Measurement
from fairhuman.compare.settings import BASE, CompareRecipe
from fairhuman.config import to_yaml
from fairhuman.regions.settings import GLOBAL
from fairhuman.report.changes import seed_changes
from fairhuman.report.colours import colours
from fairhuman.report.html import figure_uri, render_to
from fairhuman.report.plots import INK, dress, literal
from fairhuman.report.text import estimate_text, listed, percent, plural
from fairhuman.stats.estimate import Estimate
from fairhuman.utils.files import write_json
from fairhuman.utils.provenance import origin

DRAWN_CURVES = 7  # curves in a figure besides the rival's; more can't be told apart
HERE = "this comparison"
MARKS = {"better": "down", "worse": "up"}  # classes of a page's colours for good and bad


def write_fronts(
    recipe: CompareRecipe, front: FrontSettings, runs: FrontRuns, drawn: FrontSamples | None = None
) -> Path:
    """Write `results.json` and `report.html` into the results folder; return the page's path."""
    folder, found = recipe.results_folder, runs.fronts
    failed = {**runs.outcome.failed, **(drawn.failed if drawn else {})}
    cells = volumes_of_cells(front, runs.tuned)
    seeds = {
        cell: {name: seed_changes(series, name) for name in series.first}
        for cell, series in runs.outcome.series.items()
    }
    document = {
        **found.plain(),
        **{"margins": runs.choice.margins, "seeds": seeds, "failed": failed, "to come": list(runs.to_come)},
        "costs": {point.name: cost for point, cost in runs.costs.items()},
        "unchanged": {world: [point.name for point in points] for world, points in runs.unchanged.items() if points},
        "hypervolume of cells on tuning data": {cell: volume for cell, (_, volume) in cells.items()},
    }
    if drawn is not None:
        document["samples"] = [one.plain() for one in drawn.found]
    write_json(folder / "results.json", {**origin(), **document})
    names = list(next(iter(found.points.values())))
    return render_to(
        folder / "report.html",
        "fronts.html",
        title="Fronts",
        verdicts=list(sentences(front, runs)),
        front=front,
        price_margin=percent(runs.choice.margins[GLOBAL], 2),
        untuned=front.untuned.point.name,
        rival=runs.choice.rival.name,
        pictures=len(next(iter(runs.outcome.series.values())).keys),
        seeds=recipe.seeds,
        names=names,
        plots={
            budget: [figure_uri(front_figure(front, found, budget, narrow)) for narrow in (False, True)]
            for budget, curves in found.curves.items()
            if curves
        },
        judged=[_judged(front, number, one) for number, one in found.judged.items()],
        predictions=[_predicted(front, one, came) for one, came in found.predictions],
        volumes={budget: _volumes(runs, budget) for budget, families in found.volumes.items() if families},
        references=[percent(reference, 2) for reference in found.references],
        points=[
            (p.name, runs.choice.why[p], f"{runs.costs[p]:.2f}", [_share(one) for one in found.points[p].values()])
            for p in found.points
        ],
        worlds={
            other.name: [
                (world or HERE, [_share(one) for one in losses.values()], other in runs.unchanged.get(world, ()))
                for world, losses in worlds.items()
            ]
            for other, worlds in {runs.choice.rival: found.beside, **found.also}.items()
        },
        elsewhere=[
            (world, point.name, [_share(one) for one in changes.values()])
            for world, points in found.elsewhere.items()
            for point, changes in points.items()
        ],
        cells=[
            (cell, many, f"{1e4 * volume:.3f}")
            for cell, (many, volume) in sorted(cells.items(), key=lambda item: -item[1][1])
        ],
        searches=[_search(name, search) for name, search in found.cost.searches.items()],
        untuned_found=_share(found.cost.untuned),
        edges=[f"{point.name} ({of})" for point, of in runs.choice.edges.items()],
        left_out=[point.name for point in found.left_out],
        not_chosen=[point.name for point in runs.choice.failed],
        lost=percent(found.lost, 1) if found.lost else "",
        tuned=_tuned(runs.tuned),
        tuned_names=[*next(iter(runs.tuned.values())).changes],
        failed=sorted(failed.items()),
        to_come=listed(runs.to_come),
        samples=_samples(front, runs, drawn.found) if drawn is not None and drawn.found else [],
        samples_page=drawn.page.relative_to(folder).as_posix() if drawn is not None else "",
        settings_text=to_yaml(recipe),
    )


def sentences(front: FrontSettings, runs: FrontRuns) -> Iterator[str]:
    """What may be said, in words: fronts against the rival's, the untuned point beside the tuned one, tuning's cost."""
    found = runs.fronts
    for budget in found.against:
        groups: dict[str, list[str]] = {}
        for (at, family), one in found.judged.items():
            if at == budget:
                groups.setdefault(_word(BETTER, one), []).append(family)
        clauses = [f"{listed(families)}: {word}" for word, families in groups.items()]
        if clauses:
            yield f"Fronts compared with that of {front.rival}, at {budget}: {'; '.join(clauses)}."
    name, rival = front.untuned.point.name, runs.choice.rival.name
    words = [f"{loss} {_share(found.beside[''][loss])}" for loss in (GLOBAL, REGIONS)]
    judged = found.judged.get(("", REGIONS))
    verdict = f"; regions and global loss together: {_word(LESS, judged)}" if judged is not None else ""
    yield f"{name}, without a search, minus {rival}, tuned: {', '.join(words)}{verdict}."
    for searched, search in found.cost.searches.items():
        if not searched.startswith(f"{front.rival}, "):
            continue
        yield (
            f"{searched}, one seed: in random order {_needed(search, search.runs_within)} of "
            f"{plural(search.others, 'run')} are needed on average until one is as good as {name} within the margin; "
            f"without the margin, {_needed(search, search.runs)}."
        )


def _word(words: Mapping[str, str], one: Judged) -> str:
    """A verdict in words: a difference may be sure and yet count as none."""
    sure = one.verdict not in ("same", "undecided")
    return f"{words[one.verdict]} by less than the margin" if sure and one.within else words[one.verdict]


def _needed(search: Search, runs: Runs) -> str:
    return f"more than {search.others}" if runs[0] is None else f"{runs[0]:.1f}"


def front_figure(front: FrontSettings, found: Fronts, budget: str, narrow: bool = False) -> Figure:
    """Tested points with their intervals, and what each family attains, with its 95 % band."""
    curves = _shown(front, found, budget)
    palette = colours(front.family(point.cell) for point in found.points)
    figure = Figure(figsize=(3.6, 4.4) if narrow else (9.0, 5.0), dpi=100, layout="constrained")
    axes = figure.subplots()
    for family, curve in curves.items():
        _draw_curve(axes, family, curve, palette[family], bold=family == front.rival)
    for point, changes in found.points.items():
        family = front.family(point.cell)
        if budget == STEPS or family in curves:
            _draw_point(axes, changes, palette[family] if family in curves else "#9a9a9a")
    axes.axvline(100 * front.reference, color="#888888", linewidth=1.0, linestyle=":")
    axes.axhline(0.0, color="#888888", linewidth=1.0, linestyle=":")
    axes.set_xlabel("change in global loss, % (what it costs)", fontsize=9, color=INK)
    axes.set_ylabel("mean change in the regions' losses, %", fontsize=9, color=INK)
    dress(axes)
    figure.legend(loc="outside lower center", ncols=2 if narrow else 4, fontsize=8, frameon=False, labelcolor=INK)
    return figure


def _draw_curve(axes: Axes, family: str, curve: Curve, colour: str, bold: bool) -> None:
    limits_l = 100 * curve.limits_l
    axes.fill_between(limits_l, 100 * curve.low_l, 100 * curve.high_l, color=colour, alpha=0.12, linewidth=0)
    axes.plot(limits_l, 100 * curve.median_l, color=colour, linewidth=2.4 if bold else 1.4, label=literal(family))


def _draw_point(axes: Axes, changes: Mapping[str, Estimate], colour: str) -> None:
    x, y = changes[GLOBAL], changes[REGIONS]
    axes.plot([100 * x.low, 100 * x.high], [100 * y.value] * 2, color=colour, linewidth=0.8)
    axes.plot([100 * x.value] * 2, [100 * y.low, 100 * y.high], color=colour, linewidth=0.8)
    axes.plot(100 * x.value, 100 * y.value, marker="o", color=colour, markersize=4)


def _shown(front: FrontSettings, found: Fronts, budget: str) -> dict[str, Curve]:
    """The curves of the rival, the untuned point's family, and those with the largest hypervolume."""
    volumes, curves = found.volumes[budget], found.curves[budget]
    first = [name for name in (front.rival, front.family(front.untuned.cell)) if name in curves]
    others = sorted((name for name in curves if name not in first), key=lambda name: -volumes[name].value)
    return {name: curves[name] for name in [*dict.fromkeys(first), *others][: DRAWN_CURVES + 1]}


def _volumes(runs: FrontRuns, budget: str) -> list[dict[str, Any]]:
    """Rows of a budget's table, the largest front first; hypervolumes in %²: 1 % times 1 %."""
    lines, found, compared = [], runs.fronts, runs.choice.compared[budget]
    for family, one in sorted(found.volumes[budget].items(), key=lambda item: -item[1].value):
        against, judged = found.against[budget].get(family), found.judged.get((budget, family))
        others = [by_family.get(family) for by_family in found.planes[budget].values()]
        others += [budgets[budget].get(family) for budgets in found.references.values()]
        word = _word(BETTER, judged) if judged else ""
        lines.append(
            {
                "family": family,
                "points": sum(point in found.points for point in compared[family]),
                "volume": _area(one),
                "against": _area(against, signed=True) if against else "",
                "word": word or ("not judged" if against else ""),
                "mark": MARKS.get(word, ""),
                "others": [_area(one, signed=True) if one else "" for one in others],
            }
        )
    return lines


def _search(name: str, search: Search) -> dict[str, Any]:
    many = len(search.best_n)
    picked = sorted({1, 2, 3, 5, 10, 20, 50, many} & set(range(1, many + 1)))
    reach, within = (_with_ends(search, runs) for runs in (search.runs, search.runs_within))
    lines = [(n, _share(search.best_n[n - 1])) for n in picked]
    return {"name": name, "lines": lines, "runs": reach, "runs_within": within}


def _with_ends(search: Search, runs: Runs) -> str:
    mean, low, high = (_needed(search, (n, None, None)) for n in runs)
    return mean if low == mean == high else f"{mean} [{low}, {high}]"


def _samples(front: FrontSettings, runs: FrontRuns, found: Sequence[Measurement]) -> list[dict[str, Any]]:
    """A row a metric: values of the base, the tuned rival and the untuned point, and the latter minus the rival."""
    numbers = {(one.metric, one.method): one for one in found}
    shown = (BASE, runs.choice.rival.name, front.untuned.point.name)
    lines = []
    for one in {one.metric: one for one in found}.values():
        cells = [numbers.get((one.metric, method)) for method in shown]
        difference = cells[-1].difference if cells[-1] is not None else None
        lines.append(
            {
                "metric": one.metric,
                "better": one.better,
                "values": ["" if cell is None else estimate_text(cell.value) for cell in cells],
                "difference": "" if difference is None else estimate_text(difference, "{:+.3g}", signed=True),
            }
        )
    return lines


def _is_volume(number: Number) -> bool:
    return number[0] in (STEPS, COMPUTE)


def _called(front: FrontSettings, number: Number) -> str:
    """A judged number in words."""
    at, name = number
    if _is_volume(number):
        return f"hypervolume of {name} minus that of {front.rival}, at {at}"
    return f"{name} of the untuned point minus the tuned one, with the global loss, {at or HERE}"


def _judged(front: FrontSettings, number: Number, one: Judged) -> dict[str, str]:
    volume = _is_volume(number)
    word = _word(BETTER if volume else LESS, one)
    margin = f"{1e4 * one.margin:.3g} %²" if volume else percent(one.margin, 3)
    texts = [_area(each, signed=True) if volume else _share(each) for each in (one.estimate, one.joint)]
    return {
        "of": _called(front, number),
        "estimate": texts[0],
        "joint": texts[1],
        "margin": f"± {margin}",
        "paid": "" if one.paid is None else _share(one.paid.joint),
        "paid_margin": "" if one.paid is None else f"± {percent(one.paid.margin, 3)}",
        "word": word,
        "mark": MARKS.get(word, ""),
    }


def _predicted(front: FrontSettings, one: PredictionSettings, came: Outcome) -> tuple[str, str, str]:
    return _called(front, one.number), " or ".join(one.words), came


def _tuned(tuned: Mapping[Point, Tuned]) -> Sequence[tuple[str, str, list[str]]]:
    return [
        (p.cell, f"{p.rate:g}", [percent(change, 2, signed=True) for change in one.changes.values()])
        for p, one in tuned.items()
    ]


def _share(estimate: Estimate) -> str:
    return estimate_text(estimate, "{:+.2f}", signed=True, percent=True)


def _area(estimate: Estimate, signed: bool = False) -> str:
    return estimate_text(estimate.scaled(1e4), signed=signed)
