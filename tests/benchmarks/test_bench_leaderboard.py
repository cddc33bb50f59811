"""The leaderboard: a strategy joins the protocol as a cell, and the table holds what the results say."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from leaderboard.run import recipe_with, rows, show, with_strategy


def test_a_strategy_joins_as_a_family_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "strategies.json"
    strategies = with_strategy(file, "alpha 4", ["strategy=alpha", "fairness.alpha=4"])
    recipe = recipe_with(strategies, [f"results={tmp_path}"])
    assert recipe.front is not None
    assert recipe.front.family("alpha 4") == "alpha 4"
    run = recipe.run("alpha 4", 1, 1e-3, "test")
    assert (run.strategy, run.fairness.alpha, run.fairness.mode) == ("alpha", 4.0, "exact")
    assert recipe.results_folder == tmp_path
    assert recipe_with({"MPD": {"strategy": "mpd"}}).cells == recipe_with({}).cells
    file.write_text(json.dumps(strategies))
    assert list(with_strategy(file, "si", ["strategy=si"])) == ["alpha 4", "si"], "those before come again"
    with pytest.raises(SystemExit, match=r"'alpha 4' is in .*strategies.json with other settings"):
        with_strategy(file, "alpha 4", ["strategy=si"])
    with pytest.raises(SystemExit, match="'MPD' is the name of a cell of the protocol with other settings"):
        recipe_with({"MPD": {"strategy": "si"}})


def test_rows_and_the_table(tmp_path: Path) -> None:
    def estimate(value: float) -> dict[str, float]:
        return {"value": value, "low": value - 1e-4, "high": value + 1e-4}

    against = estimate(2e-4)
    found = {
        "hypervolume": {
            "equal steps": {"fixed weights": estimate(3e-4), "new": estimate(5e-4)},
            "equal compute": {"new": {"value": None, "low": None, "high": None}},
        },
        "judged": [{"of": ["equal steps", "new"], "verdict": "higher"}],
        "hypervolume against rival": {"equal steps": {"new": against}, "equal compute": {}},
    }
    (tmp_path / "results.json").write_text(json.dumps(found))
    table = rows(tmp_path, ["fixed weights", "new"])
    steps = table["new"]["equal steps"]
    assert steps == {"hypervolume": estimate(5e-4), "against": against, "verdict": "higher"}
    console = Console(record=True, width=100, file=io.StringIO())
    show(table, console)
    lines = console.export_text().splitlines()
    assert lines[1].split() == ["new", "5.00", "+2.00", "[+1.00,", "+3.00]", "better"]
    assert lines[2].split() == ["fixed", "weights", "3.00"]
    assert lines[4].split() == ["new", "-"], "what isn't known is no zero"
