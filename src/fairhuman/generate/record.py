"""What a picture was drawn with, stored in the picture itself, so that one folder never mixes pictures of two commands.

`fairhuman sample` writes the record into every PNG, as the text entry `drawn_with`. The same command again keeps the
pictures whose record is its own, and a command with another record is refused. As a PNG is written whole or not at all,
a killed process leaves nothing to mend.
"""

import json
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from fairhuman.data.sources.folder import PICTURE_SUFFIXES
from fairhuman.errors import DataError
from fairhuman.generate.settings import SampleSettings
from fairhuman.report.text import plural
from fairhuman.utils.parse import parse_json

ENTRY = "drawn_with"
# What the pictures of two methods should have in common, in the text entries of their PNGs.
SETTINGS = ("seed", "steps", "guidance", "scheduler", "prompt_suffix", "negative_prompt")
ADVICE = "give another folder, or --redraw to replace them"
_NAME = re.compile(r"([0-9]{5,})-([0-9]{2,})\.png")
# Entries that are hashes or too long for a message.
_PLAIN = {
    "model": "another model",
    "lora": "another LoRA",
    "lora content": "another LoRA",
    "mole": "another MoLE",
    "controls": "other control networks",
    "conditions": "other conditions",
    "prompt": "other prompts",
}


class PictureKey(NamedTuple):
    """Indices of a prompt and of a picture of it, from 0."""

    prompt: int
    picture: int

    @property
    def name(self) -> str:
        """Name of the picture's file."""
        return f"{self.prompt:05d}-{self.picture:02d}.png"


def check_folder(out: Path, settings: SampleSettings, prompts: Sequence[str]) -> None:
    """Check that `out` holds no pictures of other settings or prompts, before any weights are read or hashed.

    Raises:
        DataError: as of `kept_pictures`.
    """
    records = records_of(plain_settings(settings), prompts, settings.images_per_prompt)
    kept_pictures(out, records, entries={*SampleSettings.model_fields, "prompt"})


def plain_settings(settings: SampleSettings) -> dict[str, Any]:
    """Return the part of a record that comes from settings."""
    return settings.model_dump(exclude={"batch_size", "images_per_prompt"}, exclude_none=True)


def kept_pictures(
    out: Path,
    records: Mapping[PictureKey, Mapping[str, Any]],
    earlier: Mapping[str, str] | None = None,
    entries: Collection[str] | None = None,
) -> set[PictureKey]:
    """Return the pictures in `out` that were drawn with these records; empty if there are none or no folder.

    Damaged ones, by the checksums of PNG, aren't among them. `earlier` has the hashes that an earlier version recorded
    for the weights of `records`, and those in `records`. `entries` are those of a record that are compared,
    without a look at the pixels; None: all.

    Raises:
        DataError: the folder holds other pictures: such without a record, with another one, or not in `records`.
    """
    differing: Counter[str] = Counter()
    kept = set()
    for file, key in drawn_files(out).items():
        found, sound = _read(file)
        if found is None:
            raise DataError(
                f"{out}: {file.name} has no record of what it was drawn with, as by an earlier version; {ADVICE}"
            )
        wanted = records.get(key)
        if wanted is None:
            raise DataError(f"{out}: {file.name} isn't among the pictures of this command; {ADVICE}")
        if entries is not None:
            found = {name: value for name, value in found.items() if name in entries}
        differences = _differences(_renewed(found, earlier or {}), wanted)
        differing.update(differences)
        if not differences and sound:
            kept.add(key)
    if differing:
        listed = "; ".join(f"{text} ({plural(number, 'picture')})" for text, number in differing.items())
        raise DataError(f"{out}: holds pictures drawn with {listed}; {ADVICE}")
    return kept


def drawn_files(out: Path) -> dict[Path, PictureKey]:
    """Return the pictures in a folder by file; empty if there is no folder.

    Raises:
        DataError: a picture isn't named as `fairhuman sample` does.
    """
    files = sorted(out.iterdir()) if out.is_dir() else []
    found = {}
    for file in files:
        if file.suffix.lower() not in PICTURE_SUFFIXES or file.name.startswith("."):
            continue
        name = _NAME.fullmatch(file.name)
        if name is None:
            raise DataError(f"{out}: holds {file.name}, which sample didn't draw; give another folder")
        found[file] = PictureKey(int(name[1]), int(name[2]))
    return found


def entry_number(entries: Mapping[str, str], name: str) -> int | None:
    """Return the number of a text entry; None if it is missing or no number of at most 9 digits."""
    return int(entries[name]) if re.fullmatch("[0-9]{1,9}", entries.get(name, "")) else None


def read_record(file: Path) -> dict[str, Any] | None:
    """Return the record of a picture; None if it has none or can't be read."""
    return _read(file, check=False)[0]


def _read(file: Path, check: bool = True) -> tuple[dict[str, Any] | None, bool]:
    """The record of a picture, None if there is none, and whether the file is whole, by the checksums of PNG."""
    found = None
    try:
        with Image.open(file, formats=("PNG",)) as image:
            found = parse_json(image.info[ENTRY])
            if check:
                image.verify()
        sound = True
    except (OSError, SyntaxError, ValueError, KeyError, TypeError, Image.DecompressionBombError):
        sound = False
    return (found if isinstance(found, dict) else None), sound


def differing_settings(entries: Mapping[str, Sequence[Mapping[str, str]]]) -> list[str]:
    """Return a sentence for each setting that differs between methods.

    Args:
        entries: text entries of each method's pictures, in an order that they share.
    """
    notes = []
    for setting in SETTINGS:
        values = {name: [entry.get(setting, "") for entry in of_one] for name, of_one in entries.items()}
        if len(set(map(tuple, values.values()))) > 1:
            listed = "; ".join(f"{name}: {shown(of_one)}" for name, of_one in values.items())
            meaning = ", so pictures in a row also differ in their noise" if setting == "seed" else ""
            notes.append(f"Methods differ in {setting.replace('_', ' ')}{meaning} ({listed}).")
    return notes


def shown(values: Iterable[str]) -> str:
    """Return the different values of a setting, in order."""
    return ", ".join(value or "none" for value in dict.fromkeys(values))


def to_entry(record: Mapping[str, Any]) -> dict[str, str]:
    """Return the text entry of a picture."""
    return {ENTRY: json.dumps(record, ensure_ascii=False)}


def records_of(
    common: Mapping[str, Any], prompts: Sequence[str], each: int, conditions: Sequence[str] = ()
) -> dict[PictureKey, dict[str, Any]]:
    """Return the records of `each` pictures a prompt; `conditions` are hashes by prompt, empty without control."""
    own = [{"prompt": prompt} for prompt in prompts]
    for row, content in zip(own, conditions, strict=bool(conditions)):
        row["conditions"] = content
    return {PictureKey(number, picture): {**common, **row} for number, row in enumerate(own) for picture in range(each)}


def _renewed(found: Any, earlier: Mapping[str, str]) -> Any:
    """A record, or a part of one, with hashes as this version records them."""
    if isinstance(found, dict):
        return {name: _renewed(part, earlier) for name, part in found.items()}
    if isinstance(found, list):
        return [_renewed(part, earlier) for part in found]
    return earlier.get(found, found) if isinstance(found, str) else found


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any], section: str = "") -> list[str]:
    """What differs, in words; an entry that is missing is one that isn't set."""
    texts = []
    for name in {**found, **wanted}:
        before, now = found.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            texts += _differences(before, now, f"{name} ")
        elif before != now:
            words = _PLAIN.get(f"{section}{name}", f"{section}{name} {repr(before)[:200]}, not {repr(now)[:200]}")
            texts.append(words.replace("_", " "))
    return texts
