"""Convert the values of a source's row, including spans, cells and bytes of pictures, to JSON and back."""

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairhuman.record import FileSpan, TableCell
from fairhuman.utils.parse import parse_json

_SPAN, _CELL, _PATH, _BYTES = "!span", "!cell", "!path", "!bytes"
_MARK = "!"  # a name of the source's that begins with it gets a second one, so that no row can state a span of its own


def to_json(values: Mapping[str, Any], root: Path) -> str:
    """Convert values to JSON; spans and cells have paths relative to `root`, so that a data set can be moved.

    Only values of Python's types become markers: what a row itself names `!path` comes back as it is.
    """

    def encode(value: Any) -> Any:
        if isinstance(value, FileSpan):
            return {_SPAN: [os.path.relpath(value.path, root), value.offset, value.length]}
        if isinstance(value, TableCell):
            return {_CELL: [os.path.relpath(value.path, root), value.row, list(value.field)]}
        if isinstance(value, Path):
            return {_PATH: os.path.relpath(root / value, root)}
        if isinstance(value, bytes):
            return {_BYTES: base64.b64encode(value).decode("ascii")}
        return str(value)  # times, decimals: only in columns that aren't read

    return json.dumps(_escaped(values), default=encode, separators=(",", ":"))


def from_json(text: str, root: Path) -> dict[str, Any]:
    """The inverse of `to_json`."""

    def decode(found: dict[str, Any]) -> Any:
        if len(found) == 1:
            if _SPAN in found:
                name, offset, length = found[_SPAN]
                return FileSpan(root / name, offset, length)
            if _CELL in found:
                name, row, field = found[_CELL]
                return TableCell(root / name, row, tuple(field))
            if _PATH in found:
                return Path(found[_PATH])
            if _BYTES in found:
                return base64.b64decode(found[_BYTES])
        return {name[1:] if name.startswith(_MARK) else name: value for name, value in found.items()}

    values: dict[str, Any] = parse_json(text, object_hook=decode)
    return values


def _escaped(value: Any) -> Any:
    """A value with a second mark before each name that begins with one."""
    if isinstance(value, Mapping):
        return {
            f"{_MARK}{name}" if isinstance(name, str) and name.startswith(_MARK) else name: _escaped(inner)
            for name, inner in value.items()
        }
    return [_escaped(inner) for inner in value] if isinstance(value, list | tuple) else value
