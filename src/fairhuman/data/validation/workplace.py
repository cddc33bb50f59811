"""The work folder of an unfinished validation set, and checks whether it can be resumed."""

import hashlib
import json
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from fairhuman import __version__
from fairhuman.config import differences
from fairhuman.data.pictures.stored import byte_length
from fairhuman.data.pipeline.rows import boxes_to_lists
from fairhuman.data.validation.settings import ValidationSetSettings
from fairhuman.errors import DataError
from fairhuman.record import REGION_COLUMNS, HumanRecord, TableCell
from fairhuman.utils.files import alone, write_json
from fairhuman.utils.parse import parse_json

MANIFEST = "manifest.json"
BEGUN, LOOKS, PROMPTS = "begun.json", "looks.jsonl", "prompts.jsonl"


def identity(settings: ValidationSetSettings, records: Iterable[HumanRecord]) -> dict[str, Any]:
    """Everything that determines a set: settings, a digest of the source, this package's version.

    Raises:
        DataError: a picture is no longer there, or attributes aren't JSON.
    """
    digest = hashlib.sha256()
    for record in records:
        fields = {
            "key": record.key,
            "size": (record.width, record.height),
            "bytes": 0 if isinstance(record.image, TableCell) else byte_length(record.image),
            "caption": record.caption,
            "boxes": {  # what isn't annotated says nothing, but for the regions that every set has always had
                name: boxes_to_lists(boxes)
                for name, boxes in record.boxes.items()
                if boxes is not None or name in REGION_COLUMNS
            },
            "attributes": record.attributes,
        }
        try:
            digest.update(json.dumps(fields, default=str).encode("utf-8"))
        except (RecursionError, ValueError, TypeError) as error:
            raise DataError(f"{record.location}: attributes must be plain JSON: {error}") from error
    return {"version": __version__, "settings": settings.model_dump(mode="json"), "source": digest.hexdigest()}


def finished_set(out: Path, expected: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of a finished set; None if the folder is empty or doesn't exist.

    Raises:
        DataError: the folder has other content, or a set with other settings, another source or version.
    """
    if not (out / MANIFEST).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise DataError(f"{out} must be a new or empty folder, or a set by `fairhuman data validation`")
        return None
    manifest = _read(out / MANIFEST)
    _compare(out, manifest, expected)
    return manifest


@contextmanager
def work_folder(out: Path, expected: dict[str, Any]) -> Iterator[Path]:
    """Open the work folder of the journals; it is removed when the block ends without an error.

    Raises:
        DataError: another process uses it; or it has a model's prompts for other settings, another source or version.
    """
    folder = out.with_name(f".{out.resolve().name}.work")
    with alone(folder / "lock", f"{out}: another process is building this set"):
        begun = folder / BEGUN
        # Only a model's prompts are protected; looks are valid for any settings.
        if begun.is_file() and (folder / PROMPTS).is_file() and (folder / PROMPTS).stat().st_size:
            _compare(out, _read(begun), expected, f"; or remove {folder}")
        write_json(begun, expected)
        yield folder
        shutil.rmtree(folder)


def _compare(out: Path, before: dict[str, Any], now: dict[str, Any], advice: str = "") -> None:
    changed = []
    try:
        old = ValidationSetSettings.model_validate(before.get("settings"))
        new = ValidationSetSettings.model_validate(now["settings"])
    except ValidationError:
        changed.append("settings that this version doesn't know")
    else:
        changed += [f"{name} was {was!r}, now {new!r}" for name, (was, new) in differences(old, new).items()]
    if before.get("source") != now["source"]:
        changed.append("the source has changed")
    if before.get("version") != now["version"]:
        changed.append(f"fairhuman was {before.get('version')}, now {now['version']}")
    if changed:
        raise DataError(f"{out} was started differently ({'; '.join(changed)}): choose another folder{advice}")


def _read(path: Path) -> dict[str, Any]:
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(f"{path}: not a file of `fairhuman data validation`: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"{path}: not a file of `fairhuman data validation`: expected a JSON object")
    return content
