"""Building data sets: overhead beside the detectors, memory growth, and a million records.

    .venv/bin/python benchmarks/data.py [--quick] [--parts detect overhead ...]

- detect: the detect tier of a build (two workers) against a bare loop (two processes, each decodes and detects half of
  the pictures), interleaved: pictures per second, and CPU seconds, which other programs affect less. Startup time is
  excluded.
- overhead: milliseconds per record of manifest, engine, tables, selection and plan, with tiers that return constants.
- memory: proportional set size of all processes of a build over many records with the bundled detectors.
- million: manifest, tier, selection and shards of a million records with tiers that return constants; interrupted
  halfway, with the time that the next start needs to find the remaining work. Six million records on 64 workers are
  extrapolated.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import arguments, save, spread
from constant_tiers import ConstantCheck, ConstantDetect, EmptyShards
from fairhuman.data.pictures.decode import decode
from fairhuman.data.pictures.filters import FilterSettings
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pipeline.check import CheckTier
from fairhuman.data.pipeline.detect import DetectTier
from fairhuman.data.pipeline.engine import run_tasks
from fairhuman.data.pipeline.manifest import list_source, read_blocks
from fairhuman.data.pipeline.rows import RowReader
from fairhuman.data.pipeline.select import select
from fairhuman.data.pipeline.tier import TierTable, open_tier
from fairhuman.data.sources import SOURCES, SourceFormat, SourceSettings
from fairhuman.data.sources.rows import Row
from fairhuman.detect.settings import DetectSettings, open_detectors
from fairhuman.synth.body import Body
from fairhuman.synth.render import render
from fairhuman.utils.memory import peak_resident_bytes

WORKERS = 2
SIZE = 512  # pixels a side
BLOCK = 4  # pictures: one worker has nothing to do while the other ends its last block
PARTS = ("detect", "overhead", "million", "memory")
REGIONS = ("face", "hand", "person")
DETECTORS = DetectSettings()
TARGETS = {"throughput_ratio": 0.95, "overhead_ms": 1.0, "memory_mb": 1500, "restart_s": 60}


def photos(folder: Path, count: int) -> Path:
    """Render synthetic people as JPEGs, without annotations."""
    body = Body()
    for number in range(count):
        path = folder / f"{number:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(render(body, 11, number, SIZE).image).save(path, quality=92)
    return folder


# --- the detect tier against a bare loop ---------------------------------------------------------------------------


def bare(paths: Sequence[Path], ready: Any, results: Any) -> None:
    """Run a minimal loop: decode, detect, keep the boxes."""
    with open_detectors(DETECTORS) as find:
        find(np.zeros((SIZE, SIZE, 3), np.uint8))
        ready.wait()
        began, cpu = time.perf_counter(), time.process_time()
        found = [find(np.asarray(decode(path).picture)) for path in paths]
        results.put((time.perf_counter() - began, time.process_time() - cpu, len(found)))


def bare_loop(paths: Sequence[Path]) -> tuple[float, float]:
    """Return pictures per second of the slower half, and CPU seconds per picture."""
    context = get_context("spawn")
    ready, results = context.Barrier(WORKERS), context.Queue()
    crew = [context.Process(target=bare, args=(paths[n::WORKERS], ready, results)) for n in range(WORKERS)]
    for process in crew:
        process.start()
    times = [results.get() for _ in crew]
    for process in crew:
        process.join()
    return len(paths) / max(wall for wall, _, _ in times), sum(cpu for _, cpu, _ in times) / len(paths)


def tier(source: Path, out: Path) -> tuple[float, float]:
    """Return the same for a tier: pictures per second after both workers' first block, and CPU seconds."""
    reader = RowReader(source, "file_name", REGIONS, SourceSettings())
    list_source(out / "manifest", SOURCES["folder"], source, BLOCK, LoadReport())
    blocks = read_blocks(out / "manifest")
    check = TierTable.of(CheckTier(reader), out, {})
    for _ in run_tasks(partial(open_tier, check.tier), check.tasks(blocks, out / "manifest"), WORKERS):
        pass
    detect = TierTable.of(DetectTier(reader, DETECTORS), out, {"check": check})
    tasks = detect.tasks(blocks, out / "manifest")
    before = os.times()
    rows, began, last = 0, 0.0, 0.0
    for number, outcome in enumerate(run_tasks(partial(open_tier, detect.tier), tasks, WORKERS)):
        last = time.perf_counter()
        if number < WORKERS:
            began = last
        else:
            rows += outcome.rows
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return rows / (last - began), cpu / sum(len(block.ids) for block in blocks)


def detect_ratio(folder: Path, quick: bool) -> dict[str, Any]:
    source = photos(folder / "photos", 32 if quick else 256)
    paths = sorted(source.iterdir())
    runs = [(bare_loop(paths), tier(source, folder / f"out-{number}")) for number in range(1 if quick else 5)]
    return {
        "pictures_per_s": {"bare": spread(a[0] for a, _ in runs), "tier": spread(b[0] for _, b in runs)},
        "cpu_s_per_picture": {"bare": spread(a[1] for a, _ in runs), "tier": spread(b[1] for _, b in runs)},
        "ratio": spread(b[0] / a[0] for a, b in runs),
    }


# --- tiers that give constants -------------------------------------------------------------------------------------


def rows_of(count: int) -> Callable[[Path, LoadReport], Iterator[Row]]:
    def rows(_: Path, __: LoadReport) -> Iterator[Row]:
        return (Row(f"x:{n + 1}", {"image": f"{n % 1000:03}/{n:08}.jpg", "caption": "a person"}) for n in range(count))

    return rows


def machinery(out: Path, count: int, block_rows: int, stop_after: float = 1.0) -> dict[str, Any]:
    """Run everything but the detection over `count` records; `stop_after` is the share of the detect tier to run."""
    seconds: dict[str, float] = {}
    source = SourceFormat("generated", lambda _: True, rows_of(count))
    reader = RowReader(out, "image", REGIONS, SourceSettings())
    manifest = out / "manifest"

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        seconds[name] = time.perf_counter() - began

    def run(table: TierTable, blocks: Any, share: float = 1.0) -> None:
        tasks = table.tasks(blocks, manifest)
        done = run_tasks(partial(open_tier, table.tier), tasks[: int(len(tasks) * share)], WORKERS)
        for _ in done:
            pass

    with timed("list"):
        list_source(manifest, source, out, block_rows, LoadReport())
    blocks = read_blocks(manifest)
    check = TierTable.of(ConstantCheck(reader), out / "tiers", {})
    detect = TierTable.of(ConstantDetect(reader, DETECTORS), out / "tiers", {"check": check})
    with timed("check"):
        run(check, blocks)
    if stop_after < 1.0:
        run(detect, check.passed(blocks), stop_after)
        with timed("restart"):
            list_source(manifest, source, out, block_rows, LoadReport())
            blocks = read_blocks(manifest)
            left = len(check.tasks(blocks, manifest)) + len(detect.tasks(check.passed(blocks), manifest))
        assert left == len(blocks) - int(len(blocks) * stop_after)
    with timed("detect"):
        run(detect, check.passed(blocks))
    with timed("select"):
        selection = select(blocks, check, detect, FilterSettings(min_side=256))
    writer = EmptyShards(reader, REGIONS, "generated")
    with timed("plan"):
        tables = {"check": check, "detect": detect}
        shards = writer.plan(out / "data", selection.kept, manifest, tables, 4096)
    with timed("write"):
        for _ in run_tasks(writer.open, shards, WORKERS):
            pass
    kept = sum(len(block.ids) for block in selection.kept)
    written = sum(rows_in(path) for path in (out / "data").iterdir())
    assert kept == written == count, (kept, written, count)
    peak = peak_resident_bytes() / 1e6
    return {"records": count, "blocks": len(blocks), "shards": len(shards), "seconds": seconds, "peak_mb": peak}


def overhead(folder: Path, count: int) -> dict[str, Any]:
    """Return milliseconds per record and process, from the difference of two sizes, which excludes startup."""
    small, large = (in_a_process("machinery", folder / str(n), n, 64) for n in (count // 4, count))
    seconds = [sum(each["seconds"].values()) for each in (small, large)]
    ms = 1000 * (seconds[1] - seconds[0]) * WORKERS / (large["records"] - small["records"])
    return {"small": small, "large": large, "overhead_ms": ms}


def rows_in(path: Path) -> int:
    import pyarrow.parquet

    return int(pyarrow.parquet.read_metadata(path).num_rows)


def in_a_process(name: str, *arguments: object) -> Any:
    """Run a part of this file in a new process, with its own peak of memory."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(globals()[name], arguments)


# --- memory --------------------------------------------------------------------------------------------------------


def family(pid: int) -> list[int]:
    """Return a process and all its descendants."""
    found = [pid]
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        for child in tasks.read_text().split():
            found += family(int(child))
    return found


def proportional_mb(pid: int) -> float:
    total = 0
    for member in family(pid):
        try:
            text = Path(f"/proc/{member}/smaps_rollup").read_text()
        except OSError:
            continue
        total += int(text.split("\nPss:")[1].split()[0])
    return total / 1000


def memory(folder: Path, count: int) -> dict[str, Any]:
    """Build over `count` records, which repeat some pictures."""
    source = photos(folder / "photos", 64)
    names = sorted(path.name for path in source.iterdir())
    lines = (f'{{"file_name": "{names[n % len(names)]}", "key": "{n}", "caption": "x"}}\n' for n in range(count))
    (source / "metadata.jsonl").write_text("".join(lines), encoding="utf-8")
    options = ["min_side=256", "duplicates=keep", "caption.kind=text", "--workers", str(WORKERS)]
    command = [sys.executable, "-m", "fairhuman.cli", "data", "build", str(source), str(folder / "out"), *options]
    samples: list[tuple[float, float]] = []
    began = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        samples.append((time.perf_counter() - began, proportional_mb(process.pid)))
        time.sleep(5)
    assert process.returncode == 0
    half = [mb for seconds, mb in samples if seconds > samples[-1][0] / 2]
    early = [mb for seconds, mb in samples if samples[-1][0] / 10 < seconds <= samples[-1][0] / 2]
    return {
        "records": count,
        "peak_mb": max(mb for _, mb in samples),
        "first_half_mb": spread(early),
        "second_half_mb": spread(half),
        "records_per_s": count / samples[-1][0],
    }


def main() -> None:
    options = arguments(__doc__, PARTS)
    quick = options.quick
    os.environ["PYTHONPATH"] = f"{Path(__file__).parent}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"  # for workers
    for part in options.parts:
        with tempfile.TemporaryDirectory() as name:
            measured = measure(part, Path(name), quick)
        save("data", {"workers": WORKERS, "size": SIZE, "targets": TARGETS}, {part: measured}, options)


def measure(part: str, folder: Path, quick: bool) -> dict[str, Any]:
    """Run one part in an empty folder."""
    if part == "detect":
        return detect_ratio(folder, quick)
    if part == "overhead":
        return overhead(folder, 2_000 if quick else 20_000)
    if part == "million":
        found: dict[str, Any] = in_a_process("machinery", folder, 10_000 if quick else 1_000_000, 1024, 0.5)
        return found
    return memory(folder, 100 if quick else 20_000)


if __name__ == "__main__":
    main()
