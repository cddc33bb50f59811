"""By what a view of a picture is known: the picture's content, and what is shown of it."""

import hashlib
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fairhuman.data.pictures.stored import read_bytes, unreadable
from fairhuman.record import HumanRecord, Stored
from fairhuman.regions.transforms import ViewDraw


class View(NamedTuple):
    """What a view's latents are kept under.

    key: of the picture's content and of what is shown. origin: of the record's name and of what is shown, so that
    another key of the same origin tells that the picture was changed.
    """

    key: str
    origin: str


def view_of(record: HumanRecord, draw: ViewDraw, resolution: tuple[int, int], place: str = "") -> View:
    """Return the view that a draw gives of a record's picture; `place` tells data sets of equal keys apart.

    Raises:
        PictureError: the picture can't be read.

    """
    shown = f"{record.width} {record.height} {draw.resized_hw} {draw.top} {draw.left} {draw.flip} {resolution}"
    return View(digest(f"{content_of(record.image)} {shown}"), digest(f"{place} {record.key} {shown}"))


def content_of(stored: Stored) -> str:
    """Return a hash of a picture's stored bytes, which are read once for as long as their file doesn't change.

    Raises:
        PictureError: they can't be read.

    """
    if isinstance(stored, bytes):
        return _content(stored, None)
    try:
        state = (stored if isinstance(stored, Path) else stored.path).stat()
    except OSError as error:
        raise unreadable(stored, error) from error
    return _content(stored, (state.st_size, state.st_mtime_ns))


def digest(text: str) -> str:
    """Return 32 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


@lru_cache(maxsize=2**20)
def _content(stored: Stored, _state: tuple[int, int] | None) -> str:
    return hashlib.sha256(read_bytes(stored)).hexdigest()
