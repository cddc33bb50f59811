"""Notes on records: every record or field that is skipped, dropped or converted gets a note with the reason."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from fairhuman.errors import DataError
from fairhuman.record import Action, Finding
from fairhuman.report.text import listed, percent
from fairhuman.utils.files import write_json


@dataclass(frozen=True, slots=True)
class Note:
    """One finding with its location. `line` counts from 1 and is None for a file without lines."""

    file: str
    line: int | None
    stage: str
    action: Action
    reason: str
    value: str = ""

    @property
    def place(self) -> str:
        """`file:line`, or `file`."""
        return self.file if self.line is None else f"{self.file}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.action}, {self.reason}" + (f" ({self.value})" if self.value else "")


@dataclass
class LoadReport:
    """Notes in the order of their records, and counts of them; names of columns that nothing uses."""

    notes: list[Note] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def add(self, location: str, stage: str, finding: Finding) -> None:
        """Add a finding at a record's location (`file:line` or `file`)."""
        self.notes.append(note(location, stage, finding))

    def extend(self, notes: Iterable[Note]) -> None:
        """Add notes collected elsewhere, such as in a worker (see `Batch.notes`)."""
        self.notes.extend(notes)

    def add_new(self, notes: Iterable[Note]) -> list[Note]:
        """Add each of the notes that isn't there yet, once; return them."""
        known = set(self.notes)
        new = [entry for entry in dict.fromkeys(notes) if entry not in known]
        self.notes += new
        return new

    def forget(self, stage: str, finding: Finding) -> None:
        """Remove the notes of a stage that have the finding's action and reason."""
        removed = (stage, *finding[:2])
        self.notes = [entry for entry in self.notes if (entry.stage, entry.action, entry.reason) != removed]

    def unused_lines(self) -> list[str]:
        """One line that names the columns that nothing uses; none if there are none."""
        names = [repr(name) for name in dict.fromkeys(self.unused)]
        if not names:
            return []
        return [f"column {names[0]} is not used" if len(names) == 1 else f"columns {listed(names)} are not used"]

    def counts(self) -> dict[str, dict[str, int]]:
        """Number of notes by action, then by reason, most frequent first."""
        counted = Counter((entry.action, entry.reason) for entry in self.notes)
        by_action: dict[str, dict[str, int]] = {}
        for (action, reason), number in counted.most_common():
            by_action.setdefault(action, {})[reason] = number
        return by_action

    def skipped(self) -> list[Note]:
        """Notes of records that were left out."""
        return [entry for entry in self.notes if entry.action == "skipped"]

    def check_share(self, max_share: float, total: int) -> None:
        """Reject a source with too many skipped records.

        Raises:
            DataError: more than `max_share` (0..1) of `total` records were skipped; names the first ten reasons.
        """
        skipped = self.skipped()
        if len(skipped) <= max_share * total:
            return
        first = "".join(f"\n  {entry}" for entry in skipped[:10])
        raise DataError(
            f"{len(skipped)} of {total} records were skipped ({percent(len(skipped) / max(total, 1))}), "
            f"more than max_reject_share = {percent(max_share)}. The first reasons:{first}"
        )

    def save(self, path: Path) -> None:
        """Write counts and notes as JSON, atomically."""
        write_json(
            path,
            {"counts": self.counts(), "notes": [asdict(entry) for entry in self.notes], "unused_columns": self.unused},
        )


def note(location: str, stage: str, finding: Finding) -> Note:
    """Make a note of a finding: a location such as `metadata.jsonl:12` is file and line, any other is a file."""
    file, _, line = location.rpartition(":")
    if file and line.isdecimal() and len(line) < 10:
        return Note(file, int(line), stage, *finding)
    return Note(location, None, stage, *finding)
