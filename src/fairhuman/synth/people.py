"""A data set of synthetic people: Parquet tables with picture, caption, masks, boxes, pose and depth."""

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from fairhuman.errors import DataError
from fairhuman.synth.body import Array, Body
from fairhuman.synth.cache import Say
from fairhuman.synth.degrade import degrade
from fairhuman.synth.render import MASKS, REGIONS, Rendering, render
from fairhuman.synth.settings import SynthSettings
from fairhuman.synth.workers import rendered_rows
from fairhuman.utils.files import write_atomically, write_json, writing

_TABLE = re.compile(r"people-\d{7}-\d{7}\.parquet")
_TABLE_ROWS = 128
_DEGRADING = 1  # its own draws, so that a spoilt picture shows the same person
_PICTURE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
_BOXES = pyarrow.list_(pyarrow.list_(pyarrow.float32()))
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
        ("depth_kind", pyarrow.string()),
        ("visibility", pyarrow.struct([(name, pyarrow.float32()) for name in REGIONS])),
        ("degraded", pyarrow.bool_()),
        ("source", pyarrow.string()),
    ]
)


def write_people(
    out: Path,
    settings: SynthSettings,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
    say: Say = lambda _: None,
) -> int:
    """Write `out/data/*.parquet` and `out/synth.json`; return how many pictures had to be rendered.

    Tables that are there already are kept, so the same call goes on after an interruption. The result does
    not depend on `workers` (default: one a core). `progress` is told how many pictures are done, `say` what
    takes long before the first one.

    Raises:
        DataError: `out` holds people of other settings, or something else, or can't be written; a worker
            was killed.
        FairHumanError: the body model can't be made.
    """
    missing = missing_tables(out, settings)
    done = settings.count - sum(map(len, missing.values()))
    progress(done)
    folder = out / "data"
    with writing(out, "; the same command goes on"):
        folder.mkdir(parents=True, exist_ok=True)
        write_json(out / "synth.json", settings.model_dump() | {"versions": _versions()})
    make_row = partial(people_row, settings=settings)
    rows = rendered_rows(make_row, [number for numbers in missing.values() for number in numbers], workers, say)
    for name, numbers in missing.items():
        table = []
        for _ in numbers:
            table.append(next(rows))
            done += 1
            progress(done)
        content = pyarrow.Table.from_pylist(table, schema=SCHEMA)
        with writing(out, "; the same command goes on"):
            write_atomically(
                folder / name, partial(pyarrow.parquet.write_table, content, row_group_size=64, compression="none")
            )
    wanted = {_table_name(numbers) for numbers in _tables(settings.count)}
    with writing(out, "; the same command goes on"):
        for path in folder.iterdir():
            if _TABLE.fullmatch(path.name) and path.name not in wanted:
                path.unlink()  # the shorter last table of a smaller count, whose rows are in another one now
    return sum(map(len, missing.values()))


def missing_tables(out: Path, settings: SynthSettings) -> Mapping[str, range]:
    """Return the tables that `write_people` would write, by name, and the numbers of their pictures.

    Raises:
        DataError: as `write_people` does for a folder that can't be gone on with.
    """
    with writing(out, "; the same command goes on"):
        _check_folder(out, settings)
        tables = {_table_name(numbers): numbers for numbers in _tables(settings.count)}
        return {name: numbers for name, numbers in tables.items() if not (out / "data" / name).is_file()}


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
        "depth_kind": "metric_mm",
        "visibility": dict(rendering.visibility),
        "degraded": spoilt,
        "source": "synthetic",
    }


def _tables(count: int) -> Iterator[range]:
    for start in range(0, count, _TABLE_ROWS):
        yield range(start, min(start + _TABLE_ROWS, count))


def _table_name(numbers: range) -> str:
    return f"people-{numbers.start:07d}-{numbers.stop:07d}.parquet"


def _versions() -> dict[str, str]:
    return {name: version(name) for name in ("anny", "warp-lang")}


def _check_folder(out: Path, settings: SynthSettings) -> None:
    kept = out / "synth.json"
    if not kept.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} must be a new or empty folder, or one that `fairhuman synth` has begun")
        return
    try:
        before = json.loads(kept.read_text(encoding="utf-8"))
        count, made_with = int(before["count"]), dict(before["versions"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{kept} must be what `fairhuman synth` has written, found something else: {error!r}"
        ) from error
    now = settings.model_dump(exclude={"count"}) | _versions()
    old = {**before, **made_with}
    changed = [f"{name} was {old.get(name)}, now {value}" for name, value in now.items() if old.get(name) != value]
    if changed:
        raise DataError(f"{out} holds people of other settings ({', '.join(changed)}): choose another folder")
    if count > settings.count:
        raise DataError(f"{out} holds {count} people already, count={settings.count} would remove some")


def _boxes(rendering: Rendering, *names: str) -> list[list[float]]:
    boxes = (rendering.boxes[name] for name in names if name in rendering.boxes)
    return [[box.x0, box.y0, box.x1, box.y1] for box in boxes]


def _png(image: Array) -> dict[str, bytes | None]:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}
