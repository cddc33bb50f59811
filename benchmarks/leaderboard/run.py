"""Put a strategy, fairhuman's or another package's, through the quick protocol, beside fixed weights and MPD.

    .venv/bin/python benchmarks/leaderboard/run.py UPGrad strategy=torchjd:UPGrad
    .venv/bin/python benchmarks/leaderboard/run.py "alpha 4" strategy=alpha fairness.alpha=4

The name is that of the table's row; the settings are those of training in which the strategy differs. The protocol is
in docs/evidence.md, its sizes in recipe.yaml. Its own cells come first and alone, so that the points of fixed weights
are chosen without any strategy; then all strategies ever added join under one rule, each a family of its own: three
learning rates on tuning people, and three points with three seeds on test people. Losses of finished runs are kept in
`losses/` and strategies in `strategies.json`, so a further strategy trains its own runs alone, and all rows of the
table are computed again. Run the same command again to resume.
"""

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fairhuman import config
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.compare.fronts.analysis import BETTER
from fairhuman.compare.run import Comparison, run_all
from fairhuman.compare.settings import CompareRecipe
from fairhuman.utils.files import write_json
from fairhuman.utils.parse import parse_json

HERE = Path(__file__).parent
TABLE, STRATEGIES = "leaderboard.json", "strategies.json"
Strategies = Mapping[str, dict[str, Any]]  # name to the settings in which it differs


def recipe_with(strategies: Strategies, overrides: Sequence[str] = (), file: Path | None = None) -> CompareRecipe:
    """The protocol's recipe with a cell for each strategy.

    Raises:
        SystemExit: a name is that of another cell.
        RecipeError: a setting that training doesn't have.
    """
    values = config.read(file or HERE / "recipe.yaml")
    for name, own in strategies.items():
        if values["cells"].get(name, own) != own:
            raise SystemExit(f"{name!r} is the name of a cell of the protocol with other settings; choose another name")
    cells = {**values["cells"], **strategies}
    return config.build(CompareRecipe, {**values, "cells": cells}, overrides, origin="leaderboard")


def with_strategy(file: Path, name: str, settings: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The strategies kept in `file`, and one more.

    Raises:
        SystemExit: the name is taken by other settings.
        RecipeError: the settings aren't key=value.
    """
    kept = parse_json(file.read_text(encoding="utf-8")) if file.is_file() else {}
    own = config.overridden({}, settings)
    if kept.get(name, own) != own:
        raise SystemExit(f"{name!r} is in {file} with other settings: {kept[name]}; choose another name")
    return {**kept, name: own}


def rows(results: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the results say of the families `names`, at equal steps and, where they take part, at equal compute."""
    found = parse_json((results / "results.json").read_text(encoding="utf-8"))
    verdicts = {tuple(one["of"]): one["verdict"] for one in found["judged"]}
    return {
        name: {
            budget: {
                "hypervolume": volumes[name],
                "against": found["hypervolume against rival"][budget].get(name),
                "verdict": verdicts.get((budget, name)),
            }
            for budget, volumes in found["hypervolume"].items()
            if name in volumes
        }
        for name in names
    }


def show(table: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """Print the table, the largest hypervolume at equal steps first; in %²."""
    for budget in ("equal steps", "equal compute"):
        console.print(
            f"{budget}: hypervolume in %², and its difference to fixed weights with the 95 % interval", highlight=False
        )
        lines = {name: row[budget] for name, row in table.items() if budget in row}
        for name, row in sorted(lines.items(), key=lambda item: -(item[1]["hypervolume"]["value"] or 0.0)):
            text = f"  {name:24}{_area(row['hypervolume']['value'])}"
            if row["against"] is not None:
                value, low, high = (_area(row["against"][end], signed=True) for end in ("value", "low", "high"))
                text += f"   {value} [{low.strip()}, {high.strip()}] {BETTER.get(row['verdict'], 'not judged')}"
            console.print(text, highlight=False, markup=False)


def _area(share: float | None, signed: bool = False) -> str:
    """A hypervolume in %²; a dash where it isn't known."""
    return f"{'-':>8}" if share is None else f"{1e4 * share:{'+' if signed else ''}8.2f}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", help="name of the strategy's row")
    parser.add_argument("settings", nargs="+", help="strategy=NAME, and other settings of training")
    parser.add_argument("--out", type=Path, help="folder of runs (default: runs/leaderboard)")
    parser.add_argument("--results", type=Path, default=HERE, help="folder of losses, numbers and page")
    options = parser.parse_args(arguments)
    console = Console()
    strategies = with_strategy(options.results / STRATEGIES, options.name, options.settings)
    overrides = [f"results={os.path.relpath(options.results)}", *([f"out={options.out}"] if options.out else [])]
    recipe = recipe_with(strategies, overrides)
    _run(recipe_with({}, overrides), console)
    done = _run(recipe, console)
    write_json(options.results / STRATEGIES, strategies)
    assert recipe.front is not None
    table = rows(recipe.results_folder, list(dict.fromkeys(map(recipe.front.family, recipe.cells))))
    write_json(recipe.results_folder / TABLE, table)
    show(table, console)
    if done.failed:
        sys.exit(1)


def _run(recipe: CompareRecipe, console: Console) -> Comparison:
    done = run_all(recipe, ConsoleDisplay(console))
    if isinstance(done, int):
        console.print("stopped; run the same command again to resume", highlight=False)
        sys.exit(128 + done)
    return done


if __name__ == "__main__":
    main()
