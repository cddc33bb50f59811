"""What participants may see of a study: their trials without methods, and the pictures of these.

The design stays behind this. What is served knows no method, no item and no attention check.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairhuman import config
from fairhuman.errors import DataError
from fairhuman.study.study import PICTURES, SETTINGS, Design, StudyItem, StudySettings, Trial, load_design

TYPES: Mapping[str, str] = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".webp": "image/webp",
}


@dataclass(frozen=True)
class ShownTrial:
    """One trial as a participant sees it.

    prompt: None where the study doesn't show it.
    pictures: names of files, from left to right.
    zooms: of each picture the names of its enlarged faces and hands.
    """

    prompt: str | None
    pictures: tuple[str, ...]
    zooms: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ShownStudy:
    """A study's folder, its settings, and what each participant sees; `design` is for the database alone."""

    folder: Path
    settings: StudySettings
    design: Design
    participants: tuple[tuple[ShownTrial, ...], ...]

    def pictures_of(self, participant: int) -> frozenset[str]:
        """Names of the files that this participant's pages need."""
        return frozenset(
            name for trial in self.participants[participant] for name in _names(trial.pictures, trial.zooms)
        )


def load_shown(folder: Path) -> ShownStudy:
    """Read a study's folder and check all that serving it needs.

    Raises:
        RecipeError: its settings are missing or wrong.
        DataError: its design is missing or wrong; a picture is missing, or no browser's kind; the pictures of one item
            differ in length or kind, which would tell them apart without looking.

    """
    settings = config.load(StudySettings, folder / SETTINGS)
    design = load_design(folder)
    for index, item in enumerate(design.items):
        _check_files(folder / PICTURES, index, item)
    participants = tuple(
        tuple(_shown(folder, design, trial, settings.show_prompt) for trial in trials) for trials in design.participants
    )
    if not participants or not all(participants):
        raise DataError(f"{folder}: the design must have a participant, and a trial for each")
    return ShownStudy(folder, settings, design, participants)


def _shown(folder: Path, design: Design, trial: Trial, show_prompt: bool) -> ShownTrial:
    if not 0 <= trial.item < len(design.items):
        raise DataError(f"{folder}: a trial must show an item in 0..{len(design.items) - 1}, found {trial.item}")
    item = design.items[trial.item]
    unknown = [method for method in trial.shown if method not in item.pictures]
    if unknown or len(trial.shown) < 2:
        raise DataError(f"{folder}: a trial of item {trial.item} must show two or more of its pictures, found {trial}")
    return ShownTrial(
        prompt=item.prompt if show_prompt else None,
        pictures=tuple(item.pictures[method] for method in trial.shown),
        zooms=tuple(item.zooms.get(method, ()) for method in trial.shown),
    )


def _names(pictures: tuple[str, ...], zooms: tuple[tuple[str, ...], ...]) -> Iterator[str]:
    yield from pictures
    for names in zooms:
        yield from names


def _check_files(folder: Path, index: int, item: StudyItem) -> None:
    """Pictures of an item that stand at the same place must look alike from outside."""
    counts = {len(item.zooms.get(method, ())) for method in item.pictures}
    if len(counts) > 1:
        raise DataError(f"{folder}: item {index} has different numbers of enlarged regions: {sorted(counts)}")
    places = [tuple(item.pictures.values()), *zip(*(item.zooms.get(m, ()) for m in item.pictures), strict=True)]
    for names in places:
        found = {_from_outside(folder, name) for name in names}
        if len(found) > 1:
            sizes = ", ".join(f"{kind} of {size} bytes" for kind, size in sorted(found))
            raise DataError(f"{folder}: pictures of item {index} must be alike in kind and length, found {sizes}")


def _from_outside(folder: Path, name: str) -> tuple[str, int]:
    """Media type and length of a picture's file."""
    path = folder / name
    kind = TYPES.get(path.suffix.lower())
    if kind is None or Path(name).name != name:
        raise DataError(f"{path}: a picture's name must be plain and end in one of {', '.join(TYPES)}")
    try:
        return kind, path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: the picture can't be read: {error.strerror}") from error
