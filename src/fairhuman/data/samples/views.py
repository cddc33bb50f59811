"""Cache keys of views of pictures: the picture's content and the shown part."""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from fairhuman.data.pictures.decode import pixel_digest
from fairhuman.data.pictures.stored import read_bytes, unreadable
from fairhuman.record import HumanRecord, Stored
from fairhuman.regions.transforms import ViewDraw
from fairhuman.utils.files import digest


class View(NamedTuple):
    """Cache key of a view's latents.

    `key` is a digest of the picture's content and the shown part. `origin` is a digest of the record's name and the
    shown part; if the same origin has another key, the picture has changed.
    """

    key: str
    origin: str


def view_of(record: HumanRecord, draw: ViewDraw, resolution: tuple[int, int], place: str = "") -> View:
    """Return the view of a record's picture for a draw; `place` distinguishes data sets with equal keys.

    Raises:
        PictureError: the picture can't be read.
    """
    shown = f"{record.width} {record.height} {draw.resized_hw} {draw.top} {draw.left} {draw.flip} {resolution}"
    return View(digest(f"{content_hash(record.image)} {shown}"), digest(f"{place} {record.key} {shown}"))


def content_hash(stored: Stored) -> str:
    """Return a hash of what a picture's stored bytes decode to; they are read only once unless their file changes.

    Raises:
        PictureError: the bytes can't be read.
    """
    if isinstance(stored, bytes):
        return _content(stored, None)
    try:
        state = (stored if isinstance(stored, Path) else stored.path).stat()
    except OSError as error:
        raise unreadable(stored, error) from error
    return _content(stored, (state.st_size, state.st_mtime_ns))


@lru_cache(maxsize=2**20)
def _content(stored: Stored, _state: tuple[int, int] | None) -> str:
    return pixel_digest(read_bytes(stored)).hex()
