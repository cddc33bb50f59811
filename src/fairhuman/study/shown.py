"""The part of a study that participants may see: trials without methods, and their pictures.

The design stays on the server; what is served contains no methods, items or attention checks.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from fairhuman.errors import DataError
from fairhuman.study.study import CREATION, PICTURES, Design, StudyItem, StudySettings, Trial, load_digests, load_study
from fairhuman.utils.digest import DamageError, content_digest

TYPES: Mapping[str, str] = {".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}
_DAMAGED = f"{{}}: is damaged: differs from its digest in {CREATION}; restore it from a backup"


@dataclass(frozen=True)
class ShownTrial:
    """One trial as a participant sees it.

    Attributes:
        prompt: None if the study doesn't show prompts.
        pictures: file names from left to right.
        zooms: file names of the close-ups of each picture.
    """

    prompt: str | None
    pictures: tuple[str, ...]
    zooms: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class ShownStudy:
    """A study's folder and settings, and what each participant sees; only the database uses `design`.

    `digests` are those of the pictures, by file name; None: there are none, as the study was made by hand or by an
    earlier version.
    """

    folder: Path
    settings: StudySettings
    design: Design
    participants: tuple[tuple[ShownTrial, ...], ...]
    digests: Mapping[str, str] | None = None

    def pictures_of(self, participant: int) -> frozenset[str]:
        """File names of all pictures in this participant's trials."""
        return frozenset(
            name for trial in self.participants[participant] for name in _names(trial.pictures, trial.zooms)
        )

    def picture(self, name: str) -> bytes:
        """Bytes of the picture with this file name.

        Raises:
            DamageError: they aren't what was written.
            OSError: the file can't be read.
        """
        content = (self.folder / PICTURES / name).read_bytes()
        if self.digests is not None and self.digests.get(name) != content_digest(content):
            raise DamageError(_DAMAGED.format(self.folder / PICTURES / name))
        return content


def load_shown(folder: Path) -> ShownStudy:
    """Read a study's folder and check everything that serving it needs.

    Raises:
        RecipeError: its settings are missing or invalid.
        DataError: the folder is no study; its design is missing or invalid, a picture is missing or has an unsupported
            type, or the pictures of an item differ in file size or type, which would identify them.
        DamageError: a picture isn't what was written.
    """
    stored = load_study(folder)
    settings, design = stored.settings, stored.design
    for index, item in enumerate(design.items):
        _check_files(folder / PICTURES, index, item)
    participants = tuple(
        tuple(_shown(folder, design, trial, settings.show_prompt) for trial in trials) for trials in design.participants
    )
    if not participants or not all(participants):
        raise DataError(f"{folder}: the design must have participants, and every participant a trial")
    study = ShownStudy(folder, settings, design, participants, load_digests(folder))
    if study.digests is not None:
        for name in sorted({name for number in range(len(participants)) for name in study.pictures_of(number)}):
            study.picture(name)
    return study


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
    """Check that an item's pictures, and its close-ups of the same part, agree in file type and size."""
    counts = {len(item.zooms.get(method, ())) for method in item.pictures}
    if len(counts) > 1:
        raise DataError(f"{folder}: methods of item {index} have different numbers of close-ups: {sorted(counts)}")
    places = [tuple(item.pictures.values()), *zip(*(item.zooms.get(m, ()) for m in item.pictures), strict=True)]
    for names in places:
        found = {_from_outside(folder, name) for name in names}
        if len(found) > 1:
            sizes = ", ".join(f"{kind} of {size} bytes" for kind, size in sorted(found))
            raise DataError(f"{folder}: pictures of item {index} must be alike in kind and length, found {sizes}")


def _from_outside(folder: Path, name: str) -> tuple[str, int]:
    """Media type and size of a picture's file."""
    path = folder / name
    kind = TYPES.get(path.suffix.lower())
    if kind is None or Path(name).name != name:
        raise DataError(f"{path}: a picture's name must be plain and end in one of {', '.join(TYPES)}")
    if path.is_symlink():
        raise DataError(f"{path}: a picture must be a file of the study, not a link; copy it into the folder")
    try:
        return kind, path.stat().st_size
    except OSError as error:
        raise DataError(f"{path}: the picture can't be read: {error.strerror}") from error
