"""What the studio shows: training runs, data sets and folders of samples, at and below the given folders."""

import os
import shlex
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fairhuman.data.pipeline.report import REPORT
from fairhuman.data.sources import source_kind
from fairhuman.data.sources.edits import EDITS
from fairhuman.data.sources.folder import CAPTION_SUFFIXES, PICTURE_SUFFIXES
from fairhuman.data.sources.imagefolder import has_metadata
from fairhuman.data.sources.rows import printable
from fairhuman.errors import DataError
from fairhuman.study.study import DESIGN, SETTINGS
from fairhuman.utils.files import free_name

DEPTH = 4  # folders below a given one that are looked into
MOST_FOLDERS = 5000  # folders that are looked into
MOST_FILES = 1000  # files by which a folder is known to hold photos alone
PHOTOS = "photos"  # a data set that has nothing but pictures
STUDY = "study"  # a user study, whose pictures are no data set
PHOTO_FILES = PICTURE_SUFFIXES | {*CAPTION_SUFFIXES}


@dataclass
class Places:
    """Paths by the name that pages use; requests name places by these names, never by paths.

    Attributes:
        runs: folders of training runs.
        data: data sets.
        samples: folders of pictures that a model drew, for comparisons.
    """

    runs: dict[str, Path] = field(default_factory=dict)
    data: dict[str, Path] = field(default_factory=dict)
    samples: dict[str, Path] = field(default_factory=dict)


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a training run, begun or finished, of this or an earlier version."""
    has = {name for name in ("metrics.jsonl", "recipe.yaml", "summary.json") if (folder / name).is_file()}
    return "metrics.jsonl" in has or {"recipe.yaml", "summary.json"} <= has


def find_places(paths: Sequence[Path], form: str | None = None, *, again: bool = False) -> Places:
    """Runs, data sets and samples at and below `paths`; `form` is the format of a data set that is given itself.

    A look `again` leaves out a path that has nothing to show any more, or not yet.

    Raises:
        DataError: a path doesn't exist, or there is nothing to show in it.
    """
    places, roots = Places(), [path.resolve() for path in paths]
    for path in paths:
        try:
            _find(places, path, roots, form)
        except (DataError, OSError):
            if not again:
                raise
    return places


def _find(places: Places, path: Path, roots: Sequence[Path], form: str | None) -> None:
    """Add what is at and below one of the given paths."""
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder")
    root, before = path.resolve(), len(places.runs) + len(places.data) + len(places.samples)
    if path.is_dir() and form is None:
        if _kind(root) == STUDY:
            raise DataError(f"{path}: is a study; run `fairhuman study serve {shlex.quote(str(path))}`")
        found = {folder: kind for folder in _below(root) if (kind := _kind(folder)) not in (None, STUDY)}
        for folder, kind in found.items():
            if kind != PHOTOS or set(found.values()) != {PHOTOS}:  # photos alone are one data set, the root
                _add(places, place_name(folder, roots), folder, "data" if kind == PHOTOS else kind)
    if len(places.runs) + len(places.data) + len(places.samples) == before:
        try:
            source_kind(root, form)  # says what is wrong
        except DataError:
            if root.is_dir() and _waits(root):  # what comes appears by itself
                return
            raise
        places.data[free_name(printable(root.name), places.data.__contains__)] = root


def _waits(folder: Path) -> bool:
    """Whether a folder holds at most runs that the studio started and that write no metrics yet, with their logs."""
    return all(
        one.suffix == ".log" or one.with_name(f"{one.name}.log").is_file() or (one.is_dir() and _waits(one))
        for one in folder.iterdir()
    )


def _add(places: Places, name: str, folder: Path, kind: str) -> None:
    found: dict[str, Path] = getattr(places, kind)
    if folder not in found.values():
        found[free_name(name, found.__contains__)] = folder


def _kind(folder: Path) -> str | None:
    if is_run(folder):
        return "runs"
    if (folder / SETTINGS).is_file() and (folder / DESIGN).is_file():
        return STUDY
    if (folder / REPORT).is_file() and (folder / "manifest").is_dir():
        return "data"
    with suppress(OSError):
        if has_metadata(folder):
            return "data"
        if _holds_samples(folder):
            return "samples"
        if _holds_photos(folder):
            return PHOTOS
    return None


def _holds_samples(folder: Path) -> bool:
    """Whether a folder holds pictures with the record that `fairhuman sample` writes into each."""
    with os.scandir(folder) as entries:
        pictures = [one.name for one in entries if one.name.lower().endswith(".png") and not one.name.startswith(".")]
    if not pictures:
        return False
    with (folder / min(pictures)).open("rb") as file:
        return b"fairhuman" in file.read(4096)


def _holds_photos(folder: Path) -> bool:
    """Whether the first files of a folder, at any depth, are pictures, their captions and changes, and nothing else."""
    pictures = looked = 0
    for inner, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            suffix = Path(name).suffix.lower()
            if suffix not in PHOTO_FILES and name != EDITS and not name.startswith("."):
                return False
            pictures += suffix in PICTURE_SUFFIXES
        if _holds_samples(Path(inner)):
            return False
        looked += len(files)
        if looked > MOST_FILES:
            break
    return pictures > 0


def _below(root: Path) -> Iterator[Path]:
    """The folder and those below it, in order; nothing below a run, a data set, samples or a study; none hidden."""
    waiting, looked = [(root, 0)], 0
    while waiting and looked < MOST_FOLDERS:
        folder, depth = waiting.pop(0)
        looked += 1
        yield folder
        if depth == DEPTH or _kind(folder) is not None:
            continue
        with suppress(OSError), os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            waiting += [(folder / name, depth + 1) for name in names if not name.startswith(".")]


def place_name(folder: Path, roots: Sequence[Path]) -> str:
    """What pages call a folder at or below one of the given ones, all resolved."""
    root = next(root for root in roots if folder.is_relative_to(root))
    inner = folder.relative_to(root).as_posix()
    if inner == ".":
        return printable(root.name)
    return printable(f"{root.name}/{inner}" if len(roots) > 1 else inner)
