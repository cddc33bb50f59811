"""Small pictures of every attempt at a part, for the page: `attempts.jsonl`, a line a picture.

The file is no result: without it, or with an older line, the page only lacks pictures.
"""

from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from fairhuman.report.html import picture_uri
from fairhuman.utils.journal import Journal, read_rows, write_rows

ATTEMPTS = "attempts.jsonl"
SIDE = 256  # pixels
_NEEDED: dict[str, type] = {"name": str, "shots": list}

Shots = dict[tuple[int, int], str]  # (part, attempt): picture as a data URI


def attempt_shot(picture: Image.Image) -> str:
    """A crop as it is kept."""
    return picture_uri(picture, SIDE, quality=80)


def add_attempts(out: Path, name: str, shots: Shots) -> None:
    """Append the attempts at a picture's parts; a later line of a name replaces an earlier one."""
    if shots:
        Journal(out / ATTEMPTS).add([{"name": name, "shots": [[*place, uri] for place, uri in shots.items()]}])


def read_attempts(out: Path) -> dict[str, Shots]:
    """The attempts of every picture, by name."""
    return {
        row["name"]: {(part, attempt): uri for part, attempt, uri in row["shots"]}
        for row in read_rows(out / ATTEMPTS, **_NEEDED)
    }


def forget_others(out: Path, names: Iterable[str]) -> None:
    """Keep only the latest line of each of these names."""
    if (out / ATTEMPTS).is_file():
        latest = {row["name"]: row for row in read_rows(out / ATTEMPTS, **_NEEDED)}
        write_rows(out / ATTEMPTS, [latest[name] for name in names if name in latest])
