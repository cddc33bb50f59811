"""Candidate prompts of a study: those for which all methods have a picture, except those excluded by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairhuman.compare.grid.matching import MatchedRow, match_pictures, setting_notes
from fairhuman.data.sources.prompts import prompt_numbers, prompts_at
from fairhuman.errors import DataError, RecipeError
from fairhuman.report.text import prompt_count
from fairhuman.study.ranks import JOIN
from fairhuman.utils.files import read_prompts

TIE = "tie"  # in tables, the entry for a tie


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt and each method's picture of it."""

    prompt: str
    pictures: Mapping[str, Path]

    def label(self) -> str:
        """The first picture and the prompt, for messages."""
        return f"{next(iter(self.pictures.values())).name}, {self.prompt!r}"


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidates to draw from, reasons for excluded rows, and notes on differences between the methods' pictures."""

    rows: Sequence[Candidate]
    left_out: Sequence[str]
    notes: Sequence[str]

    def counted(self) -> str:
        """`8 prompts`, or `8 pictures of 3 prompts` where some are equal."""
        return prompt_count([row.prompt for row in self.rows])


def find_candidates(methods: Mapping[str, Path], prompts: Path | None, leave_out: Path | None) -> Candidates:
    """Match the methods' pictures, and exclude prompts that a method lacks or that `leave_out` names.

    Args:
        methods: name to a folder of pictures, see `fairhuman.compare.grid.matching`.
        prompts: text file with one prompt per line, or a data set; may be None if the pictures store their prompts.
        leave_out: text file with one prompt or picture file name per line.

    Raises:
        RecipeError: fewer than two methods, or a name that tables can't hold.
        DataError: pictures don't match each other or the prompts, or a line of `leave_out` matches nothing.
    """
    _check_names(methods)
    lacking: list[str] = []
    matched = match_pictures(methods, lacking)
    if not matched:
        raise DataError(f"no prompt has a picture from each of {', '.join(methods)}; {lacking[0]}")
    texts = _prompts(matched, prompts_at(prompts) if prompts is not None else None, prompts)
    rows = [
        Candidate(prompt, {name: drawn.file for name, drawn in row.pictures.items()})
        for row, prompt in zip(matched, texts, strict=True)
    ]
    named = _named(rows, read_prompts(leave_out), leave_out) if leave_out is not None else set()
    by_hand = [f"{row.label()}: excluded by hand" for place, row in enumerate(rows) if place in named]
    kept = [row for place, row in enumerate(rows) if place not in named]
    return Candidates(kept, [*lacking, *by_hand], setting_notes(matched))


def _check_names(methods: Mapping[str, Path]) -> None:
    if len(methods) < 2:
        raise RecipeError(f"a study needs at least two methods, found {', '.join(methods) or 'none'}")
    for name in methods:
        if name != name.strip() or not name.isprintable() or JOIN in name or name == TIE:
            raise RecipeError(
                f"a method's name must be printable, without surrounding spaces, without {JOIN!r}, and not {TIE!r}; "
                f"found {name!r}"
            )


def _prompts(rows: Sequence[MatchedRow], prompts: Sequence[str] | None, path: Path | None) -> list[str]:
    """The prompt of each row: the one its pictures store, which must match the file, or else the file's line."""
    if prompts is None:
        if any(row.prompt is None for row in rows):
            raise RecipeError("the pictures don't store their prompts: give --prompts FILE with one prompt per line")
        return [str(row.prompt) for row in rows]
    if rows[0].prompt is None:  # so no row has one
        numbers = prompt_numbers(len(rows), prompts, f"{path}: {len(rows)} pictures per method")
        return [prompts[number] for number in numbers]
    texts = []
    for row in rows:
        number = row.key[0]
        if number >= len(prompts) or prompts[number] != row.prompt:
            wanted = repr(prompts[number]) if number < len(prompts) else f"none, it has {len(prompts)}"
            raise DataError(
                f"{path}: pictures of prompt {number} were sampled from {row.prompt!r}, the file has {wanted}"
            )
        texts.append(str(row.prompt))
    return texts


def _named(rows: Sequence[Candidate], lines: Sequence[str], path: Path) -> set[int]:
    """Indices of the rows that the lines name."""
    places: dict[str, set[int]] = {}
    for place, row in enumerate(rows):
        for name in (row.prompt, *(file.name for file in row.pictures.values())):
            places.setdefault(name, set()).add(place)
    unknown = [line for line in lines if line not in places]
    if unknown:
        raise DataError(
            f"{path}: each line must be a prompt or the file name of a picture; {len(unknown)} of {len(lines)} "
            f"aren't, the first is {unknown[0]!r}"
        )
    return {place for line in lines for place in places[line]}
