"""Detect slowdowns in a few minutes: measure ratios again and compare them with the committed results.

    .venv/bin/python benchmarks/guard.py            # make bench-quick; exit code 1 if a ratio is 20 % worse

All are ratios of CPU times within one process, so they roughly hold on other and on busy machines. A ratio that is
worse is measured once more, and counts only if it is worse again.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import amortised
import fairness
import solver
import step
from common import RESULTS, one_thread
from fairhuman.bench.speed import BARE
from fairhuman.fairness import solve
from reference import reference_weights
from sdxl_shape import build_unet

WORSE = 1.2
ROUNDS = 3
Ratios = dict[str, float]


def fair_steps() -> Ratios:
    """Return exact steps, without and with gradient checkpointing."""
    return _fairness(fairness.cost(quick=False, repeats=ROUNDS))


def modes() -> Ratios:
    """Return ordinary steps of amortised modes."""
    return _modes(amortised.cost_of(build_unet(quick=False, depths=(1, 2, 4)), 1, ROUNDS, quick=False))


def steps() -> Ratios:
    """Return whole steps of the trainer, as multiples of the bare loop's."""
    with tempfile.TemporaryDirectory() as folder:
        return _steps(step.speed_of(Path(folder), "small", 2, ROUNDS, ("output",)))


def weights() -> Ratios:
    """Return the time of our solver relative to SciPy's."""
    grams = solver.problems(100, 1.0, seed=0)
    start = time.process_time()
    for gram in grams:
        solve(gram)
    middle = time.process_time()
    for gram in grams:
        reference_weights(gram.numpy())
    return {"solver": (middle - start) / (time.process_time() - middle)}


def committed() -> Ratios:
    """Return the same ratios from the committed results."""
    results = {name: json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))["results"] for name in NAMES}
    scale = results["solver"]["gradient scale"]["1"]
    ours, scipy = (scale[name]["cpu_us"]["median"] for name in ("fairhuman", "scipy least_squares from 1/K"))
    return {
        "solver": ours / scipy,
        **_fairness(results["fairness"]["cost"]),
        **_modes(results["amortised"]["cost"]["depths 1, 2, 4, batch 1"]),
        **_steps(results["step"]["speed"]["small, batch 2"]),
    }


NAMES = ("solver", "fairness", "amortised", "step")
PARTS: tuple[Callable[[], Ratios], ...] = (weights, fair_steps, modes, steps)


def _fairness(cost: Mapping[str, Any]) -> Ratios:
    return {
        f"{name}, {label}": row["ratio"]["median"]
        for label in ("no checkpointing", "gradient checkpointing")
        for name, row in cost[label].items()
        if name.startswith("FairBackward")
    }


def _modes(cost: Mapping[str, Any]) -> Ratios:
    return {f"mode {name}": row["median"] for name, row in cost["ratio"].items() if name not in ("plain", "exact")}


def _steps(speed: Mapping[str, Any]) -> Ratios:
    """Convert `speed`, in pictures per second, to ratios of time."""
    return {f"trainer, {name}": 1.0 / way["ratio"][1] for name, way in speed.items() if name != BARE}


def worse(found: Mapping[str, float], before: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return what takes more than `WORSE` times as long as before: new and old ratio."""
    return {name: (value, before[name]) for name, value in found.items() if value > WORSE * before[name]}


def main() -> None:
    one_thread()
    before = committed()
    bad: dict[str, tuple[float, float]] = {}
    for part in PARTS:
        found = part()
        if worse(found, before):
            again = part()
            found = {name: min(value, again[name]) for name, value in found.items()}
        bad |= worse(found, before)
        for name, value in found.items():
            print(f"{'WORSE' if name in bad else 'ok':6} {name:60} {value:.3f}, was {before[name]:.3f}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
