"""An export, written as a whole under another name and then put in its place."""

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
from fairhuman.data.look.reading import AS_IT_IS, DataSet, open_dataset, usable_or_error
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources import SourceSettings
from fairhuman.errors import DataError, RecipeError
from fairhuman.utils.files import alone, write_atomically, writing

MARK = "export.json"  # says whose export a folder is
Writer = Callable[[Path, Iterator[ExportSample], DataSet, int, LoadReport], None]
FORMATS: Mapping[str, Writer] = {
    "webdataset": write_webdataset,
    "imagefolder": write_imagefolder,
    "parquet": write_parquet,
}


@dataclass(frozen=True)
class ExportSummary:
    """What was written, and what wasn't.

    Attributes:
        out: the folder.
        records: their number.
        report: what was skipped, dropped or changed.

    """

    out: Path
    records: int
    report: LoadReport


def export_dataset(
    path: Path,
    out: Path,
    format: str,
    shard_rows: int = 1000,
    settings: SourceSettings = AS_IT_IS,
    regions: Sequence[str] = (),
    progress: Progress = lambda _stage, _done, _all: None,
    near: CloseupSettings | None = None,
) -> ExportSummary:
    """Write a data set of any format in another one; pictures are decoded once, and bad ones left out and noted.

    The folder appears whole or not at all. The same export again replaces it.

    Args:
        path: the data set.
        out: new or empty folder, or one with an earlier export of the same data set in the same format.
        format: `webdataset`, `imagefolder` or `parquet`.
        shard_rows: records of a tar or table, ≥ 1.
        settings: of the source; its `max_reject_share` plays no part.
        regions: whose boxes are written beside those of faces, hands and persons.
        progress: told how many records were written.
        near: write close-ups in the place of whole pictures.

    Raises:
        DataError: the data set can't be read or holds no usable record; `out` holds something else, lies in the data
            set, or another export works on it.
        FairHumanError: `out` can't be written.
        RecipeError: there is no such format, or no such region for close-ups.
        ValueError: `shard_rows` below 1.

    """
    if format not in FORMATS:
        close = difflib.get_close_matches(format, FORMATS, 1, 0.5)
        hint = f"did you mean {close[0]!r}?" if close else f"known are {', '.join(FORMATS)}"
        raise RecipeError(f"--format: there is no export to {format!r}; {hint}")
    if shard_rows < 1:
        raise ValueError(f"shard_rows must be at least 1, not {shard_rows}")
    dataset, out = open_dataset(path, settings, regions), out.resolve()
    if near is not None and near.region not in dataset.regions:
        raise RecipeError(f"--closeups: must be one of {', '.join(dataset.regions)}, found {near.region!r}")
    mark = {"source": str(path.resolve()), "format": format}
    if near is not None:
        mark["closeups"] = near.model_dump_json()
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
        usable_or_error(dataset, report, written)
        content = {**mark, "records": written, "version": version("fairhuman")}
        (folder / MARK).write_text(json.dumps(content, indent=1), encoding="utf-8")

    _check_apart(path.resolve(), out)
    lock = out.with_name(f".{out.name}.lock")
    with writing(out), alone(lock, f"{out}: another export is at work here"):
        _check_content(path, out, mark)
        write_atomically(out, write)
    return ExportSummary(out, written, report)


def _check_apart(path: Path, out: Path) -> None:
    """Refuse a folder that is part of what is read."""
    root = path if path.is_dir() else path.parent
    if out.is_relative_to(root) or root.is_relative_to(out):
        raise DataError(f"{out}: lies in the data set {root}, or around it; give a folder elsewhere")


def _check_content(path: Path, out: Path, mark: Mapping[str, str]) -> None:
    """Refuse a folder whose content would be lost."""
    if not out.exists():
        return
    if not out.is_dir():
        raise DataError(f"{out}: is no folder")
    if any(out.iterdir()) and _mark_of(out) != mark:
        raise DataError(
            f"{out}: holds something else than an export of {path} to {mark['format']}; give another folder"
        )


def _mark_of(out: Path) -> dict[str, Any]:
    try:
        found = json.loads((out / MARK).read_text(encoding="utf-8"))
        said = {name: found[name] for name in ("source", "format")}
        return {**said, "closeups": found["closeups"]} if "closeups" in found else said
    except (OSError, ValueError, KeyError, TypeError):
        return {}
