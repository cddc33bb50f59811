"""Convert the values of a source's row, including spans and cells of pictures, to JSON and back."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairhuman.record import FileSpan, TableCell
from fairhuman.utils.parse import parse_json

_SPAN, _CELL, _PATH = "!span", "!cell", "!path"


def to_json(values: Mapping[str, Any], root: Path) -> str:
    """Convert values to JSON; spans and cells have paths relative to `root`, so that a data set can be moved."""

    def encode(value: Any) -> Any:
        if isinstance(value, FileSpan):
            return {_SPAN: [os.path.relpath(value.path, root), value.offset, value.length]}
        if isinstance(value, TableCell):
            return {_CELL: [os.path.relpath(value.path, root), value.row, list(value.field)]}
        if isinstance(value, Path):
            return {_PATH: os.path.relpath(root / value, root)}
        return str(value)  # times, decimals: only in columns that aren't read

    return json.dumps(values, default=encode, separators=(",", ":"))


def from_json(text: str, root: Path) -> dict[str, Any]:
    """The inverse of `to_json`."""

    def decode(found: dict[str, Any]) -> Any:
        if _SPAN in found:
            name, offset, length = found[_SPAN]
            return FileSpan(root / name, offset, length)
        if _CELL in found:
            name, row, field = found[_CELL]
            return TableCell(root / name, row, tuple(field))
        if _PATH in found:
            return Path(found[_PATH])
        return found

    values: dict[str, Any] = parse_json(text, object_hook=decode)
    return values
