"""The studio's server: a million steps of metrics, and a list of 10,000 pictures.

    .venv/bin/python benchmarks/studio.py [--quick]

`first_s` is the first answer, which reads everything; `again_s` one in which nothing has changed; `grown_s` one after
100 new steps.
"""

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import arguments, save
from fairhuman.studio.pictures import DataView, Wanted
from fairhuman.studio.runs import RunView
from fairhuman.studio.settings import StudioSettings

NAMES = ("global", "face", "hand")
POINTS = 800


def lines(first: int, last: int) -> str:
    """Steps as the trainer writes them, with 21 columns."""
    values = np.random.default_rng(first).random((last - first, 21))
    names = ["images_per_s", "waiting", "lr", "grad_norm", "peak_memory_mib", "audit_cosine"]
    names += [f"{what}/{name}" for what in ("loss", "weight", "share", "rate", "coverage") for name in NAMES]
    rows = zip(range(first, last), values.tolist(), strict=True)
    return "".join(
        json.dumps({"step": step, "images": 8 * step, **dict(zip(names, row, strict=True))}) + "\n"
        for step, row in rows
    )


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return round(time.perf_counter() - started, 4)


def metrics(folder: Path, steps: int) -> dict[str, Any]:
    file = folder / "metrics.jsonl"
    with file.open("w") as opened:
        for first in range(1, steps + 1, 10_000):
            opened.write(lines(first, min(first + 10_000, steps + 1)))
    view = RunView(folder)
    found: dict[str, Any] = {"steps": steps, "file_mb": round(file.stat().st_size / 1e6, 1)}
    found["first_s"] = seconds(lambda: view.metrics(POINTS, None, None, None))
    answer = view.metrics(POINTS, None, None, None)
    found["answer_kb"] = round(len(json.dumps(answer)) / 1e3, 1)
    found["again_s"] = seconds(lambda: view.metrics(POINTS, None, None, answer["version"]))
    with file.open("a") as opened:
        opened.write(lines(steps + 1, steps + 101))
    found["grown_s"] = seconds(lambda: view.metrics(POINTS, None, None, answer["version"]))
    return found


def pictures(folder: Path, count: int) -> dict[str, Any]:
    for number in range(100):
        pixels = np.random.default_rng(number).integers(0, 255, (512, 384, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.jpg", quality=90)
    rows = [
        {"file_name": f"{i % 100}.jpg", "key": str(i), "caption": f"number {i}", "faces": [[1, 2, 30, 40]]}
        for i in range(count)
    ]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    view = DataView(folder, StudioSettings())
    found: dict[str, Any] = {"pictures": count, "read_s": seconds(view.wait)}
    found["filter_s"] = seconds(lambda: view.listed(Wanted(text="99", region="face", state="has")))
    found["thumbnail_s"] = seconds(lambda: view.thumbnail(7, "kept"))
    found["picture_s"] = seconds(lambda: view.picture(7))
    view.close()
    return found


def main() -> None:
    options = arguments(__doc__)
    steps, count = (100_000, 1000) if options.quick else (1_000_000, 10_000)
    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        save(
            "studio",
            {"points": POINTS},
            {"metrics": metrics(Path(one), steps), "data": pictures(Path(other), count)},
            options,
        )


if __name__ == "__main__":
    main()
