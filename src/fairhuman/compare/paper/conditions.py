"""Poses and depth maps of some records as a data set of its own, as `fairhuman sample` takes one for each prompt."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from fairhuman.data.pictures.stored import PictureError, read_bytes
from fairhuman.errors import DataError
from fairhuman.record import CONDITIONS, HumanRecord
from fairhuman.utils.files import digest, write_atomically, writing


def write_conditions(records: Sequence[HumanRecord], beside: Path) -> Path:
    """Write the conditions of records, in their order, beside blank pictures of the records' sizes; return the folder.

    It is named after the content, so that what others read never changes.

    Raises:
        DataError: a condition can't be read.
        FairHumanError: the folder can't be written.
    """
    lines = [_line(number, record) for number, record in enumerate(records)]
    contents = [_fingerprint(record) for record in records]
    folder = beside / f"conditions-{digest(json.dumps([lines, contents], default=str))[:12]}"

    def write(out: Path) -> None:
        out.mkdir()
        for line, record in zip(lines, records, strict=True):
            Image.new("L", (record.width, record.height)).save(out / line["file_name"])
            for name in _pictures(record):
                (out / line[name]).write_bytes(_content(record, name))
        text = "".join(f"{json.dumps(line)}\n" for line in lines)
        (out / "metadata.jsonl").write_text(text, encoding="utf-8")

    if not folder.is_dir():
        with writing(folder):
            write_atomically(folder, write)
    return folder


def _pictures(record: HumanRecord) -> list[str]:
    """The conditions of a record that are pictures, not key points."""
    return [name for name in CONDITIONS if not isinstance(getattr(record, name), list | None)]


def _line(number: int, record: HumanRecord) -> dict[str, Any]:
    """The record's line of metadata."""
    plain = {"pose": record.pose} if isinstance(record.pose, list) else {}
    files = {name: f"{number:05d}.{name}.png" for name in _pictures(record)}
    common = {"file_name": f"{number:05d}.png", "caption": record.caption, "depth_kind": record.depth_kind}
    return {**common, **plain, **files}


def _fingerprint(record: HumanRecord) -> list[Any]:
    hashes = [hashlib.sha256(_content(record, name)).hexdigest() for name in _pictures(record)]
    return [record.width, record.height, *hashes]


def _content(record: HumanRecord, name: str) -> bytes:
    try:
        return read_bytes(getattr(record, name))
    except PictureError as error:
        raise DataError(f"{record.location}: {name}: {error}") from error
