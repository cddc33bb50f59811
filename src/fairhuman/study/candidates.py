"""Which prompts a study can draw from: those that all methods have a picture of, less those left out by hand."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairhuman.compare.grid.matching import MatchedRow, match_pictures, setting_notes
from fairhuman.errors import DataError, RecipeError
from fairhuman.utils.files import read_prompts

TIE, JOIN = "tie", "|"  # what stands for a tie among methods' names in tables, and between names


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt and each method's picture of it."""

    prompt: str
    pictures: Mapping[str, Path]

    def label(self) -> str:
        """For messages: the prompt and the first picture."""
        return f"{next(iter(self.pictures.values())).name}, {self.prompt!r}"


@dataclass(frozen=True, slots=True)
class Candidates:
    """All that can be drawn, what can't and why, and what the methods' pictures differ in."""

    rows: Sequence[Candidate]
    left_out: Sequence[str]
    notes: Sequence[str]


def find_candidates(methods: Mapping[str, Path], prompts: Path | None, leave_out: Path | None) -> Candidates:
    """Match the methods' pictures, and leave out what a method lacks or a person has named.

    Args:
        methods: a name to a folder of pictures each, see `fairhuman.compare.grid.matching`.
        prompts: text file, a prompt a line; may be None where the pictures tell theirs.
        leave_out: text file, a prompt or the name of a picture's file a line.

    Raises:
        RecipeError: fewer than two methods, or a name that can't be told in a table.
        DataError: pictures that don't match each other or the prompts, a line of `leave_out` that names nothing.

    """
    _check_names(methods)
    lacking: list[str] = []
    matched = match_pictures(methods, lacking)
    if not matched:
        raise DataError(f"no prompt has a picture by each of {', '.join(methods)}; {lacking[0]}")
    texts = _prompts(matched, read_prompts(prompts) if prompts is not None else None, prompts)
    rows = [
        Candidate(prompt, {name: drawn.file for name, drawn in row.pictures.items()})
        for row, prompt in zip(matched, texts, strict=True)
    ]
    named = _named(rows, read_prompts(leave_out), leave_out) if leave_out is not None else set()
    by_hand = [f"{row.label()}: left out by hand" for place, row in enumerate(rows) if place in named]
    kept = [row for place, row in enumerate(rows) if place not in named]
    return Candidates(kept, [*lacking, *by_hand], setting_notes(matched))


def _check_names(methods: Mapping[str, Path]) -> None:
    if len(methods) < 2:
        raise RecipeError(f"a study compares at least two methods, found {', '.join(methods) or 'none'}")
    for name in methods:
        if name != name.strip() or not name.isprintable() or JOIN in name or name == TIE:
            raise RecipeError(
                f"a method's name must be printable, without spaces around it or {JOIN!r} in it, and not {TIE!r}; "
                f"found {name!r}"
            )


def _prompts(rows: Sequence[MatchedRow], prompts: Sequence[str] | None, path: Path | None) -> list[str]:
    """The prompt of each row: what its pictures tell, which must be the file's, or the file's line."""
    if prompts is None:
        if any(row.prompt is None for row in rows):
            raise RecipeError("the pictures don't tell their prompts: give --prompts FILE, a prompt a line")
        return [str(row.prompt) for row in rows]
    each, rest = divmod(len(rows), len(prompts))
    texts = []
    for place, row in enumerate(rows):
        if row.prompt is None:
            if rest:
                raise DataError(
                    f"{path}: {len(rows)} pictures a method can't be shared out among {len(prompts)} prompts evenly"
                )
            texts.append(prompts[place // each])
            continue
        number = row.key[0]
        if number >= len(prompts) or prompts[number] != row.prompt:
            wanted = repr(prompts[number]) if number < len(prompts) else f"none, it has {len(prompts)}"
            raise DataError(
                f"{path}: pictures of prompt {number} were drawn from {row.prompt!r}, the file has {wanted}"
            )
        texts.append(row.prompt)
    return texts


def _named(rows: Sequence[Candidate], lines: Sequence[str], path: Path) -> set[int]:
    """The places of rows that a line names."""
    places: dict[str, set[int]] = {}
    for place, row in enumerate(rows):
        for name in (row.prompt, *(file.name for file in row.pictures.values())):
            places.setdefault(name, set()).add(place)
    unknown = [line for line in lines if line not in places]
    if unknown:
        raise DataError(
            f"{path}: each line must be a prompt or the name of a picture's file; {len(unknown)} of {len(lines)} "
            f"aren't, the first is {unknown[0]!r}"
        )
    return {place for line in lines for place in places[line]}
