"""Changes that people made to a data set by hand: a layer beside it that every reader lays over its rows.

`edits.jsonl` in a data set's folder, or `NAME.edits.jsonl` beside a single file, holds one change a line and is only
ever appended to. So the data set itself stays as it is, a build that is made again keeps the changes, and each of them
can be listed and undone. A line has `n` (its number from 1), `at` (UTC), the `key` of a picture, and one of

- `caption`: the text;
- `region` with `boxes` (a list of [x0, y0, x1, y1] in pixels of the upright picture; [] for none there; null for not
  annotated) and `mask` (a PNG of the picture's size in base64, white = region; null for none);
- `undo`: the number of a line that no longer counts. An undo can itself be undone;
- `lost`: what was wrong with a damaged line that somebody gave up; its `key` is empty, and it changes nothing.
"""

import base64
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairhuman.data.pictures.decode import PNG
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.columns import is_region_name
from fairhuman.data.sources.review import REVIEWED_AT
from fairhuman.data.sources.rows import (
    CAPTION,
    MAX_TEXT,
    STAGE,
    Row,
    keyed_rows,
    limited_lines,
    masks_of,
    printable,
    reading_table,
)
from fairhuman.errors import DataError
from fairhuman.record import Finding, region_column
from fairhuman.regions.boxes import shorten
from fairhuman.utils.files import alone, writing
from fairhuman.utils.journal import Journal, open_log
from fairhuman.utils.parse import parse_json

EDITS = "edits.jsonl"
BY_HAND = "hand"  # in the columns that name a detector or captioner
_SECOND = len("2026-01-01T00:00:00")
GONE = "change of a picture that isn't there"
MAX_BYTES, MAX_LINES = 2**30, 500_000  # of the file, which is in memory as a whole
Field = tuple[str, str]  # ("caption", "") or ("region", NAME)


@dataclass(frozen=True)
class Edit:
    """One change: the caption of a picture, or all of one region in it; or an undo.

    Attributes:
        n: number of its line.
        values: the line.
    """

    n: int
    key: str
    values: Mapping[str, Any]

    @property
    def undoes(self) -> int | None:
        """The line that it takes back; None: it is no undo."""
        undone: int | None = self.values.get("undo")
        return undone

    @property
    def lost(self) -> bool:
        """Whether it stands for a damaged line that was given up."""
        return "lost" in self.values

    @property
    def field(self) -> Field:
        """What it changes."""
        return ("caption", "") if "caption" in self.values else ("region", self.values["region"])

    def text(self) -> str:
        """The change in words."""
        if self.undoes is not None:
            return f"undoes {self.undoes}"
        if self.lost:
            return f"damaged: {self.values['lost']}"
        if "caption" in self.values:
            return f"caption: {self.values['caption']}"
        boxes, mask = self.values.get("boxes"), self.values.get("mask")
        parts = [] if mask is None else ["painted"]
        if boxes is None and mask is None:
            parts = ["not annotated"]
        elif boxes is not None:
            parts.append(f"{len(boxes)} box{'' if len(boxes) == 1 else 'es'}" if boxes else "none there")
        return f"{self.values['region']}: {', '.join(parts)}"


class Edits:
    """The changes beside a data set, in the order in which they were made."""

    def __init__(self, lines: Sequence[Edit] = ()) -> None:
        self.lines: list[Edit] = []
        self._of: dict[str, list[Edit]] = {}
        for line in lines:
            self.take(line)

    def take(self, line: Edit) -> None:
        """Append a line that is on disk."""
        self.lines.append(line)
        if not line.lost:
            self._of.setdefault(line.key, []).append(line)

    def changed_keys(self) -> set[str]:
        """Keys of all pictures with a change, also one that was undone."""
        return set(self._of)

    def version(self, key: str) -> int:
        """Number of a picture's last line; 0 without any."""
        lines = self._of.get(key)
        return lines[-1].n if lines else 0

    def standing(self, key: str) -> dict[Field, Edit]:
        """The changes of a picture that count, by what they change."""
        return {line.field: line for line in self._alive(key) if line.undoes is None}

    def without_effect(self) -> dict[int, str]:
        """The lines that don't count, by number, each with the reason."""
        found = {line.n: "given up" for line in self.lines if line.lost}
        for key, lines in self._of.items():
            undone, standing = self._undone(key), self.standing(key)
            for line in lines:
                if line.n in undone:
                    found[line.n] = f"undone by {undone[line.n]}"
                elif line.undoes is None and standing[line.field] is not line:
                    found[line.n] = f"replaced by {standing[line.field].n}"
        return found

    def next_undo(self, key: str) -> Edit | None:
        """The last change that counts; None: there is none."""
        return next((line for line in reversed(self._alive(key)) if line.undoes is None), None)

    def next_redo(self, key: str) -> Edit | None:
        """The last undo after which nothing new was changed; None: there is none."""
        alive = self._alive(key)
        changes = {line.n for line in self._of.get(key, ()) if line.undoes is None}
        last = max(changes, default=0)
        return next((line for line in reversed(alive) if line.undoes in changes and line.n > last), None)

    def regions(self) -> tuple[str, ...]:
        """Names of all regions with a standing change, in alphabetical order."""
        return tuple(sorted({name for key in self._of for kind, name in self.standing(key) if kind == "region"}))

    def _alive(self, key: str) -> list[Edit]:
        undone = self._undone(key)
        return [line for line in self._of.get(key, ()) if line.n not in undone]

    def _undone(self, key: str) -> dict[int, int]:
        """The lines of a picture that were taken back, by number, each with the undo that holds."""
        undone: dict[int, int] = {}
        for line in reversed(self._of.get(key, ())):
            if line.n not in undone and line.undoes is not None:
                undone.setdefault(line.undoes, line.n)
        return undone


class DamagedLineError(DataError):
    """Line `number` of a file of changes can't be read, as `problem` says; `before` has the changes before it."""

    def __init__(self, file: Path, number: int, problem: str, before: Edits) -> None:
        super().__init__(f"{file}:{number}: {problem}")
        self.number, self.problem, self.before = number, problem, before


def edits_file(path: Path) -> Path:
    """Where the changes of a data set are."""
    return path / EDITS if path.is_dir() else path.with_name(f"{path.name}.{EDITS}")


def read_edits(path: Path) -> Edits:
    """The changes beside the data set at `path`; empty if there are none.

    Raises:
        DamagedLineError: a line is damaged; `undo.undo_edit` with its number gives it up.
        DataError: the file isn't what this module describes.
    """
    file = edits_file(path)
    if not os.path.lexists(file):
        return Edits()
    if file.is_symlink():
        raise DataError(f"{file}: must be a file, but is a link; delete it")
    edits, advice = Edits(), "restore the file from a backup, or delete it and its changes"
    try:
        with reading_table(file), file.open("rb") as opened:
            _check_size(file, opened.seek(0, os.SEEK_END), 0)
            opened.seek(0)
            for number, line in enumerate(limited_lines(file, opened), start=1):
                edit = _edit(file, number, line, edits)
                if edit is not None:
                    edits.take(edit)
    except DamagedLineError as error:
        error.args = (f"{error}; {advice}, or give up this line alone: {edits_command(path)} --undo {error.number}",)
        raise
    except DataError as error:
        raise DataError(f"{error}; {advice}") from error
    return edits


def edits_command(path: Path) -> str:
    """The command that lists the changes of a data set."""
    return f"fairhuman data edits {shlex.quote(str(path))}"


def _check_size(file: Path, size: int, lines: int) -> None:
    if size > MAX_BYTES or lines > MAX_LINES:
        found = f"{size:,} bytes" if size > MAX_BYTES else f"{lines:,} changes"
        raise DataError(f"{file}: must have at most {MAX_BYTES:,} bytes and {MAX_LINES:,} changes, found {found}")


def _edit(file: Path, number: int, line: bytes, before: Edits) -> Edit | None:
    """The change of a line; None for half a line at the end, of a process that was killed."""
    _check_size(file, 0, number)
    try:
        values = parse_json(line.decode("utf-8"))
    except ValueError as error:
        if not line.endswith(b"\n"):
            return None
        raise DamagedLineError(file, number, f"is not JSON: {error}", before) from error
    problem = line_problem(values, number, before) if isinstance(values, dict) else "must be a JSON object"
    if problem:
        raise DamagedLineError(file, number, problem, before)
    return Edit(number, values["key"], values)


def line_problem(line: Mapping[str, Any], number: int, before: Edits) -> str | None:
    """What is wrong with line `number` after those `before` it; None: nothing."""
    if type(line.get("n")) is not int or line["n"] != number:
        return f"n must be {number}, found {shorten(line.get('n'))}"
    if not isinstance(line.get("key"), str) or not isinstance(line.get("at", ""), str):
        return "key and at must be texts"
    fields = line.keys() - {"n", "at", "key"}
    if fields == {"undo"}:
        undone = line["undo"]
        earlier = before.lines[undone - 1] if type(undone) is int and 0 < undone < number else None
        fits = earlier is not None and (earlier.lost or earlier.key == line["key"])
        return None if fits else f"undo must be an earlier change of the same picture, found {shorten(undone)}"
    for name in ("caption", "lost"):
        if fields == {name}:
            return None if isinstance(line[name], str) else f"{name} must be a text"
    if "region" not in fields or fields - {"region", "boxes", "mask"}:
        return (
            f"must have a caption, a region with boxes and mask, or an undo, found {shorten(', '.join(sorted(fields)))}"
        )
    return _region_problem(line["region"], line.get("boxes"), line.get("mask"))


def _region_problem(region: Any, boxes: Any, mask: Any) -> str | None:
    if not isinstance(region, str) or not is_region_name(region):
        return f"region must be a name of letters, digits, _ and - that nothing else has, found {shorten(region)}"
    if boxes is not None and not (isinstance(boxes, list) and all(map(_is_box, boxes))):
        return f"boxes must be a list of [x0, y0, x1, y1], or null, found {shorten(boxes)}"
    if mask is not None and not (isinstance(mask, str) and _decoded(mask).startswith(PNG)):
        return f"mask must be a PNG in base64, or null, found {shorten(mask)}"
    return None


def _is_box(box: Any) -> bool:
    return isinstance(box, list) and len(box) == 4 and all(type(each) in (int, float) for each in box)


def edited_rows(rows: Iterable[Row], path: Path, picture_column: str, report: LoadReport) -> Iterator[Row]:
    """The rows with the changes beside the data set laid over them; a change of a picture that is gone is noted.

    Raises:
        DataError: as `read_edits`.
    """
    edits = read_edits(path)
    if not edits.lines:
        yield from rows
        return
    left = {key for key in edits.changed_keys() if edits.standing(key)}
    for key, row in keyed_rows(rows, picture_column):
        left.discard(key)
        yield edited(row, edits.standing(key))
    for key in sorted(left):
        report.add(edits_file(path).name, STAGE, Finding("warned", GONE, printable(key)))


def edited(row: Row, changes: Mapping[Field, Edit]) -> Row:
    """A row with changes in place of its own values."""
    if not changes:
        return row
    values = dict(row.values)
    masks: dict[str, Any] = masks_of(row)
    for (kind, name), edit in changes.items():
        if kind == "caption":
            if _reviewed_since(row, edit):
                continue
            values[CAPTION] = edit.values["caption"]
            if "caption_by" in values:
                values["caption_by"] = BY_HAND
            continue
        values[region_column(name)] = edit.values.get("boxes")
        for column in (f"{name}_scores", f"{name}_votes", f"{name}_persons"):
            if column in values:
                values[column] = None
        if f"{name}_by" in values:
            values[f"{name}_by"] = BY_HAND
        masks.pop(name, None)
        if edit.values.get("mask") is not None:
            masks[name] = {"bytes": _decoded(edit.values["mask"]), "path": None}
    if masks or values.get("masks") is not None:
        values["masks"] = masks
    return Row(row.location, values)


def _reviewed_since(row: Row, edit: Edit) -> bool:
    """Whether a reviewer decided on the caption after the change, and so with it in view; both times are UTC."""
    decided = row.values.get(REVIEWED_AT)
    return isinstance(decided, str) and str(edit.values.get("at", ""))[:_SECOND] < decided[:_SECOND]


def _decoded(mask: str) -> bytes:
    """The bytes of a mask; none if it is no base64."""
    try:
        return base64.b64decode(mask, validate=True)
    except ValueError:
        return b""


@contextmanager
def holding(path: Path) -> Iterator[None]:
    """Hold the changes of a data set for writing.

    Raises:
        DataError: another process holds them.
        FairHumanError: the folder can't be written.
    """
    file = edits_file(path)
    busy = f"{path}: another studio or command is changing this data set"
    advice = "a studio holds it from its first change until it ends: make the change there, or end it with Ctrl-C"
    with ExitStack() as held:
        with writing(file):
            held.enter_context(alone(file.with_name(f".{file.name}.lock"), busy, advice=advice))
        yield


class EditsWriter:
    """Appends changes; each is on disk when `add` returns. One process at a time holds it; use as a context manager.

    Raises:
        DataError: another process holds it, or the file is damaged.
        FairHumanError: the file can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.file = edits_file(path)
        self._path = path
        self._held = ExitStack()
        self._journal: Journal | None = None
        self.edits = Edits()

    def __enter__(self) -> "EditsWriter":
        with ExitStack() as held:
            held.enter_context(holding(self._path))
            self.edits = read_edits(self._path)
            with writing(self.file):
                if os.path.lexists(self.file):
                    self._journal = Journal(self.file)  # drops half a line of a process that was killed
            self._held = held.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._held.close()

    def add(self, key: str, values: Mapping[str, Any]) -> Edit:
        """Append a change of a picture: `caption`, or `region` with `boxes` and `mask`, or `undo`.

        Raises:
            DataError: the change, or the file with it, is larger than readers take.
            FairHumanError: the file can't be written.
        """
        number = self.edits.lines[-1].n + 1 if self.edits.lines else 1
        line = {"n": number, "at": datetime.now(UTC).isoformat(timespec="seconds"), "key": key, **values}
        with writing(self.file):
            self._check_room(number, line)
            self._journal = self._journal or Journal(self.file)
            length = self.file.stat().st_size
            try:
                self._journal.add([line])
            except BaseException:
                self._journal = None  # the next change opens it anew, which drops half a line
                with suppress(OSError), open_log(self.file) as file:
                    file.truncate(length)  # a whole line would count, and the next one get its number again
                raise
        edit = Edit(number, key, line)
        self.edits.take(edit)
        return edit

    def _check_room(self, number: int, line: Mapping[str, Any]) -> None:
        length = len(json.dumps(line)) + 1
        if length > MAX_TEXT:
            raise DataError(f"a change must have at most {MAX_TEXT:,} bytes, found {length:,}")
        try:
            _check_size(self.file, length + (self.file.stat().st_size if self.file.exists() else 0), number)
        except DataError as error:
            folder = shlex.quote(str(self._path))
            raise DataError(f"{error}; go on in a copy with all changes: fairhuman data export {folder} NEW") from error
