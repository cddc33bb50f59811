"""The leaderboard: a strategy joins the protocol as a cell, and the table holds what the results say."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from leaderboard.run import recipe_with, rows, show


def test_a_strategy_joins_as_a_family_of_its_own(tmp_path: Path) -> None:
    recipe = recipe_with("alpha 4", ["strategy=alpha", "fairness.alpha=4"], [f"results={tmp_path}"])
    assert recipe.front is not None
    assert recipe.front.family("alpha 4") == "alpha 4"
    run = recipe.run("alpha 4", 1, 1e-3, "test")
    assert (run.strategy, run.fairness.alpha, run.fairness.mode) == ("alpha", 4.0, "exact")
    assert recipe.results_folder == tmp_path
    assert recipe_with("MPD", ["strategy=mpd"]).cells == recipe_with("fixed 1 1", ["strategy=ls"]).cells
    with pytest.raises(SystemExit, match="'MPD' is the name of a cell of the protocol with other settings"):
        recipe_with("MPD", ["strategy=si"])


def test_rows_and_the_table(tmp_path: Path) -> None:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 1e-4, "high": value + 1e-4}

    against = {"estimate": estimate(2e-4), "verdict": "higher"}
    found = {
        "hypervolume": {"equal steps": {"fixed weights": estimate(3e-4), "new": estimate(5e-4)}, "equal compute": {}},
        "hypervolume against rival": {"equal steps": {"new": against}, "equal compute": {}},
    }
    (tmp_path / "results.json").write_text(json.dumps(found))
    table = rows(tmp_path, ["fixed weights", "new"])
    assert table["new"] == {"equal steps": {"hypervolume": estimate(5e-4), "against": against}}
    console = Console(record=True, width=100, file=io.StringIO())
    show(table, console)
    lines = console.export_text().splitlines()
    assert lines[1].split() == ["new", "5.00", "[+1.00,", "+3.00]", "better"]
    assert lines[2].split() == ["fixed", "weights", "3.00"]
