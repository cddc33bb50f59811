"""Write a data set of synthetic people: Parquet tables with picture, caption, masks, boxes, pose and depth."""

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
from PIL import Image

from fairhuman.errors import DataError
from fairhuman.synth.body import Array, Body
from fairhuman.synth.cache import Say
from fairhuman.synth.degrade import degrade
from fairhuman.synth.render import MASKS, PARTS, REGIONS, Rendering, render
from fairhuman.synth.settings import SynthSettings
from fairhuman.synth.workers import rendered_rows
from fairhuman.utils.files import write_json, writing
from fairhuman.utils.parse import parse_json
from fairhuman.utils.tables import write_table

_TABLE = re.compile(r"people-\d{7}-(\d{7})\.parquet")
_TABLE_ROWS = 128
_DEGRADE_STREAM = 1  # separate random stream, so that a degraded picture shows the same person
_RESUME = "; run the same command again to resume"
_PICTURE = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
_BOXES = pyarrow.list_(pyarrow.list_(pyarrow.float32()))


def _schema(masks: Sequence[str]) -> pyarrow.Schema:
    return pyarrow.schema(
        [
            ("key", pyarrow.string()),
            ("image", _PICTURE),
            ("width", pyarrow.int32()),
            ("height", pyarrow.int32()),
            ("caption", pyarrow.string()),
            ("faces", _BOXES),
            ("hands", _BOXES),
            ("masks", pyarrow.struct([(name, _PICTURE) for name in masks])),
            ("pose", pyarrow.list_(pyarrow.list_(pyarrow.float32()))),
            ("depth", _PICTURE),
            ("depth_kind", pyarrow.string()),
            ("visibility", pyarrow.struct([(name, pyarrow.float32()) for name in REGIONS])),
            ("degraded", pyarrow.bool_()),
            ("source", pyarrow.string()),
        ]
    )


SCHEMA = _schema(MASKS)  # of tables without masks of parts


def _masks(settings: SynthSettings) -> tuple[str, ...]:
    return (*MASKS, *PARTS) if settings.parts else MASKS


def write_people(
    out: Path,
    settings: SynthSettings,
    workers: int | None = None,
    progress: Callable[[int], None] = lambda _: None,
    say: Say = lambda _: None,
) -> int:
    """Write `out/data/*.parquet` and `out/synth.json`; return the number of rendered pictures.

    Existing tables are kept, so the same call resumes an interrupted one. The result doesn't depend on `workers`
    (default: one per core). `progress` is called with the number of finished pictures, `say` with messages about
    long preparations.

    Raises:
        DataError: `out` has people with other settings or other content, or can't be written; a worker was killed.
        FairHumanError: the body model can't be built.
    """
    missing = missing_tables(out, settings)
    done = settings.count - sum(map(len, missing.values()))
    progress(done)
    folder = out / "data"
    with writing(out, _RESUME):
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
        content = pyarrow.Table.from_pylist(table, schema=_schema(_masks(settings)))
        with writing(out, _RESUME):
            write_table(content, folder / name, row_group_size=64, compression="none")
    wanted = {_table_name(numbers) for numbers in _tables(settings.count)}
    with writing(out, _RESUME):
        for path in folder.iterdir():
            if _TABLE.fullmatch(path.name) and path.name not in wanted:
                path.unlink()  # the last table of a smaller count, whose rows are now in a longer table
    return sum(map(len, missing.values()))


def missing_tables(out: Path, settings: SynthSettings) -> Mapping[str, range]:
    """Return the tables that `write_people` would write, by name, with the numbers of their pictures.

    Raises:
        DataError: `out` can't be resumed; see `write_people`.
    """
    with writing(out, _RESUME):
        _check_folder(out, settings)
        tables = {_table_name(numbers): numbers for numbers in _tables(settings.count)}
        return {name: numbers for name, numbers in tables.items() if not (out / "data" / name).is_file()}


def people_row(body: Body, settings: SynthSettings, number: int) -> dict[str, Any]:
    """Render one row of the data set."""
    rendering = render(body, settings.seed, number, settings.size, framing=settings.framing, parts=settings.parts)
    generator = np.random.default_rng((settings.seed, number, _DEGRADE_STREAM))
    degraded = bool(generator.random() < settings.degraded)
    image = rendering.image
    if degraded:
        image = degrade(image, (rendering.masks["face"], rendering.masks["hand"]), generator)
    return {
        "key": f"{settings.seed}-{number:07d}",
        "image": _png(image),
        "width": settings.size,
        "height": settings.size,
        "caption": rendering.caption,
        "faces": _boxes(rendering, "face"),
        "hands": _boxes(rendering, "left_hand", "right_hand"),
        "masks": {name: _png(rendering.masks[name]) for name in _masks(settings)},
        "pose": rendering.keypoints.tolist(),
        "depth": _png((rendering.depth * 1000).round().clip(0, 65535).astype(np.uint16)),
        "depth_kind": "metric_mm",
        "visibility": dict(rendering.visibility),
        "degraded": degraded,
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
    file = out / "synth.json"
    if not file.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} must be a new or empty folder, or one of an earlier `fairhuman synth`")
        return
    try:
        before = parse_json(file.read_text(encoding="utf-8"))
        _, versions = int(before["count"]), dict(before["versions"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file}: not a file of `fairhuman synth`: {error!r}") from error
    now = settings.model_dump(exclude={"count"}) | _versions()
    old = {"framing": "half_body", "parts": False, **before, **versions}  # older sets don't name it
    changed = [f"{name} was {old.get(name)}, now {value}" for name, value in now.items() if old.get(name) != value]
    if changed:
        raise DataError(f"{out} has people with other settings ({', '.join(changed)}): choose another folder")
    names = [_TABLE.fullmatch(path.name) for path in (out / "data").glob("*")]
    count = max((int(name[1]) for name in names if name is not None), default=0)
    if count > settings.count:
        raise DataError(f"{out} already has {count} people, count={settings.count} would remove some")


def _boxes(rendering: Rendering, *names: str) -> list[list[float]]:
    boxes = (rendering.boxes[name] for name in names if name in rendering.boxes)
    return [[box.x0, box.y0, box.x1, box.y1] for box in boxes]


def _png(image: Array) -> dict[str, bytes | None]:
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, "PNG")
    return {"bytes": stream.getvalue(), "path": None}
