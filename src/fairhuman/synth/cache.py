"""What is made once a machine and kept: the body model and Warp's compiled kernel."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

from filelock import FileLock

from fairhuman.errors import FairHumanError
from fairhuman.utils.files import cache_folder, write_atomically

Say = Callable[[str], None]


def kept_folder(name: str, fill: Callable[[Path], object], say: Say) -> Path:
    """Return the folder `name` of the cache, made by `fill` if it isn't there yet.

    It appears whole or not at all. Of several processes one makes it while the others wait for its lock, which the
    system opens when its owner dies. `say` is told when there is something to wait for; `fill` gets an empty folder.

    Raises:
        FairHumanError: the cache can't be written, or the disk is full.
    """
    folder = cache_folder() / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder.with_name(f".{name}.lock"))
        if not _lock_at_once(lock):
            say("another process is making the body model: waiting for it")
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


def _lock_at_once(lock: FileLock) -> bool:
    """Take a lock if nobody has it, and say whether it was free."""
    try:
        lock.acquire(blocking=False)
    except TimeoutError:
        return False
    return True


def cache_error(error: OSError) -> FairHumanError:
    """Say in one line what is wrong with the cache and what can be done."""
    return FairHumanError(
        f"the cache {cache_folder()} must be a writable folder with 1 GB free (42 MB stay), found: "
        f"{error.strerror or error}. Another folder can be given in the environment variable FAIRHUMAN_CACHE"
    )
