"""SHA-256 digests of files, so that damage on the disk is noticed when they are read.

A folder has the digests of its files in `SHA256SUMS`; `sha256sum -c SHA256SUMS` in the folder checks them by hand. They
show damage, not forgery: who can change a file can change its digest.
"""

import hashlib
import re
from pathlib import Path

from fairhuman.errors import FairHumanError
from fairhuman.utils.files import write_text

SUMS = "SHA256SUMS"
_DIGITS = 64  # of a SHA-256 in hexadecimal
_LINE = re.compile(r"([0-9a-f]{64})  ([^/\0]+)")


class DamageError(FairHumanError):
    """A file isn't what was written; the message names it."""


def content_digest(*parts: bytes | memoryview) -> str:
    """Return the SHA-256 of the parts, one after another, in hexadecimal digits."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sealed(content: bytes) -> bytes:
    """Return a content with its SHA-256 in front, as `unsealed` reads it from a file."""
    return content_digest(content).encode() + content


def unsealed(path: Path) -> memoryview:
    """Return the content of a file that `sealed` made.

    Raises:
        OSError: the file can't be read.
        DamageError: it isn't what was written.
    """
    whole = memoryview(path.read_bytes())
    digest, content = whole[:_DIGITS], whole[_DIGITS:]
    if bytes(digest) != content_digest(content).encode():
        raise DamageError(f"{path}: is damaged: differs from its digest")
    return content


def digests_of(folder: Path) -> dict[str, str]:
    """Return the digests of all files of a folder by name, in the order of the names."""
    return {path.name: file_digest(path) for path in sorted(folder.iterdir()) if path.is_file() and path.name != SUMS}


def write_sums(folder: Path) -> None:
    """Write the digests of all files of a folder into its `SHA256SUMS`."""
    write_text(folder / SUMS, "".join(f"{digest}  {name}\n" for name, digest in digests_of(folder).items()))


def check_folder(folder: Path) -> bool:
    """Check all files of a folder by its `SHA256SUMS`; return False if it has none, as an earlier version wrote it.

    Raises:
        DamageError: a file is missing or damaged; names the first.
    """
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError) as error:
        raise DamageError(f"{folder / SUMS}: is damaged ({error})") from error
    if not lines:
        raise DamageError(f"{folder / SUMS}: is damaged: it is empty")
    for line in lines:
        match = _LINE.fullmatch(line)
        if match is None:
            raise DamageError(f"{folder / SUMS}: is damaged: expected a SHA-256 and a file name, found {line[:80]!r}")
        path = folder / match[2]
        try:
            found = file_digest(path)
        except OSError as error:
            raise DamageError(f"{path}: can't be read: {error.strerror}") from error
        if found != match[1]:
            raise DamageError(f"{path}: is damaged: differs from its digest in {SUMS}")
    listed = {line.partition("  ")[2] for line in lines}
    if missing := {path.name for path in folder.iterdir() if path.is_file() and path.name != SUMS} - listed:
        raise DamageError(f"{folder / SUMS}: is damaged: has no digest of {min(missing)}")
    return True
