"""Check a data set: read and decode each record, and count and list the problems."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from fairhuman.data.look.reading import DEFAULT_SETTINGS, REGIONS, ignored_by_build, open_dataset
from fairhuman.data.pictures.decode import TRANSPARENT
from fairhuman.data.pictures.notes import LoadReport, Note
from fairhuman.data.samples.ignored import IgnoredArea
from fairhuman.data.sources import SourceSettings, source_format
from fairhuman.data.sources.check import STAGE as DECODE
from fairhuman.data.sources.columns import unused_columns
from fairhuman.data.sources.counts import PhotoCount
from fairhuman.data.sources.rows import STAGE, note_whole_source
from fairhuman.record import Action, Finding
from fairhuman.regions.ignore import IgnoredCount
from fairhuman.utils.files import write_json, writing
from fairhuman.utils.parse import escape_control

Progress = Callable[[str, int, int | None], None]  # stage, records done, total if known
DUPLICATE = Finding("warned", "same picture as another record")
LOST: tuple[Action, ...] = ("skipped", "dropped")
HINTS = {TRANSPARENT: "source.alpha=mask keeps the opacity as a mask"}
MEANING: dict[Action, str] = {
    "skipped": "records left out",
    "dropped": "parts of records left out",
    "converted": "used after a change",
    "warned": "used as they are",
}


@dataclass(frozen=True)
class CheckSummary:
    """Result of `check_dataset`.

    Attributes:
        path, kind: the data set and its format.
        found: number of records, usable or not.
        usable: number of records that training can use.
        report: all notes, in the order of their files and lines.
        photos: the usable records, with masks and repeats.
        ignored, ignored_area: in how many of them a part is ignored, and how much.
    """

    path: Path
    kind: str
    found: int
    usable: int
    report: LoadReport
    photos: PhotoCount = field(default_factory=PhotoCount)
    ignored: IgnoredCount = field(default_factory=IgnoredCount)
    ignored_area: IgnoredArea = field(default_factory=IgnoredArea)

    @property
    def good(self) -> bool:
        """Whether the data set is complete: no record is skipped and no part (box, mask, field) is dropped."""
        return self.usable > 0 and not any(note.action in LOST for note in self.report.notes)

    def lines(self, examples: int = 3) -> list[str]:
        """The summary as text: counts by action and reason, with the locations of the first examples."""
        counts, first = self.report.counts(), self._first(examples)
        lines = [f"{self.path}: {self.usable} of {self.found} records are usable, read as {self.kind}"]
        lines += [*self.photos.lines(), *self.ignored_area.lines(), *self.ignored.lines(), *self.report.unused_lines()]
        for action in get_args(Action):
            if action in counts:
                lines.append(f"{action} ({MEANING[action]}): {sum(counts[action].values())}")
            for reason, number in counts.get(action, {}).items():
                lines.append(f"  {number} x {reason}")
                lines += [f"      {note_text(note)}" for note in first[action, reason]]
                lines += [f"      {HINTS[reason]}"] if reason in HINTS else []
        return [escape_control(line) for line in lines]

    def save(self, path: Path) -> None:
        """Write the summary and all notes as JSON, atomically.

        Raises:
            FairHumanError: the file can't be written.
        """
        content = {
            "path": str(self.path),
            "format": self.kind,
            "found": self.found,
            "usable": self.usable,
            "good": self.good,
            "masks": self.photos.masks,
            "photos_with_repeats": self.photos.samples,
            "unused_columns": self.report.unused,
            "counts": self.report.counts(),
            "notes": [asdict(note) for note in self.report.notes],
        }
        with writing(path):
            write_json(path, content)

    def _first(self, examples: int) -> dict[tuple[Action, str], list[Note]]:
        first: dict[tuple[Action, str], list[Note]] = {}
        for note in self.report.notes:
            shown = first.setdefault((note.action, note.reason), [])
            if len(shown) < examples:
                shown.append(note)
        return first


def check_dataset(
    path: Path,
    settings: SourceSettings = DEFAULT_SETTINGS,
    regions: Sequence[str] = (),
    progress: Progress = lambda _stage, _done, _all: None,
) -> CheckSummary:
    """Read every record and decode every picture and painted mask; all bad ones are noted.

    Of a record whose picture can't be decoded nothing else is noted. Boxes are read of `regions` besides faces, hands
    and persons; `settings.max_reject_share` is ignored. `progress` is called now and then with the number of usable
    records so far.

    Raises:
        DataError: the data set can't be read.
        RecipeError: `settings.format` is unknown.
    """
    dataset = replace(open_dataset(path, settings, regions), captioned=True)
    report = LoadReport()
    first_seen: dict[bytes, str] = {}
    usable, photos, ignored = 0, PhotoCount(), IgnoredCount()
    area = IgnoredArea(regions=(*REGIONS, *regions), limits=settings.limits)
    columns: set[str] = set()
    held: dict[str, Any] = {}  # columns that hold something
    for decoded in dataset.decoded_records(report):
        usable += 1
        photos.add_record(decoded.record)
        ignored.add(decoded.record)
        area.add(decoded.record)
        columns |= decoded.row.values.keys()
        held |= {name: value for name, value in decoded.row.values.items() if value is not None and name != "masks"}
        first = first_seen.setdefault(decoded.sha256[:16], decoded.row.location)
        if first != decoded.row.location:
            report.add(decoded.row.location, STAGE, DUPLICATE._replace(value=f"that of {first}"))
        if usable % 100 == 0:
            progress("check", usable, None)
    left_out = {note.place for note in report.skipped() if note.stage == DECODE}
    report.notes = [note for note in report.notes if note.action == "skipped" or note.place not in left_out]
    if usable:
        note_whole_source(report, str(dataset.root), columns, settings, photos)
    for text in ignored_by_build(path, settings):
        report.add(str(path), STAGE, Finding("warned", "a setting has no effect on a data set that is built", text))
    report.unused += unused_columns([held], source_format(dataset.kind).picture, (*REGIONS, *regions))
    report.notes.sort(key=lambda note: (note.file, note.line or 0))
    progress("check", usable, usable)
    return CheckSummary(path, dataset.kind, usable + len(report.skipped()), usable, report, photos, ignored, area)


def note_text(note: Note) -> str:
    """Location and value of a note."""
    return f"{note.place}  {note.value}" if note.value else note.place
