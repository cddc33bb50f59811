"""A folder of pictures, at any depth; `photo.txt` beside `photo.jpg` holds its caption."""

from collections.abc import Iterator
from pathlib import Path

from fairhuman.data.report import LoadReport
from fairhuman.data.sources.rows import STAGE, Row
from fairhuman.record import Finding

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


def has_pictures(folder: Path) -> bool:
    """Whether a folder holds at least one picture, at any depth."""
    return folder.is_dir() and next(_pictures(folder), None) is not None


def folder_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """Pictures without metadata, in the order of their names."""
    for path in sorted(_pictures(folder)):
        name = path.relative_to(folder).as_posix()
        text = path.with_suffix(".txt")
        caption = ""
        try:
            if text.is_file():
                caption = text.read_bytes().decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            report.add(text.name, STAGE, Finding("dropped", "caption file is not UTF-8", f"byte {error.start + 1}"))
        except OSError as error:
            report.add(text.name, STAGE, Finding("dropped", "caption file can't be read", error.strerror or str(error)))
        yield Row(name, {"file_name": name, "caption": caption})


def _pictures(folder: Path) -> Iterator[Path]:
    """Files by their name, also those that can't be read: a reason is given for each where it is opened."""
    return (path for path in folder.rglob("*") if path.suffix.lower() in PICTURE_SUFFIXES and not _is_folder(path))


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False
