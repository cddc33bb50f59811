"""What a guarded process runs in tests: it does what it is told, and dies, hangs or grows on request."""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fairhuman.detect.guard import Guarded

kept: list[bytearray] = []


@contextmanager
def worker(log: Path | None = None) -> Iterator[Callable[[str], int]]:
    """Does what it is told, and gives its process id."""

    def obey(order: str) -> int:
        if order == "die":
            os.kill(os.getpid(), signal.SIGSEGV)
        if order == "hang":
            time.sleep(600)
        if order == "fail":
            raise LookupError("no such thing")
        if order == "grow":
            kept.append(bytearray(b"x") * (60 * 2**20))
        return os.getpid()

    yield obey
    if log is not None:
        (log / str(os.getpid())).touch()


@contextmanager
def wont_start() -> Iterator[Callable[[str], int]]:
    raise OSError("no model here")
    yield


@contextmanager
def starts_once(mark: Path) -> Iterator[Callable[[str], int]]:
    mark.touch(exist_ok=False)
    with worker() as obey:
        yield obey


@contextmanager
def squarer(log: Path | None = None) -> Iterator[Callable[[int], int]]:
    def square(number: int) -> int:
        if number == 3:
            os.kill(os.getpid(), signal.SIGSEGV)
        if number == 5:
            time.sleep(600)
        if number == 7:
            raise LookupError("seven")
        return number * number

    yield square
    if log is not None:
        (log / str(os.getpid())).touch()


def in_a_daemon(answers: "multiprocessing.Queue[object]") -> None:
    with Guarded(worker) as guarded:
        answers.put((guarded.call("work"), guarded.call("die"), guarded.call("work")))
    answers.put(multiprocessing.current_process().daemon)
