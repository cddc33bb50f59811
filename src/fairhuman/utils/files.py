"""Atomic file and folder writes, folder locks, and prompt files."""

import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path
from typing import Any

from fairhuman.errors import DataError, FairHumanError

_NEARLY_FULL = 16 * 2**20  # bytes


def cache_folder() -> Path:
    """Return where the body model (42 MB) and Warp's compiled kernel (0.1 MB) are kept.

    `FAIRHUMAN_CACHE`, or else `fairhuman` in `XDG_CACHE_HOME` or `~/.cache`.
    """
    chosen = os.environ.get("FAIRHUMAN_CACHE")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fairhuman"


def natural_order(file: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a sort key by which 2.png comes before 10.png."""
    parts = re.split(r"([0-9]+)", file.stem)
    numbers = [part.lstrip("0") for part in parts]  # of any length, which int() refuses
    return [(len(numbers[k]), numbers[k]) if k % 2 else (0, part) for k, part in enumerate(parts)], file.name


def natural_path_order(name: str) -> list[tuple[list[tuple[int, str]], str]]:
    """Return a sort key for paths relative to a folder: `natural_order` of each of their parts."""
    return [natural_order(Path(part)) for part in Path(name).parts]


def free_name(name: str, is_taken: Callable[[str], bool]) -> str:
    """Return the name, or the first of name-2, name-3, ... that isn't taken."""
    names = chain([name], (f"{name}-{number}" for number in count(2)))
    return next(each for each in names if not is_taken(each))


def write_atomically(path: Path, write: Callable[[Path], object], private: Collection[str] = ()) -> None:
    """Call `write` with a temporary path beside `path`, then rename the result to `path`.

    The contents are synced to disk before the rename. A folder replaces an existing folder as a whole. Files get the
    permissions that the umask gives new files, whichever library wrote them; those named in `private` stay as `write`
    made them.

    Raises:
        IsADirectoryError: `path` is a folder, and `write` made a file.
        OSError: raised by `write`, with `path` where it names no file, as on a full disk; with errno ENOSPC if `write`
            failed in another way while the disk was full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    _remove(partial)
    try:
        _write(partial, write)
        umask = os.umask(0)
        os.umask(umask)
        for file in [partial] if partial.is_file() else sorted(partial.rglob("*")):
            if file.is_file() and (path if file == partial else file).name not in private:
                file.chmod(0o666 & ~umask)
            _flush(file)
        if path.is_dir() and not partial.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        if path.is_dir():
            old = path.with_name(f".{path.name}.old")
            _remove(old)
            path.replace(old)
            partial.replace(path)
            _remove(old)
        else:
            partial.replace(path)
        _flush(path.parent)
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    finally:
        _remove(partial)


def read_prompts(path: Path) -> list[str]:
    """Return the prompts of a text file, one per line; empty lines are skipped.

    Raises:
        DataError: the file cannot be read or holds no prompt.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise DataError(f"{path}: there is no such file or folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a UTF-8 text file with one prompt per line; {error}") from error
    if not any(lines):
        raise DataError(f"{path}: holds no prompt")
    return [line for line in lines if line]


def digest(text: str) -> str:
    """Return the first 32 hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()[:32]


@contextmanager
def writing(path: Path, advice: str = "") -> Iterator[None]:
    """Turn an OSError while reading or writing at `path` into a one-line FairHumanError."""
    try:
        yield
    except OSError as error:
        raise FairHumanError(f"{path}: can't be written: {error.strerror or error}{advice}") from error


def nearest_existing(folder: Path) -> Path:
    """Return the folder, or the nearest one above it that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def unwritable(folder: Path) -> str | None:
    """Why a folder, or the one that it would be created in, isn't writable; None if it is."""
    try:
        with tempfile.TemporaryFile(dir=nearest_existing(folder)):
            return None
    except OSError as error:
        return error.strerror or str(error)


@contextmanager
def reading_own(path: Path, advice: str) -> Iterator[None]:
    """Turn any error about the content of a file that this program wrote into one line with what to do.

    The block reads the file, and every value that it needs of it.

    Raises:
        DataError: the file can't be read, or a value is missing or of another type.
    """
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else f"{type(error).__name__}: {error}"
        raise DataError(f"{path}: can't be read as this program wrote it ({reason}); {advice}") from error


def touch(path: Path) -> None:
    """Make an empty file if there is none; never through a symbolic link, which may lead anywhere.

    Raises:
        OSError: names the cause, such as `Too many levels of symbolic links`.
    """
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666))


@contextmanager
def alone(
    file: Path, busy: str, error: type[FairHumanError] = DataError, advice: str = "wait for it or give another folder"
) -> Iterator[None]:
    """Hold an exclusive lock on `file`; the system releases it if the process dies.

    Raises:
        error: another process holds the lock; the message is `busy`, which process it is if the system tells, and
            `advice`.
        OSError: the file cannot be created.
    """
    import filelock  # here: `fairhuman doctor` asks this module for the cache's folder, and has no more than torch

    file.parent.mkdir(parents=True, exist_ok=True)
    touch(file)  # raises an OSError that names the cause, which the lock would not
    lock = filelock.FileLock(file)
    try:
        lock.acquire(timeout=0.1, poll_interval=0.02)  # `is_held` holds it for a moment
    except filelock.Timeout as held:
        process = holder(file)
        raise error(f"{busy}{f' (process {process})' if process else ''}; {advice}") from held
    try:
        yield
    finally:
        lock.release()


def is_held(file: Path) -> bool:
    """Whether a process of this machine holds the lock on `file` that `alone` takes; changes nothing."""
    import fcntl

    try:
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def holder(file: Path) -> int | None:
    """Number of the process of this machine that holds the lock on `file`, where Linux tells; else None."""
    try:
        status = file.stat()
        locks = Path("/proc/locks").read_text(encoding="ascii").splitlines()
    except (OSError, ValueError):
        return None
    place = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    held = [words[4] for words in map(str.split, locks) if words[1] == "FLOCK" and words[5] == place]
    return int(held[0]) if held and held[0].isdecimal() and held[0] != "0" else None


@contextmanager
def leaving_nothing(folder: Path, *first: str) -> Iterator[None]:
    """Remove what the block made of a folder if it fails before anything but the files `first` is in it."""
    made = [one for one in (folder, *folder.parents) if not one.exists()]
    before = {name for name in first if (folder / name).exists()}
    try:
        yield
    except BaseException:
        if folder.is_dir() and {path.name for path in folder.iterdir()} <= set(first):
            for name in set(first) - before:
                (folder / name).unlink(missing_ok=True)
        for one in made:
            if not one.is_dir() or any(one.iterdir()):
                break
            one.rmdir()
        raise


def remove_atomically(folder: Path) -> None:
    """Rename a folder away before deleting it, so that a partly deleted one is never visible."""
    old = folder.with_name(f".{folder.name}.old")
    _remove(old)
    folder.replace(old)
    _remove(old)


def write_text(path: Path, text: str, *, private: bool = False) -> None:
    """Write a UTF-8 file atomically; a private one is readable by its owner alone, from its first byte."""

    def write(partial: Path) -> None:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if private else 0o666)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)

    write_atomically(path, write, {path.name} if private else ())


def write_json(path: Path, content: Any, *, private: bool = False) -> None:
    """Write JSON atomically; NaN is not valid JSON and raises ValueError. For `private` see `write_text`."""
    write_text(path, json.dumps(content, indent=1, allow_nan=False), private=private)


def _write(partial: Path, write: Callable[[Path], object]) -> None:
    """Call `write`; turn any error on a full disk into an OSError, as native libraries raise other types."""
    try:
        write(partial)
    except OSError:
        raise
    except Exception as error:
        if shutil.disk_usage(partial.parent).free < _NEARLY_FULL:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(partial)) from error
        raise


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
