"""The whole measurement of a GPU in half an hour: speed and memory at SDXL's true size, and the tests that need CUDA.

    .venv/bin/python benchmarks/gpu.py                       # writes runs/gpu/gpu.json; needs 16 GB of disk, no network
    .venv/bin/python benchmarks/gpu.py --device cpu --small  # seconds; shows that it works, measures nothing

Weights are random: they cost as much time and memory as others. Cells are measured in order of importance until the
time is up, in a process of their own: one that needs more memory than there is, or fails, is a result like any other.
The file is written after each cell, and the same command again goes on with it. Beside each peak of memory stands what
`fairhuman bench --memory` predicts for it, and the ratio of both.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import torch

from common import rounded
from fairhuman.errors import FairHumanError
from fairhuman.utils.files import write_json
from fairhuman.utils.provenance import origin
from gpu_cells import Cell, cells
from gpu_measure import Building, Task, expected_of, measure, task_of
from isolated import Caller, Failure, Here, Isolated

ROOT = Path(__file__).parents[1]
TESTS = "CUDA tests"
DISK = 16 * 10**9  # bytes: the model, and what a run of rank 256 saves
LEAST, MOST = 20, 300  # seconds that must be left for another cell, and that it may take
GIB = 2**30


class Progress:
    """The results so far, and the time that is left."""

    def __init__(self, file: Path, minutes: float, settings: Mapping[str, Any]) -> None:
        self.file, self.ends = file, time.monotonic() + 60 * minutes
        self.settings, self.origin = dict(settings), origin()
        self.cells: dict[str, dict[str, Any]] = {}
        if file.exists():
            self._read()

    def _read(self) -> None:
        before = json.loads(self.file.read_text(encoding="utf-8"))
        for name, now in (("gpu", self.origin["machine"]["gpu"]), *self.settings.items()):
            then = {**before["machine"], **before["settings"]}[name]
            if then != now:
                sys.exit(f"{self.file} holds results of {name} {then!r}, this is {now!r}: choose another --out")
        self.cells = before["cells"]

    @property
    def left_s(self) -> float:
        return self.ends - time.monotonic()

    def has(self, name: str) -> bool:
        """Whether a cell has a result; one that failed is measured again."""
        return name in self.cells and "failed" not in self.cells[name]

    def add(self, name: str, found: Mapping[str, Any], missing: Sequence[str]) -> None:
        """Keep a result, and write the file."""
        self.cells[name] = rounded(found)
        head = {"benchmark": "gpu", **self.origin, "settings": self.settings, "device_bytes": _device_bytes()}
        write_json(self.file, {**head, "cells": self.cells, "missing": list(missing)})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what the options say."""
    options = _options(arguments)
    work: Path = options.work
    work.mkdir(parents=True, exist_ok=True)
    settings = {"device": options.device, "small": options.small}
    progress = Progress(options.out or work / "gpu.json", options.minutes, settings)
    model = work / ("small" if options.small else "sdxl")
    if not (model / "model_index.json").exists() and not options.small and shutil.disk_usage(work).free < DISK:
        sys.exit(f"{work}: {DISK / 1e9:.0f} GB of disk are needed; choose another folder by --work")
    chosen = {_name(cell): cell for cell in cells(options.small) if cell.part in options.parts}
    names = list(chosen)
    if "tests" in options.parts:
        names.insert(sum(cell.part in ("modes", "runs") for cell in chosen.values()), TESTS)
    with closing(Here(measure) if options.small else Isolated(measure)) as caller:
        if any(name in chosen and not progress.has(name) for name in names):
            caller.send(Building(model, options.device, options.small))
            try:
                caller.receive(progress.left_s)
            except Failure as failure:
                sys.exit(f"{model}: the model can't be written: {failure}")
        for number, name in enumerate(names, start=1):
            if progress.has(name):
                continue
            if progress.left_s < LEAST:
                break
            if name == TESTS:
                caller.close()  # the tests have the device to themselves
                found = cuda_tests(progress.left_s)
            else:
                found = _measured(chosen[name], caller, progress, model, options)
            progress.add(name, found, [one for one in names if one != name and not progress.has(one)])
            print(f"[{number} of {len(names)}, {progress.left_s / 60:.0f} min left] {name}: {_line(found)}", flush=True)
    _end(progress, names)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parts = list(dict.fromkeys(["tests", *(cell.part for cell in cells(False))]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0, help="what it may take (default: 30)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--small", action="store_true", help="the small SDXL at 64 px, in this process")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="those to measure (default: all)")
    parser.add_argument("--work", type=Path, default=Path("runs/gpu"), help="folder of the model and the caches")
    parser.add_argument("--out", type=Path, help="the JSON file (default: gpu.json in that folder)")
    options = parser.parse_args(arguments)
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is found; --device cpu --small shows that the script works")
    if options.device == "cpu" and not options.small:
        parser.error("--device cpu needs --small: the true size takes hours on a CPU")
    return options


def _name(cell: Cell) -> str:
    return f"{cell.part}: {cell.name}"


def _measured(
    cell: Cell, caller: Caller, progress: Progress, model: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """Measure a cell while its memory is computed here; return both, or why there is no result."""
    found: dict[str, Any] = {"settings": list(cell.settings)}
    try:
        task = task_of(cell, options.work, model, options.device, options.small)
        caller.send(task)
        expected = _expected(task)
        found |= caller.receive(min(MOST, progress.left_s))
    except (Failure, FairHumanError) as error:
        return {**found, "failed": str(error)}
    if "out_of_memory" in found:
        caller.close()  # the next cell begins with an empty device
    measured = found.pop("bytes", {})
    found["memory"] = {name: {"predicted": size} for name, size in expected.items()}
    for name, size in measured.items():
        row = found["memory"].setdefault(name, {})
        row["measured"] = size
        if "predicted" in row:
            row["ratio"] = size / row["predicted"]
    return found


def _expected(task: Task) -> dict[str, int]:
    """Return what is predicted; nothing where that fails, as the measurement itself then says why or is worth more."""
    try:
        return {} if task.kind == "bare" else expected_of(task)
    except Exception as error:
        print(f"no memory is predicted: {type(error).__name__}: {error}")
        return {}


def cuda_tests(limit: float, tests: Path = ROOT / "tests") -> dict[str, Any]:
    """Run the tests marked `cuda` in a process of their own; return their numbers by outcome, and what failed."""
    files = sorted(file for file in tests.rglob("test_*.py") if "mark.cuda" in file.read_text(encoding="utf-8"))
    if not files:
        return {"failed": f"there are no tests in {tests}"}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-m", "cuda", f"--junitxml={report}", *files]
        begun = time.monotonic()
        try:
            done = subprocess.run(command, cwd=ROOT, timeout=limit, capture_output=True, text=True, check=False)
        except subprocess.TimeoutExpired:
            return {"failed": f"not done in {limit:.0f} s"}
        if not report.exists():
            return {"failed": f"pytest ended with exit code {done.returncode}: {(done.stderr or done.stdout)[-500:]}"}
        outcomes: dict[str, Any] = {"passed": 0, "skipped": 0, "wrong": {}, "seconds": time.monotonic() - begun}
        for case in ElementTree.parse(report).iter("testcase"):
            bad = [child for child in case if child.tag in ("failure", "error")]
            if bad:
                outcomes["wrong"][f"{case.get('classname')}::{case.get('name')}"] = bad[0].get("message", "")[:500]
            else:
                outcomes["skipped" if case.find("skipped") is not None else "passed"] += 1
    return outcomes


def _line(found: Mapping[str, Any]) -> str:
    """Return a result as one line."""
    if "failed" in found:
        return f"failed: {found['failed']}"
    if "passed" in found:
        return f"{found['passed']} passed, {found['skipped']} skipped, {len(found['wrong'])} wrong"
    parts = [f"out of memory: {found['out_of_memory']}"] if "out_of_memory" in found else []
    if "images_per_s" in found:
        parts.append(f"{found['images_per_s'][1]:.3g} pictures a second")
    for name, row in found["memory"].items():
        if "measured" in row:
            ratio = f" ({row['ratio']:.2f} of the prediction)" if "ratio" in row else ""
            parts.append(f"{name} {row['measured'] / GIB:.2f} GiB{ratio}")
    return ", ".join(parts)


def _end(progress: Progress, names: Sequence[str]) -> None:
    missing = [name for name in names if not progress.has(name)]
    print(f"wrote {progress.file}: {len(names) - len(missing)} of {len(names)} cells")
    if missing:
        print(f"without a result: {'; '.join(missing)}. The same command again goes on")


def _device_bytes() -> int | None:
    return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


if __name__ == "__main__":
    main()
