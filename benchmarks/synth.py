"""Synthetic people: pictures per second, loading time, and how often MediaPipe detects the faces and hands.

    .venv/bin/python benchmarks/synth.py [--quick]

Speed is that of complete rows (rendering and PNG encoding), from the moment when all processes have rendered their
first. CPU time per picture is less affected by other processes than pictures per second.
"""

import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import torch

from common import arguments, save
from fairhuman.detect.rates import DETECTORS, find_parts, part_rates
from fairhuman.synth.body import Body
from fairhuman.synth.people import people_row
from fairhuman.synth.render import Rendering, render
from fairhuman.synth.settings import SynthSettings
from fairhuman.utils.files import cache_folder

SIZES = (128, 256, 512)
PROCESSES = (1, 2)
DETECTION_SIZE = 512
_LOAD = """
import json, resource, time
start = time.perf_counter()
import torch
torch.set_num_threads(1)
from fairhuman.synth.body import Body
from fairhuman.synth.render import render
from fairhuman.utils.memory import peak_resident_bytes
body = Body()
loaded = time.perf_counter()
render(body, 0, 0, 64)
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "wall_s": loaded - start,
    "first_picture_s": time.perf_counter() - loaded,
    "cpu_s": used.ru_utime + used.ru_stime,
    "peak_mb": peak_resident_bytes() / 1e6,
}))
"""
_body: Body
_together: Barrier


def start(together: Barrier) -> None:
    """Set up a process of the pool."""
    global _body, _together
    torch.set_num_threads(1)
    _body, _together = Body(), together
    render(_body, 0, 0, 64)


def timed(task: tuple[int, int, int]) -> tuple[float, float, float]:
    """Render `count` rows of `size` pixels from `first` on; return start and end time, and the CPU time."""
    size, first, count = task
    settings = SynthSettings(count=first + count, size=size)
    people_row(_body, settings, first)
    _together.wait()
    began, cpu = time.time(), time.process_time()
    for number in range(first, first + count):
        people_row(_body, settings, number)
    return began, time.time(), time.process_time() - cpu


def drawn(number: int) -> Rendering:
    return render(_body, 0, number, DETECTION_SIZE)


def pool(processes: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(processes, context, initializer=start, initargs=(context.Barrier(processes),))


def speed(processes: int, quick: bool) -> dict[str, Any]:
    """Return pictures per second and CPU milliseconds per picture, by size."""
    results = {}
    with pool(processes) as workers:
        for size in SIZES:
            count = 2 if quick else 8192 // size
            tasks = [(size, worker * count, count) for worker in range(processes)]
            times = list(workers.map(timed, tasks))
            seconds = max(end for _, end, _ in times) - min(began for began, _, _ in times)
            pictures = count * processes
            results[f"{size} px"] = {
                "pictures": pictures,
                "pictures_per_s": pictures / seconds,
                "cpu_ms_per_picture": 1000 * sum(cpu for *_, cpu in times) / pictures,
            }
            print(f"{processes} processes, {size} px: {results[f'{size} px']}", flush=True)
    return results


def loading(quick: bool) -> dict[str, Any]:
    """Return the loading time in a new process, with an empty cache (skipped in a quick run) and with a full one."""

    def load(**environment: str) -> dict[str, float]:
        run = subprocess.run(
            [sys.executable, "-c", _LOAD], env={**os.environ, **environment}, capture_output=True, text=True, check=True
        )
        found: dict[str, float] = json.loads(run.stdout)
        return found

    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        if not quick:
            results["first"] = load(FAIRHUMAN_CACHE=folder)
        load()
        results["warm"] = load()
        kept = Path(cache_folder() if quick else folder)
        results["cache_mb"] = sum(path.stat().st_size for path in kept.rglob("*") if path.is_file()) / 1e6
    print(results, flush=True)
    return results


def detection(count: int) -> dict[str, Any]:
    """Return detection rates over pictures with a face or hand, and the share of detections centred in a box."""
    with pool(PROCESSES[-1]) as workers:
        pictures = list(workers.map(drawn, range(count)))
    boxes = [picture.boxes for picture in pictures]
    expected = {
        "face": [[found["face"]] if "face" in found else [] for found in boxes],
        "hand": [[found[name] for name in ("left_hand", "right_hand") if name in found] for found in boxes],
    }
    detectors: dict[str, Callable[[], Any]] = {part: DETECTORS[part] for part in expected}
    images = [picture.image for picture in pictures]
    found = find_parts(images, detectors=detectors, workers=PROCESSES[-1])
    rates = part_rates(found, expected, parts=tuple(detectors))
    results = {}
    for part, rate in rates.items():
        assert rate.on_target is not None
        results[part] = {
            name: {"value": share.value, "low": share.low, "high": share.high, "n": share.n}
            for name, share in (("found", rate.found), ("on_target", rate.on_target))
        }
        print(part, results[part], flush=True)
    return results


def main() -> None:
    options = arguments(__doc__)
    count = 4 if options.quick else 100
    results = {
        "loading": loading(options.quick),
        "speed": {f"{processes} processes": speed(processes, options.quick) for processes in PROCESSES},
        "detection": detection(count),
    }
    save("synth", {"sizes": SIZES, "seed": 0, "detection": {"pictures": count, "size": 512}}, results, options)


if __name__ == "__main__":
    main()
