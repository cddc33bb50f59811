"""The pictures of a data set with their regions, as a page lists, shows and changes them."""

import base64
import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fairhuman.data.look.built import add_records, build_source, rejected_groups
from fairhuman.data.look.reading import DataSet, open_dataset
from fairhuman.data.pictures.decode import decode, decode_mask
from fairhuman.data.pictures.encode import encode_jpeg
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.review.pictures import boxes_by_region, browser_picture
from fairhuman.data.sources import unedited_format
from fairhuman.data.sources.columns import is_region_name, region_name_problem
from fairhuman.data.sources.edits import Edit, Edits, EditsWriter, edited, edits_file, read_edits
from fairhuman.data.sources.imagefolder import metadata_files
from fairhuman.data.sources.review import REVIEWED
from fairhuman.data.sources.rows import Row, keyed_rows
from fairhuman.errors import DataError, FairHumanError
from fairhuman.record import HumanRecord
from fairhuman.regions.boxes import parse_boxes
from fairhuman.report.colours import colours
from fairhuman.studio.cells import boxes_around, mask_of, png_of, runs_of
from fairhuman.studio.outlines import draw_regions
from fairhuman.studio.settings import StudioSettings
from fairhuman.web.app import RefusedError

THUMB = 224  # pixels of the longer side
REJECTED = 2000  # rows of each reason that are listed
MOST_BOXES = 200
MAX_CAPTION = 10_000  # characters
STATES = ("has", "none", "unknown", "unsure")


@dataclass(slots=True)
class Entry:
    """One picture.

    Attributes:
        key: the one that changes name.
        row: the data set's own row, without changes.
        record: the record with the changes; None: it can't be used, as `problem` says.
        rejected: why a build left it out; None: it didn't.
    """

    key: str
    row: Row
    record: HumanRecord | None
    problem: str = ""
    rejected: str | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which pictures to list.

    Attributes:
        text: what the caption, the key or the place holds, in any case.
        source: the data set's own word for where a picture is from; empty: any.
        region, state: pictures with the region, with none, where it is unknown, or unsure: with a score below `below`.
        edited: only those with a change.
        group: `kept`, `broken`, or the reason for which a build left pictures out.
    """

    text: str = ""
    source: str = ""
    region: str = ""
    state: str = ""
    below: float = 0.5
    edited: bool = False
    group: str = "kept"


class DataView:
    """A data set; it is read in a thread of its own, and pictures are there as they come.

    The first studio that changes it holds it until it ends, and others can only look. What others change on disk comes
    with `reload`.
    """

    def __init__(self, path: Path, settings: StudioSettings) -> None:
        self.path, self._settings = path, settings
        self.entries: list[Entry] = []
        self.rejected: dict[str, list[Entry]] = {}
        self.regions: tuple[str, ...] = ()
        self.done = False
        self.problem = ""
        self.read_only = ""  # why nothing can be changed; empty: it can
        self._dataset: DataSet | None = None
        self._edits = Edits()
        self._writer: EditsWriter | None = None
        self._lock = threading.RLock()
        self._closed = False
        self._stamp = 0.0
        self.read_at = 0.0  # when the reading began that the numbers of pictures are of
        self.reload()

    def reload(self) -> None:
        """Read the data set again, in a thread."""
        thread = threading.Thread(target=self._load, name="studio data", daemon=True)
        with self._lock:
            self.entries, self.rejected, self.done, self.problem = [], {}, False, ""
            self.read_at = time.time()
            self._thread = thread
        thread.start()

    def wait(self) -> None:
        """Wait until all is read."""
        self._thread.join()

    def close(self) -> None:
        """Stop reading, and let others change the data set."""
        self._closed = True
        self.wait()
        with self._lock:
            if self._writer is not None:
                self._writer.__exit__()
                self._writer = None

    def _load(self) -> None:
        problem, rejected = "", dict[str, list[Entry]]()
        try:
            dataset = open_dataset(self.path, self._settings.source, self._settings.regions)
            with self._lock:
                if not self._is_current():
                    return
                entries, self._dataset = self.entries, dataset
                if self._writer is None:
                    self._edits = read_edits(self.path)
                    self.read_only = self._why_read_only()
                self.regions = dataset.regions
                self._stamp = _stamp(self.path)
            for entry in self._read(dataset):
                if self._closed or not self._is_current():
                    return
                entries.append(entry)
            rejected = self._rejected()
        except FairHumanError as error:
            problem = str(error)
        except OSError as error:
            problem = f"{error.filename or self.path}: can't be read: {error.strerror or error}"
        finally:
            with self._lock:
                if self._is_current():
                    self.problem, self.rejected, self.done = problem, rejected, True

    def _is_current(self) -> bool:
        """Whether this thread reads for the last `reload`."""
        return threading.current_thread() is self._thread

    def _why_read_only(self) -> str:
        if self._settings.read_only:
            return "this studio is read-only"
        folder = edits_file(self.path).parent
        return "" if os.access(folder, os.W_OK) else f"{folder} can't be written"

    def _take_writer(self) -> EditsWriter:
        """Hold the changes for writing, from the first one on; pictures that another program changed are read anew."""
        if self._writer is not None:
            return self._writer
        if self._dataset is None and not self.done:
            raise _still_reading()
        if self.read_only or self._dataset is None:
            raise RefusedError(403, f"Nothing can be changed: {self.read_only or self.problem}.")
        try:
            writer = EditsWriter(self.path).__enter__()
        except FairHumanError as error:
            raise RefusedError(403, f"Nothing can be changed: {error}.") from error
        before, self._writer, self._edits = self._edits, writer, writer.edits
        for entry in self.entries:
            if before.version(entry.key) != self._edits.version(entry.key):
                self._refresh(self._dataset, entry)
        self._stamp = _stamp(self.path)
        return writer

    def _refresh(self, dataset: DataSet, entry: Entry) -> None:
        """Lay the changes over a picture again; a region that is new in them is read from now on."""
        changed = (name for kind, name in self._edits.standing(entry.key) if kind == "region")
        regions = tuple(dict.fromkeys([*dataset.regions, *changed]))
        if regions != dataset.regions:
            self._dataset = dataset = replace(dataset, regions=regions)
            self.regions = regions
        fresh = self._entry(dataset, entry.key, entry.row)
        entry.record, entry.problem = fresh.record, fresh.problem

    def _read(self, dataset: DataSet) -> Iterator[Entry]:
        form = unedited_format(dataset.kind)
        for key, row in keyed_rows(form.read(self.path, LoadReport()), form.picture):
            yield self._entry(dataset, key, row)

    def _entry(self, dataset: DataSet, key: str, row: Row) -> Entry:
        report = LoadReport()
        record = dataset.record(edited(row, self._edits.standing(key)), report)
        skipped = [str(note) for note in report.skipped()]
        return Entry(key, row, record, "; ".join(skipped))

    def _rejected(self) -> dict[str, list[Entry]]:
        """What a build left out, by stage and reason."""
        groups = rejected_groups(self.path, REJECTED)
        source = build_source(self.path) if groups else None
        if source is not None:
            add_records(self.path, source, groups)
        return {
            f"{group.stage}: {group.reason}": [
                Entry(one.key or one.location, Row(one.location, {}), one.record, one.value, group.reason)
                for one in group.examples
            ]
            for group in groups
        }

    # What pages ask for

    def facts(self) -> dict[str, Any]:
        """What the list's page says before any picture."""
        entries = self.entries
        sources = Counter(_source(entry) for entry in entries if entry.record is not None)
        return {
            "done": self.done,
            "read_at": self.read_at,
            "problem": self.problem,
            "read_only": self.read_only,
            "all": len(entries),
            "regions": list(self.shown_regions()),
            "sources": [name for name, _ in sources.most_common(200) if name],
            "broken": sum(entry.record is None for entry in entries),
            "rejected": {reason: len(found) for reason, found in self.rejected.items()},
            "changed": self.done and _stamp(self.path) != self._stamp,
        }

    def shown_regions(self) -> tuple[str, ...]:
        """Regions with boxes, a mask or a change."""
        painted = dict.fromkeys(
            name for entry in self.entries if entry.record is not None for name in entry.record.masks
        )
        return tuple(dict.fromkeys([*self.regions, *painted, *self._edits.regions(), "ignore"]))

    def listed(self, wanted: Wanted) -> list[tuple[int, Entry]]:
        """The pictures that fit, with their numbers, in the order of the data set."""
        if wanted.group not in ("kept", "broken"):
            return [(number, entry) for number, entry in enumerate(self.rejected.get(wanted.group, ()))]
        fits = _fits(wanted)
        return [
            (number, entry)
            for number, entry in enumerate(self.entries)
            if (entry.record is None) == (wanted.group == "broken")
            and (not wanted.edited or self.is_changed(entry))
            and fits(entry)
        ]

    def is_changed(self, entry: Entry) -> bool:
        """Whether a change of a picture counts."""
        return bool(self._edits.standing(entry.key))

    def version(self, entry: Entry) -> int:
        """The number of a picture's last change; 0 without any."""
        return self._edits.version(entry.key)

    def entry(self, number: int, group: str = "kept", key: str = "") -> Entry:
        """A picture by its number; `key` is the one that the page knows it by, empty for any.

        Raises:
            RefusedError: there is none (404), it has another key by now (409), or it isn't read yet (503).
        """
        found: Sequence[Entry] = self.entries if group in ("kept", "broken") else self.rejected.get(group, ())
        if not 0 <= number < len(found):
            if not self.done:
                raise _still_reading()
            raise RefusedError(404, "There is no such picture in this data set.")
        if key not in ("", found[number].key):
            raise RefusedError(409, "The data set has changed on disk: open the picture again from the list.")
        return found[number]

    def picture(self, number: int, group: str = "kept") -> dict[str, Any]:
        """All of a picture but its pixels, JSON-ready; masks as runs of cells, `undo` and `redo` as the number of the
        change that they take back. `searched` names what looked for a region in vain, which is no proof of absence.
        """
        entry = self.entry(number, group)
        record = self._usable(entry)
        changes = self._edits.standing(entry.key)
        masks, notes = {}, []
        for name, mask in record.masks.items():
            try:
                masks[name] = _runs(mask, record.width, record.height, self._settings)
            except (PictureError, DataError) as error:
                notes.append(f"mask of {name}: {error}")
        return {
            "number": number,
            "key": entry.key,
            "width": record.width,
            "height": record.height,
            "caption": record.caption,
            "boxes": boxes_by_region(record),
            "scores": {name: scores_of(entry, name) for name in record.boxes if ("region", name) not in changes},
            "masks": masks,
            "searched": {
                name: by
                for name in self.regions
                if (by := entry.row.values.get(f"{name}_by")) and isinstance(by, str) and not record.annotated(name)
                if ("region", name) not in changes
            },
            "changed": sorted({name or kind for kind, name in changes}),
            "version": self.version(entry),
            "undo": _number(self._edits.next_undo(entry.key)),
            "redo": _number(self._edits.next_redo(entry.key)),
            "source": _source(entry),
            "split": record.split,
            "location": record.location,
            "notes": notes,
        }

    def check_region(self, name: str) -> None:
        """Whether a region may have this name; those that are there may, even if people can't name a new one so.

        Raises:
            RefusedError: it may not (422).
        """
        if name in self.regions and is_region_name(name):
            return
        known = self.shown_regions()
        if not (name in known and is_region_name(name)) and (problem := region_name_problem(name, known)):
            raise RefusedError(422, f"{problem}.")

    def thumbnail(self, number: int, group: str, side: int = THUMB, *, regions: bool = False) -> bytes:
        """A small JPEG, with `regions` those of the picture drawn on it. A picture that can't be decoded, such as a
        truncated file, can't be used from then on.

        Raises:
            RefusedError: the picture can't be read (404).
        """
        entry = self.entry(number, group)
        record = self._usable(entry)
        try:
            picture = decode(record.image, self._settings.source.limits, longest=side).picture
        except DataError as error:
            if isinstance(error, PictureError):  # not a lack of memory
                entry.record, entry.problem = None, str(error)
            raise RefusedError(404, f"This picture can't be shown: {error}.") from error
        picture.thumbnail((side, side), Image.Resampling.LANCZOS)
        if regions:
            palette = colours([*self.shown_regions(), *record.boxes, *record.masks])
            draw_regions(picture, record, palette, self._settings.source.limits)
        return encode_jpeg(picture, 80, subsampling=2)

    def pixels(self, number: int, group: str) -> tuple[bytes, str]:
        """The upright picture for a browser, and its media type.

        Raises:
            RefusedError: the picture can't be read (404).
        """
        record = self._usable(self.entry(number, group))
        try:
            return browser_picture(record, self._settings.source.limits)
        except (PictureError, DataError) as error:
            raise RefusedError(404, f"This picture can't be shown: {error}.") from error

    # What pages change

    def change(self, number: int, key: str, version: int, values: Mapping[str, Any]) -> dict[str, Any]:
        """Set the caption of a picture, or all of a region in it; on disk when this returns.

        Args:
            number, key: of the picture; numbers may have moved since the page was loaded.
            version: that the page has; another one was changed meanwhile.
            values: `caption`, or `region` with `boxes` and `runs`; boxes of a mask are those around its parts.

        Raises:
            RefusedError: nothing can be changed (403), the page has another version (409), a value is wrong (422), or
                the data set is still being read or the file can't be written (503): the same change may succeed later.
        """
        with self._lock:
            entry = self._writable(number, key, version)
            line = self._line(entry, values)
            return self._written(number, entry, line)

    def undo(self, number: int, key: str, version: int, again: bool) -> dict[str, Any]:
        """Take back the last change of a picture, or the last undo.

        Raises:
            RefusedError: as `change`; there is nothing to take back (409).
        """
        with self._lock:
            entry = self._writable(number, key, version)
            edit = self._edits.next_redo(entry.key) if again else self._edits.next_undo(entry.key)
            if edit is None:
                raise RefusedError(409, "There is nothing to redo." if again else "There is nothing to undo.")
            return self._written(number, entry, {"undo": edit.n})

    def _writable(self, number: int, key: str, version: int) -> Entry:
        self._take_writer()
        entry = self.entry(number)
        if entry.key != key:
            raise RefusedError(409, "The data set has changed on disk, so nothing was saved: open the picture again.")
        if self._edits.version(entry.key) != version:
            raise RefusedError(409, "This picture was changed in another window, so nothing was saved.")
        return entry

    def _written(self, number: int, entry: Entry, line: Mapping[str, Any]) -> dict[str, Any]:
        assert self._writer is not None
        assert self._dataset is not None
        try:
            self._writer.add(entry.key, line)
            self._stamp = _stamp(self.path)  # the first change makes a file
        except DataError as error:
            raise RefusedError(422, f"Nothing was saved: {error}.") from error
        except FairHumanError as error:
            raise RefusedError(503, f"Nothing was saved: {error}.") from error
        self._refresh(self._dataset, entry)
        return self.picture(number)

    def _line(self, entry: Entry, values: Mapping[str, Any]) -> dict[str, Any]:
        if values.get("caption") is not None:
            caption = " ".join(str(values["caption"]).split())
            if len(caption) > MAX_CAPTION:
                raise RefusedError(422, f"The caption has {len(caption)} characters; the limit is {MAX_CAPTION}.")
            return {"caption": caption}
        record = self._usable(entry)
        region, boxes, runs = str(values.get("region") or "").strip(), values.get("boxes"), values.get("runs")
        self.check_region(region)
        if boxes is not None:
            parsed, findings = parse_boxes(boxes, record.width, record.height)
            if parsed is None or findings or len(boxes) > MOST_BOXES:
                raise RefusedError(422, f"A box must lie inside the picture: {findings[0] if findings else boxes}.")
        if runs is None:
            return {"region": region, "boxes": boxes, "mask": None}
        try:
            mask_hw = mask_of(runs, record.width, record.height)
        except ValueError as error:
            raise RefusedError(422, f"{error}.") from error
        if not mask_hw.any():
            return {"region": region, "boxes": [], "mask": None}
        mask = base64.b64encode(png_of(mask_hw)).decode("ascii")
        return {"region": region, "boxes": boxes_around(mask_hw, MOST_BOXES), "mask": mask}

    def _usable(self, entry: Entry) -> HumanRecord:
        if entry.record is None:
            raise RefusedError(404, f"This picture can't be shown: {entry.problem or 'it is not there any more'}.")
        return entry.record


class DataViews:
    """The data sets of a studio; each is read when it is first asked for."""

    def __init__(self, settings: StudioSettings) -> None:
        self._settings = settings
        self._views: dict[Path, DataView] = {}
        self._lock = threading.Lock()

    def of(self, path: Path) -> DataView:
        """The view of a data set."""
        with self._lock:
            if path not in self._views:
                self._views[path] = DataView(path, self._settings)
            return self._views[path]

    def close(self) -> None:
        """Let others change the data sets."""
        for view in self._views.values():
            view.close()


def _still_reading() -> RefusedError:
    return RefusedError(503, "The data set is still being read; try again in a moment.", {"Retry-After": "1"})


def _fits(wanted: Wanted) -> Callable[[Entry], bool]:
    text = wanted.text.casefold()

    def fits(entry: Entry) -> bool:
        record = entry.record
        if text and text not in f"{entry.key} {entry.row.location} {record.caption if record else ''}".casefold():
            return False
        if wanted.source and _source(entry) != wanted.source:
            return False
        if not wanted.region or not wanted.state or record is None:
            return True
        if wanted.state == "unsure":
            return any(score is not None and score < wanted.below for score in scores_of(entry, wanted.region))
        return state_of(record, wanted.region) == wanted.state

    return fits


def scores_of(entry: Entry, region: str) -> list[float | None]:
    """The score of each box of a region, from the box itself or from a build's column; None where there is none."""
    boxes = (entry.record.boxes.get(region) if entry.record is not None else None) or ()
    column = entry.row.values.get(f"{region}_scores")
    if isinstance(column, list) and len(column) == len(boxes) and all(box.score is None for box in boxes):
        return [score if isinstance(score, int | float) and math.isfinite(score) else None for score in column]
    return [box.score for box in boxes]


def state_of(record: HumanRecord, region: str) -> str:
    """`has`, `none` or `unknown`."""
    return "has" if record.has(region) else "none" if record.annotated(region) else "unknown"


def _number(edit: Edit | None) -> int | None:
    return None if edit is None else edit.n


def _source(entry: Entry) -> str:
    value = entry.row.values.get("source")
    return value if isinstance(value, str) else entry.record.source if entry.record is not None else ""


def _runs(mask: Any, width: int, height: int, settings: StudioSettings) -> list[int]:
    grey = decode_mask(mask, settings.source.limits)
    if grey.size != (width, height):
        grey = grey.resize((width, height), Image.Resampling.BILINEAR)
    return runs_of(np.asarray(grey) > 127)


def _stamp(path: Path) -> float:
    """When the data set last changed, as far as its folder and its tables tell."""
    files = (*metadata_files(path), path / REVIEWED, path / "data") if path.is_dir() else ()
    times = [0.0]
    for file in (path, *files):
        with suppress(OSError):
            times.append(file.stat().st_mtime)
    return max(times)
