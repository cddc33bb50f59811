"""Create a study from folders of pictures: draw items, anonymise the pictures, and plan the trials."""

import os
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image

from fairhuman import config
from fairhuman.compare.grid.frames import Detect, detected_frames
from fairhuman.compare.grid.zoom import ZoomFrame, cut
from fairhuman.data.pictures.decode import decode, inspect
from fairhuman.data.pictures.stored import PictureError
from fairhuman.detect.detection import LazyPictures, Picture
from fairhuman.errors import DataError, RecipeError
from fairhuman.study.balance import shuffled
from fairhuman.study.candidates import Candidate, Candidates, find_candidates
from fairhuman.study.design import make_trials
from fairhuman.study.equal import equal_notes, pixel_digest
from fairhuman.study.pictures import (
    SHARP,
    Recoding,
    degraded_versions,
    equalized,
    fit_to_smallest,
    smallest_size,
    write_alike,
)
from fairhuman.study.study import (
    CREATION,
    DESIGN,
    PICTURES,
    PRIVATE,
    SETTINGS,
    Design,
    StudyItem,
    StudySettings,
    save_design,
)
from fairhuman.study.traces import SourceTrace, recoding_of, trace_notes, trace_of
from fairhuman.utils.digest import digests_of
from fairhuman.utils.files import alone, write_atomically, write_json, writing

ZOOM = 384  # side of a close-up in pixels
Say = Callable[[str], None]
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class PictureGroup:
    """Pictures that are shown together: an item by all methods, or an attention check.

    Attributes:
        source: the prompt, and its picture by each method.
        check_of: the method from whose picture an attention check is made; None: an item.
        recoding: what all pictures go through; None: nothing.
    """

    source: Candidate
    check_of: str | None = None
    recoding: Recoding | None = None

    def load(self, shown: int) -> dict[str, Image.Image]:
        """All pictures of the group in the same size.

        Raises:
            PictureError: a picture can't be decoded.
        """
        files = self.source.pictures if self.check_of is None else {SHARP: self.source.pictures[self.check_of]}
        decoded = {name: decode(file).picture for name, file in files.items()}
        alike = fit_to_smallest(decoded) if self.recoding is None else equalized(decoded, self.recoding)
        return alike if self.check_of is None else degraded_versions(alike[SHARP], shown)


def create_study(
    folder: Path,
    methods: Mapping[str, Path],
    prompts: Path | None,
    settings: StudySettings,
    say: Say,
    *,
    leave_out: Path | None = None,
    zoom_on: str | None = None,
    detect: Detect | None = None,
    progress: Progress = lambda *_: None,
    secret: str | None = None,
) -> Design:
    """Create a study atomically: an interrupted call leaves no study, and the same call starts again.

    Args:
        folder: a new or empty folder.
        methods: name to a folder of pictures.
        prompts: text file with one prompt per line; may be None if the pictures store their prompts.
        settings: settings of the study.
        say: called with notes for the researcher, which are also stored in `creation.json`.
        leave_out: text file with prompts or picture file names to exclude, one per line.
        zoom_on: method whose detected faces and hands define the close-ups of all methods; None: the first.
        detect: returns boxes by part in an RGB picture; by default MediaPipe's detectors.
        progress: called with (task, done, total).
        secret: 32 hexadecimal digits that decide the design together with the seed, to make the design of an earlier
            study again; None: a new one. Kept in `creation.json`.

    Raises:
        RecipeError: too few methods or prompts for the settings.
        DataError: the folder holds a study already, or pictures, prompts or lines of `leave_out` don't match.
        DetectorError: the detectors can't be loaded, or fail.
        FairHumanError: the folder can't be written.
    """
    check_folder(folder)
    candidates = check_candidates(methods, prompts, settings, leave_out, zoom_on)
    started, zoomed = int(time.time()), zoom_on or next(iter(methods))
    hidden = secrets.token_hex(16) if secret is None else secret
    made: list[Design] = []

    def write(partial: Path) -> None:
        (partial / PICTURES).mkdir(parents=True)
        groups, damaged, equal = _draw(candidates, list(methods), settings, progress)
        frames = _frames(groups, zoomed, settings, detect)
        items, resized = _write_items(groups, frames, partial / PICTURES, settings.shown, progress)
        trials = make_trials(settings, list(methods), items[settings.items :], hidden)
        design = Design(tuple(methods), tuple(items), trials)
        notes = [*candidates.notes, *equal, *_notes(candidates, damaged, resized, frames, zoomed, settings)]
        for file in (partial / PICTURES).iterdir():
            os.utime(file, (started, started))  # timestamps would reveal the order of creation
        left_out = [*candidates.left_out, *damaged]
        _save(partial, design, methods, settings, notes, left_out, hidden)
        made.append(design)
        for text in [*notes, *left_out]:
            say(text)

    with (
        writing(folder),
        alone(folder.with_name(f".{folder.name}.lock"), f"{folder}: another process is creating this study"),
    ):
        check_folder(folder)
        write_atomically(folder, write, PRIVATE)
    return made[0]


def _save(
    folder: Path,
    design: Design,
    methods: Mapping[str, Path],
    settings: StudySettings,
    notes: Sequence[str],
    left_out: Sequence[str],
    secret: str,
) -> None:
    config.save(settings, folder / SETTINGS)
    content = {
        "methods": {name: str(place) for name, place in methods.items()},
        "notes": notes,
        "left_out": left_out,
        "settings": settings.model_dump(mode="json"),
        "secret": secret,
        "digests": digests_of(folder / PICTURES),
    }
    write_json(folder / CREATION, content, private=True)
    save_design(design, folder)


def check_folder(folder: Path) -> None:
    """Check that a folder is new or empty.

    Raises:
        DataError: it holds a study or anything else, or isn't a folder.
    """
    if (folder / SETTINGS).exists() or (folder / DESIGN).exists():
        raise DataError(f"{folder}: holds a study already; give another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: a study needs a new or empty folder")


def check_candidates(
    methods: Mapping[str, Path],
    prompts: Path | None,
    settings: StudySettings,
    leave_out: Path | None,
    zoom_on: str | None,
) -> Candidates:
    """Find the candidates and check that there are enough; raises the errors of `create_study`."""
    if settings.shown > len(methods) > 1:
        raise RecipeError(f"shown must be at most the number of methods, {len(methods)}; found {settings.shown}")
    if zoom_on is not None and zoom_on not in methods:
        raise RecipeError(f"zoom_on must be one of {', '.join(methods)}, found {zoom_on!r}")
    candidates = find_candidates(methods, prompts, leave_out)
    _enough(len(candidates.rows), settings.items, candidates.left_out)
    return replace(candidates, notes=[*candidates.notes, *trace_notes(_traces(candidates), settings.equalize)])


def _traces(candidates: Candidates) -> list[dict[str, SourceTrace]]:
    return [{name: trace_of(file) for name, file in row.pictures.items()} for row in candidates.rows]


def _enough(rows: int, items: int, left_out: Sequence[str]) -> None:
    if rows < items:
        first = f"; {len(left_out)} were excluded, the first is {left_out[0]}" if left_out else ""
        most = f"; --pairs {rows} takes all of them" if rows else ""
        raise RecipeError(f"items must be at most the number of usable prompts, {rows}; found {items}{most}{first}")


def _draw(
    candidates: Candidates, methods: Sequence[str], settings: StudySettings, progress: Progress
) -> tuple[list[PictureGroup], list[str], list[str]]:
    """Draw items and checks; returns them, descriptions of undecodable pictures, whose prompts are replaced, and notes
    on items of which methods have equal pictures.
    """
    generator = np.random.default_rng([settings.seed, 0])
    rows = [candidates.rows[place] for place in shuffled(len(candidates.rows), generator)]
    damaged: list[str] = []
    usable = _usable(rows, damaged)
    items, digests = [], []
    for row, digest in islice(usable, settings.items):
        items.append(row)
        digests.append(digest)
        progress("draw", len(items), settings.items)
    _enough(len(items), settings.items, damaged)
    equal = equal_notes(digests, [next(iter(row.pictures.values())).name for row in items])
    # Checks use prompts that aren't items, if there are enough.
    spare = [row for row, _ in islice(usable, settings.checks)] or items
    first = int(generator.integers(len(methods)))
    recoding = recoding_of(_traces(candidates)) if settings.equalize else None
    checks = [
        PictureGroup(spare[number % len(spare)], methods[(first + number) % len(methods)], recoding)
        for number in range(settings.checks)
    ]
    return [*(PictureGroup(row, recoding=recoding) for row in items), *checks], damaged, equal


def _usable(rows: Sequence[Candidate], damaged: list[str]) -> Iterator[tuple[Candidate, dict[str, str]]]:
    """The rows whose pictures can all be decoded, with the digest of each method's pixels."""
    for row in rows:
        try:
            digests = {name: pixel_digest(decode(file).picture) for name, file in row.pictures.items()}
        except PictureError as error:
            damaged.append(f"{row.label()}: {error}")
        else:
            yield row, digests


def _frames(
    groups: Sequence[PictureGroup], zoom_on: str, settings: StudySettings, detect: Detect | None
) -> list[dict[str, ZoomFrame]]:
    """Close-up frames of each group; none unless a question shows close-ups."""
    if not any(question.zoom for question in settings.questions):
        return [{} for _ in groups]

    def guide(group: PictureGroup) -> Picture:
        """The picture of a group in which faces and hands are detected."""
        return np.asarray(group.load(settings.shown)[zoom_on if group.check_of is None else SHARP])

    return detected_frames(LazyPictures(groups, guide), detect)


def _write_items(
    groups: Sequence[PictureGroup],
    frames: Sequence[Mapping[str, ZoomFrame]],
    folder: Path,
    shown: int,
    progress: Progress,
) -> tuple[list[StudyItem], dict[str, int]]:
    """Write all pictures and close-ups; returns the items, and the number of resized pictures by method."""
    items = []
    resized: dict[str, int] = {}
    for done, (group, of_group) in enumerate(zip(groups, frames, strict=True), 1):
        pictures = group.load(shown)
        if group.check_of is None:
            facts = {name: inspect(file) for name, file in group.source.pictures.items()}
            sizes = {name: (of.width, of.height) for name, of in facts.items()}
            for name, size in sizes.items():
                if size != smallest_size(sizes.values()):
                    resized[name] = resized.get(name, 0) + 1
        zooms: dict[str, tuple[str, ...]] = dict.fromkeys(pictures, ())
        for frame in of_group.values():
            cuts = write_alike({name: cut(picture, frame, ZOOM) for name, picture in pictures.items()}, folder)
            zooms = {name: (*names, cuts[name]) for name, names in zooms.items()}
        better = None if group.check_of is None else SHARP
        items.append(StudyItem(group.source.prompt, write_alike(pictures, folder), zooms, better))
        progress("write", done, len(groups))
    return items, resized


def _notes(
    candidates: Candidates,
    damaged: Sequence[str],
    resized: Mapping[str, int],
    frames: Sequence[Mapping[str, ZoomFrame]],
    zoom_on: str,
    settings: StudySettings,
) -> list[str]:
    left_out = len(candidates.left_out) + len(damaged)
    notes = [f"{settings.items} of {candidates.counted()}, drawn with seed {settings.seed}; {left_out} excluded."]
    notes += [
        f"{name}: {count} of {settings.items} pictures were downscaled or centre-cropped to the smallest size of their "
        "item."
        for name, count in resized.items()
    ]
    if any(question.zoom for question in settings.questions):
        counts = [sum(part in of_item for of_item in frames[: settings.items]) for part in ("face", "hand")]
        notes.append(
            f"Close-ups show the largest face and hand detected in the pictures of {zoom_on}, at the same place for "
            f"all methods: a face in {counts[0]} and a hand in {counts[1]} of {settings.items} items."
        )
    return notes
