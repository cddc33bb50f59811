"""Run an export; the output folder is written atomically."""

import difflib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fairhuman.data.export.closeups import CloseupSettings, closeups
from fairhuman.data.export.imagefolder import write_imagefolder
from fairhuman.data.export.parquet import write_parquet
from fairhuman.data.export.sample import ExportSample, samples
from fairhuman.data.export.webdataset import write_webdataset
from fairhuman.data.look.check import Progress
from fairhuman.data.look.reading import DataSet, open_dataset, require_usable
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.errors import DataError, RecipeError
from fairhuman.utils.files import alone, write_atomically, writing
from fairhuman.utils.parse import parse_json

MARKER = "export.json"  # records source and format of an export
Writer = Callable[[Path, Iterator[ExportSample], DataSet, int, LoadReport], None]
FORMATS: Mapping[str, Writer] = {
    "webdataset": write_webdataset,
    "imagefolder": write_imagefolder,
    "parquet": write_parquet,
}


@dataclass(frozen=True)
class ExportSummary:
    """Result of an export: the folder, the number of records written, and notes on what was left out or converted."""

    out: Path
    records: int
    report: LoadReport


def export_dataset(
    path: Path,
    out: Path,
    format: str,
    shard_rows: int = 1000,
    regions: Sequence[str] = (),
    progress: Progress = lambda _stage, _done, _all: None,
    near: CloseupSettings | None = None,
) -> ExportSummary:
    """Export a data set of any format to another one; pictures are decoded once, and bad ones left out and noted.

    The folder is written atomically. Repeating an export of the same data set in the same format replaces it. Boxes are
    written of `regions` besides faces, hands and persons; however many records are left out, the rest is written. With
    `near`, close-ups are written instead of full pictures. `progress` is called with the number of records written.

    Raises:
        DataError: the data set can't be read or has no usable record; `out` has other content, lies in the data set,
            or another export is running in it.
        FairHumanError: `out` can't be written.
        RecipeError: the format, or the region of close-ups, is unknown.
        ValueError: `shard_rows` is below 1.
    """
    _check_format(format)
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, not {shard_rows}")
    dataset, out = open_dataset(path, regions=regions), out.resolve()
    _check_region(near, dataset)
    marker = _marker(path, format, near)
    report = LoadReport()
    written = 0

    def counted() -> Iterator[ExportSample]:
        nonlocal written
        found = samples(dataset, report)
        for sample in found if near is None else closeups(found, near, dataset.regions, report):
            yield sample
            written += 1
            progress("export", written, None)

    def write(folder: Path) -> None:
        folder.mkdir()
        FORMATS[format](folder, counted(), dataset, shard_rows, report)
        require_usable(dataset, report, written)
        content = {**marker, "records": written, "version": version("fairhuman")}
        (folder / MARKER).write_text(json.dumps(content, indent=1), encoding="utf-8")

    _check_apart(path.resolve(), out)
    lock = out.with_name(f".{out.name}.lock")
    with writing(out), alone(lock, f"{out}: another export is running in this folder"):
        _check_content(path, out, marker)
        write_atomically(out, write)
    return ExportSummary(out, written, report)


def _check_format(name: str) -> None:
    if name not in FORMATS:
        close = difflib.get_close_matches(name, FORMATS, 1, 0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(FORMATS)}"
        raise RecipeError(f"--format: unknown export format {name!r}; {hint}")


def _check_region(near: CloseupSettings | None, dataset: DataSet) -> None:
    if near is not None and near.region not in dataset.regions:
        raise RecipeError(f"--closeups: must be one of {', '.join(dataset.regions)}, found {near.region!r}")


def _marker(path: Path, format: str, near: CloseupSettings | None) -> dict[str, str]:
    """What identifies an export: a repetition with the same marker replaces it."""
    marker = {"source": str(path.resolve()), "format": format}
    return marker if near is None else {**marker, "closeups": near.model_dump_json()}


def _check_apart(path: Path, out: Path) -> None:
    """Check that the output folder neither lies in the data set nor contains it."""
    root = path if path.is_dir() else path.parent
    if out.is_relative_to(root) or root.is_relative_to(out):
        raise DataError(f"{out}: lies in the data set {root}, or contains it; give a folder elsewhere")


def _check_content(path: Path, out: Path, marker: Mapping[str, str]) -> None:
    """Check that the output folder can be replaced: it is empty or holds the same export."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: isn't a folder")
    if any(out.iterdir()) and _read_marker(out) != marker:
        raise DataError(f"{out}: must be empty or hold an export of {path} to {marker['format']}; give another folder")


def _read_marker(out: Path) -> dict[str, Any]:
    try:
        found = parse_json((out / MARKER).read_text(encoding="utf-8"))
        marker = {name: found[name] for name in ("source", "format")}
        return {**marker, "closeups": found["closeups"]} if "closeups" in found else marker
    except (OSError, ValueError, KeyError, TypeError):
        return {}
