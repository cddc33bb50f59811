"""Pictures of several methods or runs side by side, and what a person made of them."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fairhuman.compare.grid.matching import match_pictures, setting_notes
from fairhuman.errors import DataError
from fairhuman.studio.runs import RunView
from fairhuman.utils.files import write_text, writing
from fairhuman.utils.journal import Journal, read_rows

CHOICES, LEFT_OUT = "studio-choices.jsonl", "studio-left-out.txt"


@dataclass(frozen=True, slots=True)
class ComparedRow:
    """One prompt and seed, with each one's picture of it; `label` is the first picture's file name or the seed."""

    label: str
    prompt: str
    pictures: Mapping[str, Path]


@dataclass(frozen=True)
class Comparison:
    """The rows that all have, and notes on what differs between them."""

    rows: Sequence[ComparedRow]
    notes: Sequence[str] = field(default_factory=list)


def compare_samples(folders: Mapping[str, Path]) -> Comparison:
    """Rows of folders of pictures; those of `fairhuman sample` are matched by prompt and seed, others by name.

    Raises:
        DataError: the folders' pictures don't match.
    """
    lacking: list[str] = []
    matched = match_pictures(folders, lacking)
    if not matched:
        raise DataError(f"no prompt has a picture from each of {', '.join(folders)}")
    rows = [
        ComparedRow(
            next(iter(row.pictures.values())).file.name,
            row.prompt or "",
            {name: picture.file for name, picture in row.pictures.items()},
        )
        for row in matched
    ]
    return Comparison(rows, [*setting_notes(matched), *lacking])


def compare_runs(runs: Mapping[str, RunView]) -> Comparison:
    """Rows of runs' previews with the same caption and seed, each at the last step that its run drew.

    Raises:
        DataError: they have none in common.
    """
    drawn: dict[str, dict[tuple[str, str], tuple[int, Path]]] = {}
    for name, view in runs.items():
        drawn[name] = {}
        for row in view.previews():
            shots = [(shot["step"], shot["caption"]) for shot in row["steps"] if "caption" in shot]
            if shots:
                step, file = shots[-1]
                drawn[name][row["caption"], str(row["seed"])] = step, view.folder / file
    first = next(iter(drawn.values()))
    keys = [key for key in first if all(key in found for found in drawn.values())]
    if not keys:
        raise DataError(f"{', '.join(runs)} have no preview with the same caption and seed")
    rows = [
        ComparedRow(f"seed {seed}", caption, {name: found[caption, seed][1] for name, found in drawn.items()})
        for caption, seed in keys
    ]
    steps = {name: max(step for step, _ in found.values()) for name, found in drawn.items()}
    return Comparison(rows, [f"{name}: step {step}." for name, step in steps.items()])


class Choices:
    """Stars and notes on rows, in `studio-choices.jsonl` in a folder; each is on disk when it is set."""

    def __init__(self, folder: Path) -> None:
        self.file, self._left_out = folder / CHOICES, folder / LEFT_OUT
        self._lock = threading.Lock()

    def read(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Star and note of each row of a comparison, by the row's label and prompt.

        Raises:
            DataError: the file is damaged.
        """
        wanted = sorted(names)
        found = {}
        for row in read_rows(self.file, row=str, star=bool, note=str, names=list):
            if sorted(map(str, row["names"])) == wanted:
                found[row["row"]] = {"star": row["star"], "note": row["note"]}
        return found

    def set(self, names: Sequence[str], row: str, star: bool, note: str) -> None:
        """Set star and note of a row.

        Raises:
            FairHumanError: the file can't be written.
        """
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock, writing(self.file):
            Journal(self.file).add([{"at": at, "names": list(names), "row": row, "star": star, "note": note}])

    def leave_out(self, comparison: Comparison, names: Sequence[str]) -> tuple[Path, int]:
        """Write the file names of all rows without a star, for `study create --leave-out`; path and number of stars.

        Raises:
            DataError: no row has a star.
            FairHumanError: the file can't be written.
        """
        stars = {row for row, choice in self.read(names).items() if choice["star"]}
        kept = [row for row in comparison.rows if row_id(row) in stars]
        if not kept:
            raise DataError("no row has a star: star those that people should see")
        others = [row.label for row in comparison.rows if row_id(row) not in stars]
        with writing(self._left_out):
            write_text(self._left_out, "".join(f"{label}\n" for label in others))
        return self._left_out, len(kept)


def row_id(row: ComparedRow) -> str:
    """What choices name a row by."""
    return f"{row.label}: {row.prompt}"
