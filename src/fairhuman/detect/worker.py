"""A process that handles items one at a time, and the failure of one that dies or hangs."""

import multiprocessing
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

from fairhuman.detect.detection import DetectorError
from fairhuman.utils.orphans import end_with_parent

START_SECONDS = 180.0  # a process imports its modules and loads its models, perhaps from a slow disk
STOP_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that gave no result, and why."""

    reason: str


class Worker:
    """A process, the pipe to it, and the index of the item it has: None until it is ready for its first one."""

    def __init__(self, start: Callable[[], Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, far_end = context.Pipe()
        self.process = context.Process(target=_serve, args=(far_end, start), daemon=True)
        with _may_start_processes():
            self.process.start()
        far_end.close()  # so that the death of the process is the end of the pipe
        self.index: int | None = None
        self.deadline = time.monotonic() + START_SECONDS
        self.alive = True

    def give(self, index: int, item: Any, seconds: float) -> None:
        """Send an item; if the process has just died, `collect` will tell."""
        self.index = index
        with suppress(BrokenPipeError, ConnectionResetError):
            self.pipe.send(item)
        self.deadline = time.monotonic() + seconds

    def collect(self) -> Any:
        """The process's answer: a result or a failure; or None, once, when it is ready."""
        if self.pipe.poll():
            try:
                result = self.pipe.recv()
            except (EOFError, ConnectionResetError):
                self.process.join(STOP_SECONDS)
                result = self._lost(f"the process died ({_exit_text(self.process.exitcode)})")
        else:
            result = self._lost("the process took too long and was ended")
        if self.index is None and isinstance(result, Failure):
            self.kill()
            raise DetectorError(f"a detector can't start: {result.reason}")
        return result

    def _lost(self, reason: str) -> Failure:
        self.alive = False
        return Failure(reason)

    def stop(self) -> None:
        """Let the process end by itself, which closes what `start` opened; end it if it doesn't or can't."""
        self.pipe.close()
        if self.alive:
            self.process.join(STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process; it is gone afterwards."""
        self.pipe.close()
        self.process.kill()
        self.process.join()


def with_news(crew: Sequence[Worker]) -> list[Worker]:
    """Wait until workers have said something, have died or are beyond their time; those."""
    left = min(worker.deadline for worker in crew) - time.monotonic()
    ready = wait([worker.pipe for worker in crew], timeout=max(left, 0.0))
    now = time.monotonic()
    return [worker for worker in crew if worker.pipe in ready or now >= worker.deadline]


@contextmanager
def _may_start_processes() -> Iterator[None]:
    """Let a daemonic process start one: multiprocessing forbids it because a killed one leaves its own behind.

    Those started here don't stay behind: each ends when the process that started it is gone (`end_with_parent`).
    """
    current = multiprocessing.current_process()
    daemonic = current.daemon
    if daemonic:
        current.daemon = False
    try:
        yield
    finally:
        if daemonic:
            current.daemon = True


def _exit_text(code: int | None) -> str:
    if code is None or code >= 0:
        return f"exit code {code}"
    with suppress(ValueError):
        return signal.Signals(-code).name
    return f"signal {-code}"


def _serve(pipe: Connection, start: Callable[[], Any]) -> None:
    """Life of a process: start, answer every item, end when the pipe does or the process that started it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes; the first one ends the others
    end_with_parent()
    ready = False
    try:
        with start() as work:
            pipe.send(None)
            ready = True
            _answer(pipe, work)
    except Exception as error:
        if ready:
            raise
        pipe.send(Failure(": ".join([*getattr(error, "__notes__", ()), _failure(error).reason])))


def _answer(pipe: Connection, work: Callable[[Any], Any]) -> None:
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):  # no more items, or the first process is gone
        while True:
            item = pipe.recv()
            try:
                result = work(item)
            except Exception as error:
                result = _failure(error)
            pipe.send(result)


def _failure(error: Exception) -> Failure:
    return Failure(f"{type(error).__name__}: {error}")
