"""Shared by all benchmarks: time several methods in turn in one process and compare them as ratios."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from fairhuman.utils.provenance import origin

RESULTS = Path(__file__).parent / "results"


def arguments(description: str | None, parts: Sequence[str] = (), **folders: str) -> argparse.Namespace:
    """Parse --quick, --out and --parts.

    --quick takes seconds instead of minutes: it proves that the script runs, but measures nothing. Each part of a
    benchmark is saved as soon as it is done, beside the file's other parts. `folders` are
    further options, {name: help text}.
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that the script works")
    parser.add_argument("--out", type=Path, help="where the JSON goes (default: benchmarks/results)")
    if parts:
        parser.add_argument("--parts", nargs="+", choices=parts, default=list(parts), help="those to measure")
    for name, purpose in folders.items():
        parser.add_argument(f"--{name}", type=Path, metavar="FOLDER", help=purpose)
    return parser.parse_args()


def compare(
    ways: Mapping[str, Callable[[], object]], baseline: str, repeats: int, before: Callable[[], object] | None = None
) -> dict[str, Any]:
    """Time every method `repeats` times, in turn, after one warm-up; return seconds and ratios to `baseline`.

    A ratio is taken within a round, where both methods saw the same state of the machine. CPU time is less affected by
    other processes than wall-clock time. `before` runs, untimed, before each call.
    """
    cpu: dict[str, list[float]] = {name: [] for name in ways}
    wall: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            if before is not None:
                before()
            wall_0, cpu_0 = time.perf_counter(), time.process_time()
            way()
            cpu_1, wall_1 = time.process_time(), time.perf_counter()
            if repeat > 0:
                cpu[name].append(cpu_1 - cpu_0)
                wall[name].append(wall_1 - wall_0)
    return {
        name: {
            "cpu_s": spread(cpu[name]),
            "wall_s": spread(wall[name]),
            "ratio": spread(a / b for a, b in zip(cpu[name], cpu[baseline], strict=True)),
        }
        for name in ways
    }


def spread(values: Iterable[float]) -> dict[str, float]:
    """Return minimum, median and maximum."""
    found = sorted(values)
    return {"min": found[0], "median": statistics.median(found), "max": found[-1]}


def save(name: str, settings: Mapping[str, Any], results: Mapping[str, Any], options: argparse.Namespace) -> Path:
    """Write results/NAME.json with the machine, versions and date (NAME-quick.json for a quick run).

    Each part of a benchmark with parts has its own provenance, as it may have been measured on another machine.
    """
    folder = options.out or RESULTS
    folder.mkdir(parents=True, exist_ok=True)
    path: Path = folder / f"{name}{'-quick' if options.quick else ''}.json"
    measured = origin(("scipy", "torchjd"))
    document = {"benchmark": name, "settings": dict(settings)}
    if "parts" in options:
        kept = json.loads(path.read_text(encoding="utf-8"))["results"] if path.exists() else {}
        document["results"] = kept | {part: {**measured, **rounded(result)} for part, result in results.items()}
    else:
        document |= {**measured, "results": rounded(results)}
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"wrote {path}")
    return path


def rounded(value: Any) -> Any:
    """Round all floats in nested dictionaries and lists to four digits."""
    if isinstance(value, Mapping):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value


def one_thread(seed: int = 0) -> None:
    """Use one thread and a fixed seed, so that runs are comparable."""
    torch.set_num_threads(1)
    torch.manual_seed(seed)
