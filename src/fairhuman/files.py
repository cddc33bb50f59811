"""Files that appear whole or not at all, whatever kills the process."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder under a temporary name beside `path`, then put it in the place of `path`.

    File contents reach the disk before the name does. A folder that was there is replaced as a whole.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    try:
        write(partial)
        for file in [partial] if partial.is_file() else sorted(partial.rglob("*")):
            _flush(file)
        if path.is_dir():
            old = path.with_name(f".{path.name}.old")
            _remove(old)
            path.replace(old)
            partial.replace(path)
            _remove(old)
        else:
            partial.replace(path)
        _flush(path.parent)
    finally:
        _remove(partial)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file atomically."""
    write_atomically(path, lambda partial: partial.write_text(text, encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN isn't JSON and is refused."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
