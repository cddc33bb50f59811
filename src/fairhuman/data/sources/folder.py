"""A folder of pictures at any depth; `photo.txt` (or `photo.caption`) beside `photo.jpg` holds its caption."""

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.sources.review import note_review
from fairhuman.data.sources.rows import MAX_TEXT, STAGE, Row, printable
from fairhuman.record import Finding

PICTURE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"}
)
OTHER_SUFFIXES = frozenset({".heic", ".heif", ".jxl", ".jp2"})  # pictures of types that aren't read
CAPTION_SUFFIXES = (".txt", ".caption")  # the second one is used by kohya's sd-scripts
# macOS writes these beside the files that it copies or packs: attributes of `photo.jpg` as `._photo.jpg`
MAC_PREFIX, MAC_FOLDER = "._", "__MACOSX"


class PictureWithCaption(NamedTuple):
    """A picture's path relative to the root, and that of its caption file, if any."""

    name: str
    caption: str | None


def has_pictures(folder: Path) -> bool:
    """Whether a folder holds a picture at any depth."""
    return folder.is_dir() and next(find_pictures(folder, LoadReport()), None) is not None


def folder_rows(folder: Path, report: LoadReport) -> Iterator[Row]:
    """Pictures without metadata, in the order of their names."""
    note_review(folder, report)
    for found in find_pictures(folder, report):
        values = {"file_name": found.name}
        if found.caption:
            values["caption"] = read_caption(folder / found.caption, report)
        yield Row(printable(found.name), values)


def read_caption(path: Path, report: LoadReport) -> str:
    """The text of a caption file; empty if it can't be read."""
    try:
        if not path.is_file():
            raise OSError(0, "not a regular file")
        if path.is_symlink() and not path.resolve().is_relative_to(path.parent.resolve()):
            raise OSError(0, "a link that leaves the folder")
        if (size := path.stat().st_size) <= MAX_TEXT:
            return path.read_bytes().decode("utf-8-sig").strip()
        finding = Finding("dropped", "caption file is too long", f"{size} bytes")
    except UnicodeDecodeError as error:
        finding = Finding("dropped", "caption file is not UTF-8", f"byte {error.start + 1}")
    except OSError as error:
        finding = Finding("dropped", "caption file can't be read", error.strerror or str(error))
    report.add(printable(path.name), STAGE, finding)
    return ""


def find_pictures(root: Path, report: LoadReport) -> Iterator[PictureWithCaption]:
    """Pictures by their names, in the order of their paths, with one folder in memory at a time.

    Unreadable pictures are included; they fail when opened. Links to folders aren't followed, and are noted, as are
    pictures of `OTHER_SUFFIXES` that aren't there in a type that is read too.

    Raises:
        OSError: the root can't be listed; a subfolder that can't be listed is noted.
    """
    # No recursion: folders may be nested deeper than the call stack.
    stack = [("", iter(_sorted_entries(root, "", report)))]
    while stack:
        folder, entries = stack[-1]
        entry = next(entries, None)
        if entry is None:
            stack.pop()
        elif isinstance(entry, PictureWithCaption):
            yield PictureWithCaption(folder + entry.name, entry.caption and folder + entry.caption)
        else:
            inside = f"{folder}{entry}/"
            try:
                stack.append((inside, iter(_sorted_entries(root, inside, report))))
            except OSError as error:
                finding = Finding("skipped", "folder can't be read", error.strerror or str(error))
                report.add(printable(inside), STAGE, finding)


def _sorted_entries(root: Path, folder: str, report: LoadReport) -> list[PictureWithCaption | str]:
    """Pictures and subfolders (as text) of a folder below the root, by name."""
    with os.scandir(root / folder) as entries:
        kinds = {
            entry.name: _kind(entry)
            for entry in entries
            if not entry.name.startswith(MAC_PREFIX) and entry.name != MAC_FOLDER
        }
    # os.path.splitext is twice as fast as a Path, for a hundred thousand names
    parts = {name: os.path.splitext(name) for name in sorted(kinds)}  # noqa: PTH122
    captions = {
        composed(stem) + suffix.lower(): name
        for name, (stem, suffix) in parts.items()
        if suffix.lower() in CAPTION_SUFFIXES
    }
    read = {composed(stem) for stem, suffix in parts.values() if suffix.lower() in PICTURE_SUFFIXES}
    found: list[PictureWithCaption | str] = []
    for name, (stem, suffix) in parts.items():
        if kinds[name] == "folder":
            found.append(name)
        elif kinds[name] == "link":
            report.add(printable(folder + name), STAGE, Finding("warned", "link to a folder is not followed"))
        elif suffix.lower() in PICTURE_SUFFIXES:
            endings = (composed(stem) + ending for ending in CAPTION_SUFFIXES)
            found.append(PictureWithCaption(name, next((captions[one] for one in endings if one in captions), None)))
        elif suffix.lower() in OTHER_SUFFIXES and composed(stem) not in read:
            finding = Finding("skipped", "picture of a type that is not read", suffix)
            report.add(printable(folder + name), STAGE, finding)
    return found


def composed(name: str) -> str:
    """A name by which files are paired: macOS may write é as two characters, other systems write it as one."""
    return unicodedata.normalize("NFC", name)


def _kind(entry: os.DirEntry[str]) -> str:
    """`folder`, `file`, or `link` for a link to a folder; only links cost a system call."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return "folder"
        return "link" if entry.is_symlink() and entry.is_dir() else "file"
    except OSError:  # a loop of links
        return "file"
