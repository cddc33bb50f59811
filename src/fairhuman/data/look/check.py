"""Is everything in a data set usable? Each record is read and decoded, and what is wrong is counted and named."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

from fairhuman.data.look.reading import AS_IT_IS, open_dataset
from fairhuman.data.pictures.notes import LoadReport, Note
from fairhuman.data.sources import SourceSettings
from fairhuman.data.sources.rows import STAGE
from fairhuman.record import Action, Finding
from fairhuman.utils.files import write_json, writing

Progress = Callable[[str, int, int | None], None]  # stage, records done, records of all where that is known
SAME = Finding("warned", "same picture as another record")
LOST: tuple[Action, ...] = ("skipped", "dropped")
MEANING: dict[Action, str] = {
    "skipped": "records left out",
    "dropped": "parts of records left out",
    "converted": "used after a change",
    "warned": "used as they are",
}


@dataclass(frozen=True)
class CheckSummary:
    """What `check_dataset` found.

    Attributes:
        path, kind: the data set and its format.
        found: records, usable or not.
        usable: records that training would use.
        report: all notes, in the order of their files and lines.

    """

    path: Path
    kind: str
    found: int
    usable: int
    report: LoadReport

    @property
    def good(self) -> bool:
        """Whether nothing is lost: no record is skipped and none of its parts (box, mask, field) is dropped."""
        return self.usable > 0 and not any(note.action in LOST for note in self.report.notes)

    def lines(self, examples: int = 3) -> list[str]:
        """The summary as text: counts by action and reason, with the places of the first examples."""
        counts, first = self.report.counts(), self._first(examples)
        lines = [f"{self.path}: {self.usable} of {self.found} records can be used, read as {self.kind}"]
        for action in get_args(Action):
            if action in counts:
                lines.append(f"{action} ({MEANING[action]}): {sum(counts[action].values())}")
            for reason, number in counts.get(action, {}).items():
                lines.append(f"  {number} x {reason}")
                lines += [f"      {place(note)}" for note in first[action, reason]]
        return [printed(line) for line in lines]

    def save(self, path: Path) -> None:
        """Write everything as JSON, atomically.

        Raises:
            FairHumanError: it can't be written.

        """
        content = {
            "path": str(self.path),
            "format": self.kind,
            "found": self.found,
            "usable": self.usable,
            "good": self.good,
            "counts": self.report.counts(),
            "notes": [asdict(note) for note in self.report.notes],
        }
        with writing(path):
            write_json(path, content)

    def _first(self, examples: int) -> dict[tuple[Action, str], list[Note]]:
        first: dict[tuple[Action, str], list[Note]] = {}
        for note in self.report.notes:
            some = first.setdefault((note.action, note.reason), [])
            if len(some) < examples:
                some.append(note)
        return first


def check_dataset(
    path: Path,
    settings: SourceSettings = AS_IT_IS,
    regions: Sequence[str] = (),
    progress: Progress = lambda _stage, _done, _all: None,
) -> CheckSummary:
    """Read every record and decode every picture and painted mask; bad ones are noted, however many there are.

    Args:
        path: data set in any format.
        settings: of the source; its `max_reject_share` plays no part.
        regions: whose boxes are read beside those of faces, hands and persons.
        progress: told how many records were found usable so far, now and then.

    Raises:
        DataError: it can't be read at all.
        RecipeError: `settings.format` is none.

    """
    dataset = open_dataset(path, settings, regions)
    report = LoadReport()
    first_seen: dict[bytes, str] = {}
    usable, captioned = 0, False
    for seen in dataset.decoded(report):
        usable += 1
        captioned = captioned or "caption" in seen.row.values
        first = first_seen.setdefault(seen.sha256[:16], seen.row.location)
        if first != seen.row.location:
            report.add(seen.row.location, STAGE, SAME._replace(value=f"that of {first}"))
        if usable % 100 == 0:
            progress("check", usable, None)
    if usable and not captioned:
        report.add(str(path), STAGE, Finding("warned", "no record has a caption"))
    report.notes.sort(key=lambda note: (note.file, note.line or 0))
    progress("check", usable, usable)
    return CheckSummary(path, dataset.kind, usable + len(report.skipped()), usable, report)


def place(note: Note) -> str:
    """Where a note is from, and the value that it names."""
    where = note.file if note.line is None else f"{note.file}:{note.line}"
    return f"{where}  {note.value}" if note.value else where


def printed(text: str) -> str:
    """Text without control characters: a file's name may hold commands to the terminal."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
