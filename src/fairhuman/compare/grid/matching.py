"""Match pictures of several methods by prompt, and report differences in their sampling settings.

A method is a folder of pictures. Pictures of `fairhuman sample` store their prompt and settings as PNG text entries and
are matched by (prompt_index, picture_index). Folders without such entries are matched by natural order of file names
(2 before 10), without further checks.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairhuman.data.pictures.decode import inspect, read_texts
from fairhuman.data.pictures.stored import PictureError
from fairhuman.data.sources.folder import PICTURE_SUFFIXES
from fairhuman.errors import DataError
from fairhuman.generate.record import differing_settings, entry_number, shown
from fairhuman.generate.unread import unread_lines
from fairhuman.utils.files import natural_order

IDENTITY = ("prompt", "prompt_index", "picture_index")
Key = tuple[int, int]  # prompt_index, picture_index


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A picture's file and its text entries, which are empty unless `fairhuman sample` wrote it."""

    file: Path
    entries: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MatchedRow:
    """The pictures of all methods for one prompt; the prompt is None if no picture stores it."""

    key: Key
    prompt: str | None
    pictures: Mapping[str, PictureFile]


def match_pictures(methods: Mapping[str, Path], lacking: list[str] | None = None) -> list[MatchedRow]:
    """Rows in the order of their keys, or of the file names if no picture has text entries.

    Args:
        methods: name to a folder of pictures.
        lacking: if given, rows that a method lacks are skipped and described in this list; otherwise they are an error.

    Raises:
        DataError: a folder has no pictures, only some of its pictures have text entries, a method lacks a picture, or
            prompts disagree; names method, picture and both values.
    """
    if not methods:
        raise DataError("methods: expected at least one, found none")
    drawn = {name: _read_folder(name, folder) for name, folder in methods.items()}
    with_entries = {name: _by_key(name, pictures) for name, pictures in drawn.items() if pictures[0].entries}
    without_entries = {name: pictures for name, pictures in drawn.items() if name not in with_entries}
    keys = sorted({key for pictures in with_entries.values() for key in pictures})
    if not with_entries:
        keys = [(number, 0) for number in range(len(next(iter(drawn.values()))))]
    for name, pictures in without_entries.items():
        if len(pictures) != len(keys):
            raise DataError(
                f"method {name!r}: its pictures have no text entries and are matched by file name, so it must have as "
                f"many as {next(iter(with_entries or drawn))!r}, {len(keys)}; found {len(pictures)}"
            )
    without = (
        {key: [name for name in with_entries if key not in with_entries[name]] for key in keys}
        if lacking is not None
        else {}
    )
    if lacking is not None:
        lacking += [f"prompt {key[0]}, picture {key[1]}: not by {', '.join(of)}" for key, of in without.items() if of]
    return [
        MatchedRow(
            key,
            _prompt(with_entries, key),
            {
                name: with_entries[name][key] if name in with_entries else without_entries[name][number]
                for name in methods
            },
        )
        for number, key in enumerate(keys)
        if not without.get(key)
    ]


def setting_notes(rows: Sequence[MatchedRow]) -> list[str]:
    """Sentences on the common seed, settings that differ between methods, methods without text entries, and prompts
    that were too long.
    """
    names = list(rows[0].pictures)
    with_entries = [name for name in names if rows[0].pictures[name].entries]
    entries = {name: [row.pictures[name].entries for row in rows] for name in with_entries}
    notes = differing_settings(entries)
    seeds = {name: tuple(entry.get("seed", "") for entry in of_one) for name, of_one in entries.items()}
    if len(set(seeds.values())) == 1:
        notes.insert(0, f"Same seed for {', '.join(with_entries)}: {shown(seeds[with_entries[0]])}.")
    notes += [
        f"{name}: no text entries, matched by the order of file names. Its prompts, seeds and settings are unknown."
        for name in names
        if name not in with_entries
    ]
    return [*notes, *(f"{line}." for line in unread_prompts(rows))]


def unread_prompts(rows: Sequence[MatchedRow]) -> list[str]:
    """Lines on prompts of which the pictures follow the beginning alone; see `unread_lines`."""
    return unread_lines(
        (row.prompt, picture.entries) for row in rows for picture in row.pictures.values() if row.prompt is not None
    )


def _read_folder(name: str, folder: Path) -> list[PictureFile]:
    if not folder.is_dir():
        raise DataError(f"method {name!r}: expected a folder of pictures, found none at {folder}")
    files = [file for file in folder.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.name[0] != "."]
    if not files:
        raise DataError(f"method {name!r}: expected pictures in {folder}, found none")
    pictures = [PictureFile(file, _entries(name, file)) for file in sorted(files, key=natural_order)]
    without = [picture.file.name for picture in pictures if not picture.entries]
    if 0 < len(without) < len(pictures):
        raise DataError(
            f"method {name!r}: either all pictures or none must have the text entries {', '.join(IDENTITY)}; "
            f"{len(without)} of {len(pictures)} have none, the first is {without[0]}"
        )
    return pictures


def _entries(name: str, file: Path) -> dict[str, str]:
    """Text entries of a PNG if it has those of `IDENTITY`, else empty; pixels aren't decoded."""
    try:
        if inspect(file).kind != "PNG":
            return {}
        texts = read_texts(file)
    except PictureError as error:
        raise DataError(f"method {name!r}: {error}") from error
    return texts if all(key in texts for key in IDENTITY) else {}


def _by_key(name: str, pictures: Sequence[PictureFile]) -> dict[Key, PictureFile]:
    found: dict[Key, PictureFile] = {}
    for picture in pictures:
        prompt, of_prompt = (entry_number(picture.entries, entry) for entry in IDENTITY[1:])
        if prompt is None or of_prompt is None:
            texts = [repr(picture.entries[entry][:20]) for entry in IDENTITY[1:]]
            raise DataError(
                f"method {name!r}: {picture.file.name}: prompt_index and picture_index must be numbers from 0, "
                f"found {' and '.join(texts)}"
            )
        key = (prompt, of_prompt)
        if key in found:
            raise DataError(
                f"method {name!r}: {found[key].file.name} and {picture.file.name} are both picture {key[1]} of "
                f"prompt {key[0]}; a folder must hold the pictures of one run"
            )
        found[key] = picture
    return found


def _prompt(with_entries: Mapping[str, Mapping[Key, PictureFile]], key: Key) -> str | None:
    """The prompt of a row, on which all pictures that store it must agree."""
    having = {name: pictures[key] for name, pictures in with_entries.items() if key in pictures}
    if not having:
        return None
    first, reference = next(iter(having.items()))
    prompt = reference.entries["prompt"]
    for name in with_entries:
        if name not in having:
            raise DataError(
                f"method {name!r}: lacks picture {key[1]} of prompt {key[0]}, {prompt!r}, which {first!r} has in "
                f"{reference.file.name}"
            )
        other = having[name].entries["prompt"]
        if other != prompt:
            raise DataError(
                f"method {name!r}: {having[name].file.name} has the prompt {other!r}, but {reference.file.name} of "
                f"{first!r} has {prompt!r}; both are picture {key[1]} of prompt {key[0]}"
            )
    return prompt
