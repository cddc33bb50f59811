"""Pictures of several methods or runs side by side, and the stars and notes that a person gave them."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import itemgetter
from pathlib import Path
from typing import Any

from fairhuman.compare.grid.matching import MatchedRow, match_pictures, setting_notes
from fairhuman.errors import DataError
from fairhuman.generate.record import shown
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
    return Comparison(rows, [*_models(matched), *setting_notes(matched), *lacking])


def _models(rows: Sequence[MatchedRow]) -> list[str]:
    """A sentence for each part of the model that differs, such as its LoRA; from the text entries of the pictures."""
    drawn = {name: [row.pictures[name].entries for row in rows] for name in rows[0].pictures}
    notes = []
    for part, words in {"model": "Model", "lora": "LoRA", "mole": "MoLE", "control": "Control"}.items():
        found = {name: [_part(entries, part) for entries in of_one] for name, of_one in drawn.items() if of_one[0]}
        if len(set(map(tuple, found.values()))) > 1:
            notes.append(f"{words}: {'; '.join(f'{name}: {shown(of_one)}' for name, of_one in found.items())}.")
    return notes


def _part(entries: Mapping[str, str], part: str) -> str:
    name, weight = entries.get(part, ""), entries.get(f"{part}_weight")
    return f"{name} (weight {weight})" if name and weight else name


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
    """Stars and notes on rows; each is on disk when it is set.

    They are in `studio-choices.jsonl` in the first of the given folders that holds all that is compared, or else in the
    first one. A row names what was compared by its path from there, so that it is found however the studio is opened.
    Rows of earlier versions have the names that pages used.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._lock = threading.Lock()

    def read(self, compared: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        """Star and note of each row of a comparison, by the row's label and prompt; `compared` are folders by name.

        Raises:
            DataError: a file is damaged.
        """
        names, places = sorted(compared), sorted(compared.values())
        rows = []
        for folder in self._folders:
            for row in read_rows(folder / CHOICES, at=str, row=str, star=bool, note=str, names=list):
                said = sorted(map(str, row["names"]))
                if said == names or sorted(folder / name for name in said) == places:
                    rows.append(row)
        return {row["row"]: {"star": row["star"], "note": row["note"]} for row in sorted(rows, key=itemgetter("at"))}

    def set(self, compared: Mapping[str, Path], row: str, star: bool, note: str) -> None:
        """Set star and note of a row.

        Raises:
            FairHumanError: the file can't be written.
        """
        folder = self._folder(compared)
        places = [
            (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix() for path in compared.values()
        ]
        at = datetime.now(UTC).isoformat(timespec="seconds")
        with self._lock, writing(folder / CHOICES):
            Journal(folder / CHOICES).add([{"at": at, "names": places, "row": row, "star": star, "note": note}])

    def _folder(self, compared: Mapping[str, Path]) -> Path:
        holds_all = (one for one in self._folders if all(path.is_relative_to(one) for path in compared.values()))
        return next(holds_all, self._folders[0])

    def leave_out(self, comparison: Comparison, compared: Mapping[str, Path]) -> tuple[Path, int]:
        """Write the file names of all rows without a star, for `study create --leave-out`; path and number of stars.

        Raises:
            DataError: no row has a star.
            FairHumanError: the file can't be written.
        """
        stars = {row for row, choice in self.read(compared).items() if choice["star"]}
        kept = [row for row in comparison.rows if row_id(row) in stars]
        if not kept:
            raise DataError("no row has a star: star those that people should see")
        others = [row.label for row in comparison.rows if row_id(row) not in stars]
        path = self._folder(compared) / LEFT_OUT
        with writing(path):
            write_text(path, "".join(f"{label}\n" for label in others))
        return path, len(kept)


def row_id(row: ComparedRow) -> str:
    """What choices name a row by."""
    return f"{row.label}: {row.prompt}"
