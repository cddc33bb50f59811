"""Cache of what is built once per machine: the body model and Warp's compiled kernel."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import FileLock

from fairhuman.errors import FairHumanError
from fairhuman.utils.files import cache_folder, write_atomically

Say = Callable[[str], None]


def cached_folder(name: str, fill: Callable[[Path], object], say: Say) -> Path:
    """Return the folder `name` of the cache, and fill it with `fill` if it doesn't exist yet.

    It is created atomically. Of several processes one fills it while the others wait for its lock, which the system
    releases if its owner dies. `say` is called before waiting; `fill` gets an empty folder.

    Raises:
        FairHumanError: the cache can't be written, or the disk is full.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{name}.lock"))
        if not _try_lock(lock):
            say("another process is building the body model: waiting for it")
            lock.acquire()
        try:
            if not folder.is_dir():
                write_atomically(folder, partial(_fill, fill))
        finally:
            lock.release()
    except OSError as error:
        raise cache_error(error) from error
    return folder


def _fill(fill: Callable[[Path], object], folder: Path) -> None:
    folder.mkdir()
    fill(folder)


def _try_lock(lock: FileLock) -> bool:
    """Acquire a lock without waiting; return whether it was free."""
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        return False
    return True


def cache_error(error: OSError) -> FairHumanError:
    """Describe an error of the cache and its remedy."""
    return FairHumanError(
        f"the cache {cache_folder()} must be a writable folder with 1 GB free (42 MB stay), found: "
        f"{error.strerror or error}. Set the environment variable FAIRHUMAN_CACHE to use another folder"
    )
