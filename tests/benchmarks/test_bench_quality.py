"""The benchmark of quality: its rule, its plan, and, slow, the whole of it at tiny size."""

import json
from pathlib import Path

import pytest

from quality import Plan, main, pick, recipe


def test_the_rule_takes_the_best_rate_within_the_limit_else_the_one_that_spoils_least() -> None:
    within = {
        1e-4: {"global": 0.0, "face": -0.01, "hand": -0.02},
        3e-4: {"global": 0.005, "face": -0.02, "hand": -0.03},
        1e-3: {"global": 0.02, "face": -0.2, "hand": -0.2},
    }
    assert pick(within) == 3e-4
    assert pick({1e-4: {**within[1e-3], "global": 0.01}, 1e-3: within[1e-3]}) == 1e-4


def test_runs_of_a_seed_differ_in_the_method_alone() -> None:
    from fairhuman.config import differences

    plan = Plan("small", Path("work"))
    ls, mpd = (recipe(plan, strategy, "attention", 1e-3, 1, "test") for strategy in ("ls", "mpd"))
    assert set(differences(ls, mpd)) == {"strategy", "out"}
    wide = recipe(plan, "ls", "attention+conv", 1e-3, 1, "test")
    assert set(differences(ls, wide)) == {"lora.targets", "out"}
    tuning = recipe(plan, "ls", "attention", 1e-3, 0, "tuning")
    assert set(differences(ls, tuning)) == {"seed", "out", "validation.data", "validation.count"}


@pytest.mark.slow
def test_the_whole_benchmark_at_tiny_size(tmp_path: Path) -> None:
    arguments = ["--quick", "--work", str(tmp_path / "work"), "--out", str(tmp_path)]
    main(arguments)
    document = json.loads((tmp_path / "quality-quick.json").read_text(encoding="utf-8"))
    results = document["results"]
    methods = {f"{strategy}, {targets}" for strategy in ("LS", "MPD") for targets in ("attention", "attention+conv")}
    assert set(results["change"]) == methods
    differences = {f"{method} - base" for method in methods}
    assert set(results["samples"]["face detection rate"]) == {"base", *methods, *differences}
    assert set(results["goals"]) == {name for name in methods if name.startswith("MPD")}
    for found in results["change"].values():
        for estimate in found.values():
            assert estimate["low"] <= estimate["value"] <= estimate["high"]
            assert len(estimate["seeds"]) == 2
    assert (tmp_path / "quality.png").is_file()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "work-quick").rglob("*.safetensors")}
    main(arguments)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
