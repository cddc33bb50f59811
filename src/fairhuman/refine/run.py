"""A folder of pictures: each is refined once, whatever ends the process; the same call again goes on.

A picture is written whole, then its row is added to `refined.jsonl`; a picture without a row is done again, and gives
the same. What wasn't changed is copied byte for byte under its own name, what was is a PNG.
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
from fairhuman.detect.detection import Picture
from fairhuman.detect.guard import Guarded
from fairhuman.detect.worker import Failure
from fairhuman.errors import DataError, FairHumanError
from fairhuman.refine.canvas import Canvas
from fairhuman.refine.conditions import open_conditions
from fairhuman.refine.inpaint import Painter
from fairhuman.refine.parts import Look, PictureParts, open_look
from fairhuman.refine.picture import REFINED, PartRow, RefineTools, counted, refine_picture
from fairhuman.refine.settings import RefineSettings
from fairhuman.utils.files import alone, write_atomically, write_text
from fairhuman.utils.journal import Journal

RECIPE, ROWS, LOCK = "refine.yaml", "refined.jsonl", ".refine.lock"
ANIMATED = "animated"

Opener = Callable[[], AbstractContextManager[Painter]]
Progress = Callable[[str, int, int], None]


class RefineManifest(Settings):
    """What a folder of refined pictures was begun with."""

    images: str
    prompts: str | None
    settings: RefineSettings


@dataclass(frozen=True, slots=True)
class RefineSource:
    """One picture to refine; `prompt` is what is known of it beside its own file."""

    name: str
    path: Path
    prompt: str


@dataclass(frozen=True, slots=True)
class RefineOutcome:
    """What a call found: the rows of all finished pictures in order, those left out and why, and how many were new."""

    rows: Sequence[Mapping[str, Any]]
    failed: Mapping[str, str]
    new: int = field(default=0)


class _NotSeenError(FairHumanError):
    """The detectors didn't come back from this picture."""


def list_sources(images: Path, prompts: Sequence[str] | None) -> list[RefineSource]:
    """The pictures of a folder at any depth by name, or the one of a file.

    A PNG's own prompt comes first; then the line of `prompts`, of which N pictures share P lines, N / P each in order;
    then a caption file.

    Raises:
        DataError: there is no picture; prompts that can't be shared out; two names that differ in their suffix alone,
            whose results would have one name.

    """
    report = LoadReport()
    if images.is_file() and images.suffix.lower() in PICTURE_SUFFIXES:
        root, found = images.parent, [PictureWithCaption(images.name, None)]
    elif images.is_dir():
        root, found = images, list(find_pictures(images, report))
    else:
        raise DataError(f"{images}: expected a folder of pictures or a picture, found neither")
    if report.skipped():
        first = report.skipped()[0]
        raise DataError(f"{images}: {first.file}: {first.reason} ({first.value})")
    if not found:
        raise DataError(f"{images}: holds no picture; known are {', '.join(sorted(PICTURE_SUFFIXES))}")
    if prompts is not None and len(found) % len(prompts):
        raise DataError(f"{images}: {len(found)} pictures can't be shared out among {len(prompts)} prompts evenly")
    names: dict[str, str] = {}
    for one in found:
        other = names.setdefault(_png_name(one.name), one.name)
        if other != one.name:
            raise DataError(f"{images}: {other} and {one.name} would both become {_png_name(one.name)}: rename one")
    sources = []
    for place, one in enumerate(found):
        prompt = prompts[place * len(prompts) // len(found)] if prompts is not None else ""
        if prompts is None and one.caption is not None:
            prompt = read_caption(root / one.caption, report)
        sources.append(RefineSource(one.name, root / one.name, prompt))
    return sources


def check_folders(images: Path, out: Path, started: RefineManifest) -> None:
    """Check that `out` is new or was begun by the same call; where no picture is done yet, settings may change.

    Raises:
        DataError: it lies in `images` or around it, holds other things, or was begun with other settings; names them.

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
            for name, pair in config.differences(earlier, started).items()
            if name.removeprefix("settings.") not in RefineSettings.EXECUTION
        }
        pictures_are_there = {path.name for path in out.iterdir()} - {RECIPE, ROWS, LOCK}
        for name, (before, now) in changed.items() if pictures_are_there else ():
            raise DataError(f"{out}: was begun with {name} {before!r}, not {now!r}; give another folder")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DataError(f"{out}: holds other things and no {RECIPE}; give a new folder")


def finished(out: Path, sources: Sequence[RefineSource]) -> dict[str, dict[str, Any]]:
    """Rows of the pictures that are done, by name; a source that has changed, or whose result is gone, isn't.

    Reads alone: another process may be writing.
    """
    if not (out / ROWS).is_file():
        return {}
    *lines, _ = (out / ROWS).read_text(encoding="utf-8").split("\n")  # what a killed process began has no end
    rows = {row["name"]: row for row in map(json.loads, lines)}
    done = {}
    for source in sources:
        row = rows.get(source.name)
        if row is None or row["given"] != source.prompt or not (out / row["output"]).is_file():
            continue
        if row["sha256"] == _sha256_of(source.path):
            done[source.name] = row
    return done


def refine_folder(
    sources: Sequence[RefineSource],
    out: Path,
    started: RefineManifest,
    open_painter: Opener,
    progress: Progress = lambda *_: None,
    start_look: Callable[[RefineSettings, bool], AbstractContextManager[Look]] | None = None,
) -> RefineOutcome:
    """Refine what isn't done yet.

    Args:
        sources: from `list_sources`.
        out: checked by `check_folders`.
        started: settings, and where pictures and prompts came from.
        open_painter: loads the model; not called where everything is done.
        progress: called with (what, done, all).
        start_look: what finds parts, given the settings and whether people are asked for; None = the detectors, in a
            process of their own.

    Raises:
        DataError: another process works in `out`.
        DetectorError, ModelError: detectors or the model can't be loaded.
        OSError: `out` can't be written.

    """
    with alone(out / LOCK, f"{out}: another process refines into it"):
        config.save(started, out / RECIPE)
        done = finished(out, sources)
        journal = Journal(out / ROWS)
        failed: dict[str, str] = {}
        waiting = [source for source in sources if source.name not in done]
        earlier = {row["name"]: row["output"] for row in journal}
        if waiting:
            with _open_tools(started.settings, open_painter, start_look or _guarded_look) as tools:
                for source in waiting:
                    try:
                        row = _refine(source, out, started.settings, tools, earlier.get(source.name))
                    except (PictureError, _NotSeenError) as error:
                        failed[source.name] = str(error)
                    else:
                        journal.add([row])
                        done[source.name] = row
                    progress("refine", len(done) + len(failed), len(sources))
        rows = [done[source.name] for source in sources if source.name in done]
        _compact(out / ROWS, rows)
        return RefineOutcome(rows, failed, len(waiting) - len(failed))


def _refine(
    source: RefineSource, out: Path, settings: RefineSettings, tools: RefineTools, earlier: str | None
) -> dict[str, Any]:
    """Refine and write one picture; the row of it."""
    content = read_bytes(source.path)
    canvas = Canvas.read(content)
    prompt = canvas.texts.get("prompt") or source.prompt
    parts: list[PartRow] = []
    if canvas.animated:
        result, outcome = canvas, ANIMATED
    else:
        result, parts = refine_picture(canvas, source.name, prompt, settings, tools)
        outcome = counted(parts)
    output = _png_name(source.name) if outcome == REFINED else source.name
    plain = [part.plain() for part in parts]
    written = result.png({"refined": _told(settings, plain)}) if outcome == REFINED else content
    write_atomically(out / output, lambda file: file.write_bytes(written))
    if earlier not in (None, output):
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


@contextmanager
def _open_tools(
    settings: RefineSettings,
    open_painter: Opener,
    start_look: Callable[[RefineSettings, bool], AbstractContextManager[Look]],
) -> Iterator[RefineTools]:
    with ExitStack() as stack:
        painter = stack.enter_context(open_painter())
        conditions = stack.enter_context(open_conditions(settings, painter.follows))
        look = stack.enter_context(start_look(settings, "pose" in painter.follows))
        yield RefineTools(look, painter, conditions)


@contextmanager
def _guarded_look(settings: RefineSettings, with_people: bool) -> Iterator[Look]:
    """The detectors in a process of their own: a crash costs one picture and not the run."""
    start = partial(open_look, settings, with_people)
    with Guarded[Picture, PictureParts](start, settings.seconds) as process:

        def look(picture: Picture) -> PictureParts:
            found = process.call(picture)
            if isinstance(found, Failure):
                raise _NotSeenError(f"the detectors didn't come back: {found.reason}")
            return found

        yield look


def _told(settings: RefineSettings, parts: Sequence[Mapping[str, Any]]) -> str:
    """What a refined PNG says of itself."""
    changed = [part for part in parts if part["outcome"] == REFINED]
    shown = {"model": settings.model, "lora": settings.lora, "seed": settings.seed, "strength": settings.strength}
    return json.dumps({"fairhuman": __version__, **shown, "parts": changed})


def _compact(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """One row a picture, in the order of the pictures."""
    write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def _png_name(name: str) -> str:
    return str(PurePosixPath(name).with_suffix(".png"))


def _sha256_of(path: Path) -> str | None:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:  # said where it is read to be refined
        return None
