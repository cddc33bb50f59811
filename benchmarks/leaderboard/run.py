"""Put a strategy, fairhuman's or another package's, through the quick protocol, beside fixed weights and MPD.

    .venv/bin/python benchmarks/leaderboard/run.py UPGrad strategy=torchjd:UPGrad
    .venv/bin/python benchmarks/leaderboard/run.py "alpha 4" strategy=alpha fairness.alpha=4

The name is that of the table's row; the settings are those of training in which the strategy differs. The protocol is
in docs/evidence.md, its sizes in recipe.yaml. Losses of finished runs are kept in `losses/`, so a further strategy
trains its own runs alone: three learning rates on tuning people, and up to three points with three seeds on test
people. Run the same command again to resume. Rows are added to `leaderboard.json`.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from fairhuman import config
from fairhuman.cli.console import ConsoleDisplay
from fairhuman.compare.fronts.page import BETTER
from fairhuman.compare.run import run_all
from fairhuman.compare.settings import CompareRecipe
from fairhuman.utils.files import write_json
from fairhuman.utils.parse import parse_json

HERE = Path(__file__).parent
KEPT = "leaderboard.json"


def recipe_with(
    name: str, settings: Sequence[str], overrides: Sequence[str] = (), file: Path | None = None
) -> CompareRecipe:
    """The protocol's recipe with a cell for the strategy.

    Raises:
        RecipeError: the name is that of another cell, or the settings aren't key=value.
    """
    values = config.read(file or HERE / "recipe.yaml")
    own = config.overridden({}, settings)
    if values["cells"].get(name, own) != own:
        raise SystemExit(f"{name!r} is the name of a cell of the protocol with other settings; choose another name")
    return config.build(
        CompareRecipe, {**values, "cells": {**values["cells"], name: own}}, overrides, origin="leaderboard"
    )


def rows(results: Path, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the results say of the families `names`, at equal steps and, where they take part, at equal compute."""
    found = parse_json((results / "results.json").read_text(encoding="utf-8"))
    return {
        name: {
            budget: {"hypervolume": volumes[name], "against": found["hypervolume against rival"][budget].get(name)}
            for budget, volumes in found["hypervolume"].items()
            if name in volumes
        }
        for name in names
    }


def show(table: dict[str, dict[str, Any]], console: Console) -> None:
    """Print the table, the largest hypervolume at equal steps first; in %²."""
    for budget in ("equal steps", "equal compute"):
        console.print(f"{budget}: hypervolume in %², and its difference to fixed weights", highlight=False)
        lines = {name: row[budget] for name, row in table.items() if budget in row}
        for name, row in sorted(lines.items(), key=lambda item: -(item[1]["hypervolume"]["value"] or 0.0)):
            text = f"  {name:24}{1e4 * (row['hypervolume']['value'] or 0.0):8.2f}"
            if row["against"] is not None:
                low, high = (1e4 * (row["against"]["estimate"][end] or 0.0) for end in ("low", "high"))
                text += f"   [{low:+.2f}, {high:+.2f}] {BETTER[row['against']['verdict']]}"
            console.print(text, highlight=False, markup=False)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("name", help="name of the strategy's row")
    parser.add_argument("settings", nargs="+", help="strategy=NAME, and other settings of training")
    parser.add_argument("--out", type=Path, help="folder of runs (default: runs/leaderboard)")
    parser.add_argument("--results", type=Path, default=HERE, help="folder of losses, numbers and page")
    options = parser.parse_args(arguments)
    console = Console()
    recipe = recipe_with(
        options.name, options.settings, [f"results={options.results}", *([f"out={options.out}"] if options.out else [])]
    )
    done = run_all(recipe, ConsoleDisplay(console))
    if isinstance(done, int):
        console.print("stopped; run the same command again to resume", highlight=False)
        sys.exit(128 + done)
    assert recipe.front is not None
    kept = recipe.results_folder / KEPT
    families = dict.fromkeys(map(recipe.front.family, recipe.cells))
    before = parse_json(kept.read_text(encoding="utf-8")) if kept.is_file() else {}
    table = {**before, **rows(recipe.results_folder, list(families))}
    write_json(kept, table)
    show(table, console)
    if done.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
