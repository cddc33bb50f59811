"""Refinement of a folder of pictures; running it again resumes an interrupted run.

Each picture is written atomically, then its row is appended to `refined.jsonl`; a picture without a row is refined
again with the same result. Unchanged pictures are copied byte for byte under their own names, refined ones are PNGs.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

from fairhuman import __version__, config
from fairhuman.config import Settings
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.data.sources.folder import PICTURE_SUFFIXES, PictureWithCaption, find_pictures, read_caption
from fairhuman.data.sources.prompts import prompt_numbers
from fairhuman.detect.detection import Picture
from fairhuman.detect.guard import Guarded
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError
from fairhuman.refine.attempts import ATTEMPTS, Shots, add_attempts, attempt_shot, forget_others
from fairhuman.refine.canvas import Canvas
from fairhuman.refine.conditions import open_conditions
from fairhuman.refine.inpaint import Painter
from fairhuman.refine.parts import PartsDetector, PictureParts, open_parts_detector
from fairhuman.refine.picture import REFINED, PartRow, RefineTools, picture_outcome, refine_picture
from fairhuman.refine.regions import DetectionError, open_regions
from fairhuman.refine.settings import RefineSettings
from fairhuman.utils.files import alone, natural_path_order, write_atomically
from fairhuman.utils.journal import Journal, read_rows, write_rows

RECIPE, ROWS, LOCK = "refine.yaml", "refined.jsonl", ".refine.lock"
NEEDED: dict[str, type] = {"name": str, "given": str, "output": str, "sha256": str}  # of a row
ANIMATED = "animated"

Opener = Callable[[], AbstractContextManager[Painter]]
Progress = Callable[[str, int, int], None]


class RefineManifest(Settings):
    """Settings with which a folder of refined pictures was started."""

    images: str
    prompts: str | None
    settings: RefineSettings


@dataclass(frozen=True, slots=True)
class RefineSource:
    """One picture to refine; `prompt` comes from the prompts or caption file, not from the picture itself."""

    name: str
    path: Path
    prompt: str


@dataclass(frozen=True, slots=True)
class RefineOutcome:
    """Rows of all finished pictures in order, reasons of failures by name, and the number of newly refined pictures."""

    rows: Sequence[Mapping[str, Any]]
    failed: Mapping[str, str]
    new: int = field(default=0)


def list_sources(images: Path, prompts: Sequence[str] | None) -> list[RefineSource]:
    """The pictures of a folder (recursively, in natural order of their names), or a single picture file.

    A PNG's own prompt takes precedence; then the line of `prompts` (N pictures and P prompts give N / P consecutive
    pictures per prompt); then a caption file.

    Raises:
        DataError: there is no picture, the prompts can't be divided evenly, or two names differ only in their suffix,
            so that their results would have the same name.
    """
    report = LoadReport()
    if images.is_file() and images.suffix.lower() in PICTURE_SUFFIXES:
        root, found = images.parent, [PictureWithCaption(images.name, None)]
    elif images.is_dir():
        root = images
        found = sorted(find_pictures(images, report), key=lambda one: natural_path_order(one.name))
    else:
        raise DataError(f"{images}: expected a folder of pictures or a picture, found none")
    if report.skipped():
        first = report.skipped()[0]
        raise DataError(f"{images}: {first.file}: {first.reason} ({first.value})")
    if not found:
        raise DataError(f"{images}: holds no picture; supported suffixes are {', '.join(sorted(PICTURE_SUFFIXES))}")
    names: dict[str, str] = {}
    for one in found:
        other = names.setdefault(_png_name(one.name), one.name)
        if other != one.name:
            raise DataError(f"{images}: {other} and {one.name} would both become {_png_name(one.name)}; rename one")
    if prompts is not None:
        given = [prompts[number] for number in prompt_numbers(len(found), prompts, f"{images}: {len(found)} pictures")]
    else:
        given = [read_caption(root / one.caption, report) if one.caption is not None else "" for one in found]
    return [RefineSource(one.name, root / one.name, prompt) for one, prompt in zip(found, given, strict=True)]


def check_folders(images: Path, out: Path, manifest: RefineManifest) -> None:
    """Check that `out` is new or was started with the same settings; these may change until a picture is written.

    Raises:
        DataError: `out` contains `images` or lies within it, holds other files, or was started with other settings.
    """
    inside, outside = (images if images.is_dir() else images.parent).resolve(), out.resolve()
    if images.is_dir() and (inside == outside or inside in outside.parents or outside in inside.parents):
        raise DataError(f"{out}: must lie apart from the pictures in {images}")
    if not images.is_dir() and inside == outside:
        raise DataError(f"{out}: must not be the folder of {images.name}")
    if (out / RECIPE).is_file():
        earlier = config.load(RefineManifest, out / RECIPE)
        changed = {
            name: pair
            for name, pair in config.differences(earlier, manifest).items()
            if name.removeprefix("settings.") not in RefineSettings.EXECUTION
        }
        pictures_are_there = {path.name for path in out.iterdir()} - {RECIPE, ROWS, LOCK, ATTEMPTS}
        for name, (before, now) in changed.items() if pictures_are_there else ():
            raise DataError(f"{out}: was started with {name} {before!r}, not {now!r}; give another folder")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: holds other files and no {RECIPE}; give a new folder")


def finished_rows(out: Path, sources: Sequence[RefineSource]) -> dict[str, dict[str, Any]]:
    """Rows of the finished pictures by name, except those whose source or prompt changed or whose result is missing.

    Only reads, since another process may be writing.
    """
    rows = {row["name"]: row for row in read_rows(out / ROWS, **NEEDED)}
    done = {}
    for source in sources:
        row = rows.get(source.name)
        if row is None or row["given"] != source.prompt or not _is_output(row["output"], source.name, out):
            continue
        if row["sha256"] == _sha256_of(source.path):
            done[source.name] = row
    return done


def refine_folder(
    sources: Sequence[RefineSource],
    out: Path,
    manifest: RefineManifest,
    open_painter: Opener,
    progress: Progress = lambda *_: None,
    start_look: Callable[[RefineSettings, bool], AbstractContextManager[PartsDetector]] | None = None,
) -> RefineOutcome:
    """Refine all pictures that aren't finished yet, from `list_sources`, into a folder checked by `check_folders`.

    `open_painter` loads the model; it isn't called if everything is finished. `start_look` opens the detectors, given
    the settings and whether poses are needed; None: the default detectors in a separate process.

    Raises:
        DataError: another process is refining into `out`.
        DetectorError, ModelError: detectors or the model can't be loaded.
        OSError: `out` can't be written.
    """
    with alone(out / LOCK, f"{out}: another process is refining into it"):
        config.save(manifest, out / RECIPE)
        done = finished_rows(out, sources)
        journal = Journal(out / ROWS, **NEEDED)
        failed: dict[str, str] = {}
        waiting = [source for source in sources if source.name not in done]
        earlier = {row["name"]: row["output"] for row in journal}
        if waiting:
            with _open_tools(manifest.settings, open_painter, start_look or _guarded_look) as tools:
                for source in waiting:
                    try:
                        row = _refine(source, out, manifest.settings, tools, earlier.get(source.name))
                    except (PictureError, DetectionError) as error:
                        failed[source.name] = str(error)
                    else:
                        journal.add([row])
                        done[source.name] = row
                    progress("refine", len(done) + len(failed), len(sources))
        rows = [done[source.name] for source in sources if source.name in done]
        write_rows(out / ROWS, rows)  # one row per picture, in order
        if waiting:
            forget_others(out, list(done))
        return RefineOutcome(rows, failed, len(waiting) - len(failed))


def _refine(
    source: RefineSource, out: Path, settings: RefineSettings, tools: RefineTools, earlier: str | None
) -> dict[str, Any]:
    """Refine and write one picture; returns its row."""
    content = read_bytes(source.path)
    canvas = Canvas.read(content)
    prompt = canvas.texts.get("prompt") or source.prompt
    parts: list[PartRow] = []
    shots: Shots = {}
    if canvas.animated:
        result, outcome = canvas, ANIMATED
    else:
        result, parts = refine_picture(
            canvas,
            source.name,
            prompt,
            settings,
            tools,
            lambda part, attempt, picture: shots.update({(part, attempt): attempt_shot(picture)}),
        )
        outcome = picture_outcome(parts)
    output = _png_name(source.name) if outcome == REFINED else source.name
    plain = [part.plain() for part in parts]
    written = result.png({"refined": _png_note(settings, plain)}) if outcome == REFINED else content
    add_attempts(out, source.name, shots)
    write_atomically(out / output, lambda file: file.write_bytes(written))
    if earlier != output and earlier in (source.name, _png_name(source.name)):  # a stranger's row may name any file
        (out / str(earlier)).unlink(missing_ok=True)
    return {
        "name": source.name,
        "sha256": hashlib.sha256(content).hexdigest(),
        "output": output,
        "outcome": outcome,
        "prompt": prompt,
        "given": source.prompt,
        "parts": plain,
    }


def _is_output(name: str, source: str, out: Path) -> bool:
    """Whether `name` is what refining `source` writes, and is there."""
    return name in (source, _png_name(source)) and (out / name).is_file() and not (out / name).is_symlink()


@contextmanager
def _open_tools(
    settings: RefineSettings,
    open_painter: Opener,
    start_look: Callable[[RefineSettings, bool], AbstractContextManager[PartsDetector]],
) -> Iterator[RefineTools]:
    with ExitStack() as stack:
        painter = stack.enter_context(open_painter())
        conditions = stack.enter_context(open_conditions(settings, painter.follows))
        look = stack.enter_context(start_look(settings, "pose" in painter.follows))
        yield RefineTools(look, painter, conditions, stack.enter_context(open_regions(settings)))


@contextmanager
def _guarded_look(settings: RefineSettings, with_people: bool) -> Iterator[PartsDetector]:
    """The detectors in a separate process, so that a crash fails only one picture."""
    start = partial(open_parts_detector, settings, with_people)
    with Guarded[Picture, PictureParts](start, settings.seconds) as process:

        def look(picture: Picture) -> PictureParts:
            found = process.call(picture)
            if isinstance(found, Failure):
                raise DetectionError(f"detection failed: {found.reason}")
            return found

        yield look


def _png_note(settings: RefineSettings, parts: Sequence[Mapping[str, Any]]) -> str:
    """Text entry of a refined PNG: model, settings and refined parts, as JSON."""
    changed = [part for part in parts if part["outcome"] == REFINED]
    shown = {"model": settings.model, "lora": settings.lora, "seed": settings.seed, "strength": settings.strength}
    return json.dumps({"fairhuman": __version__, **shown, "parts": changed})


def _png_name(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".png"))


def _sha256_of(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # reported when the picture is read for refinement
        return None
