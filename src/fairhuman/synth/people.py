"""A data set of synthetic people: Parquet tables with picture, caption, masks, boxes, pose and depth."""

import io
import multiprocessing
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image
from pydantic import Field

from fairhuman.errors import DataError
from fairhuman.files import write_atomically, write_json
from fairhuman.recipe import Settings
from fairhuman.synth.body import Array, Body
from fairhuman.synth.degrade import degrade
from fairhuman.synth.render import LARGEST_SIZE, SMALLEST_SIZE, Rendering, render

_TABLE = re.compile(r"people-\d{7}-\d{7}\.parquet")
_TABLE_ROWS, _TASK_ROWS = 128, 16
_DEGRADING = 1  # its own draws, so that a spoilt picture shows the same person
_PICTURE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
_BOXES = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
MASKS = ("face", "hand", "left_hand", "right_hand", "person")
SCHEMA = pyarrow.schema(
    [
        ("key", pyarrow.string()),
        ("image", _PICTURE),
        ("width", pyarrow.int32()),
        ("height", pyarrow.int32()),
        ("caption", pyarrow.string()),
        ("faces", _BOXES),
        ("hands", _BOXES),
        ("masks", pyarrow.struct([(name, _PICTURE) for name in MASKS])),
        ("pose", pyarrow.list_(pyarrow.list_(pyarrow.float32()))),
        ("depth", _PICTURE),
        ("visibility", pyarrow.struct([(name, pyarrow.float32()) for name in ("face", "left_hand", "right_hand")])),
        ("degraded", pyarrow.bool_()),
        ("source", pyarrow.string()),
    ]
)


class SynthSettings(Settings):
    """What to render.

    Attributes:
        count: pictures; a larger count later adds to the same ones.
        size: pixels a side.
        seed: picture k follows from (seed, k).
        degraded: share of the pictures, in [0, 1], whose faces and hands are blurred and warped.

    """

    count: int = Field(ge=1, le=10_000_000)
    size: int = Field(default=256, ge=SMALLEST_SIZE, le=LARGEST_SIZE)
    seed: int = Field(default=0, ge=0)
    degraded: float = Field(default=0.0, ge=0, le=1)


def write_people(
    out: Path, settings: SynthSettings, workers: int | None = None, progress: Callable[[int], None] = lambda _: None
) -> int:
    """Write `out/data/*.parquet` and `out/synth.json`; return how many pictures had to be rendered.

    Tables that are there already are kept, so the same call goes on after an interruption. The result does
    not depend on `workers` (default: one a core). `progress` is told how many pictures are done.

    Raises:
        DataError: `out` holds people of other settings, or something else; a worker was killed.
    """
    _check_folder(out, settings)
    folder = out / "data"
    wanted = {_table_name(start, stop): range(start, stop) for start, stop in _tables(settings.count)}
    missing = {name: numbers for name, numbers in wanted.items() if not (folder / name).is_file()}
    done = settings.count - sum(map(len, missing.values()))
    progress(done)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        out / "synth.json",
        settings.model_dump() | {"versions": {name: version(name) for name in ("anny", "warp-lang")}},
    )
    rows = _rendered([number for numbers in missing.values() for number in numbers], settings, workers)
    for name, numbers in missing.items():
        table = []
        for _ in numbers:
            table.append(next(rows))
            done += 1
            progress(done)
        content = pyarrow.Table.from_pylist(table, schema=SCHEMA)
        write_atomically(
            folder / name, partial(pyarrow.parquet.write_table, content, row_group_size=64, compression="none")
        )
    for path in folder.iterdir():
        if _TABLE.fullmatch(path.name) and path.name not in wanted:
            path.unlink()  # the shorter last table of a smaller count, whose rows are in another one now
    return sum(map(len, missing.values()))


def people_row(body: Body, settings: SynthSettings, number: int) -> dict[str, Any]:
    """Render one row of the data set."""
    rendering = render(body, settings.seed, number, settings.size)
    generator = np.random.default_rng((settings.seed, number, _DEGRADING))
    spoilt = bool(generator.random() < settings.degraded)
    image = rendering.image
    if spoilt:
        image = degrade(image, (rendering.masks["face"], rendering.masks["hand"]), generator)
    return {
        "key": f"{settings.seed}-{number:07d}",
        "image": _png(image),
        "width": settings.size,
        "height": settings.size,
        "caption": rendering.caption,
        "faces": _boxes(rendering, "face"),
        "hands": _boxes(rendering, "left_hand", "right_hand"),
        "masks": {name: _png(rendering.masks[name]) for name in MASKS},
        "pose": rendering.keypoints.tolist(),
        "depth": _png((rendering.depth * 1000).round().clip(0, 65535).astype(np.uint16)),
        "visibility": dict(rendering.visibility),
        "degraded": spoilt,
        "source": "synthetic",
    }


def _tables(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _TABLE_ROWS):
        yield start, min(start + _TABLE_ROWS, count)


def _table_name(start: int, stop: int) -> str:
    return f"people-{start:07d}-{stop:07d}.parquet"


def _check_folder(out: Path, settings: SynthSettings) -> None:
    kept = out / "synth.json"
    if kept.is_file():
        import json

        before = json.loads(kept.read_text())
        changed = {
            name: (before.get(name), value)
            for name, value in settings.model_dump().items()
            if name != "count" and before.get(name) != value
        }
        if changed:
            shown = ", ".join(f"{name} was {old}, now {new}" for name, (old, new) in changed.items())
            raise DataError(f"{out} holds people of other settings ({shown}): choose another folder")
        if before["count"] > settings.count:
            raise DataError(f"{out} holds {before['count']} people already, count={settings.count} would remove some")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out} must be a new or empty folder, or one that `fairhuman synth` has begun")


def _rendered(numbers: list[int], settings: SynthSettings, workers: int | None) -> Iterator[dict[str, Any]]:
    """Yield the rows in order, rendered by several processes."""
    tasks = [numbers[start : start + _TASK_ROWS] for start in range(0, len(numbers), _TASK_ROWS)]
    count = min(workers or len(os.sched_getaffinity(0)), len(tasks))
    if count <= 1:
        if tasks:
            body = Body()
            yield from (people_row(body, settings, number) for number in numbers)
        return
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker) as pool:
        try:
            for rows in pool.map(partial(_work, settings), tasks):
                yield from rows
        except BrokenProcessPool as error:
            raise DataError("a rendering process was killed (out of memory?): the same command goes on") from error


_worker_body: Body | None = None


def _start_worker() -> None:
    import torch

    global _worker_body
    torch.set_num_threads(1)
    _worker_body = Body()


def _work(settings: SynthSettings, numbers: list[int]) -> list[dict[str, Any]]:
    assert _worker_body is not None
    return [people_row(_worker_body, settings, number) for number in numbers]


def _boxes(rendering: Rendering, *names: str) -> list[list[float]]:
    boxes = (rendering.boxes[name] for name in names if name in rendering.boxes)
    return [[box.x0, box.y0, box.x1, box.y1] for box in boxes]


def _png(image: Array) -> dict[str, bytes | None]:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}
