"""Work in processes of its own, so that native code that crashes or hangs costs one item and not the run."""

import multiprocessing
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from fairhuman.detect.detection import DetectorError

Item = TypeVar("Item")
Result = TypeVar("Result")

START_SECONDS = 180.0  # a process imports its modules and loads its models, perhaps from a slow disk
STOP_SECONDS = 5.0
ORPHAN_SECONDS = 1.0  # how often a process looks whether the one that started it is still there


@dataclass(frozen=True, slots=True)
class Failure:
    """An item that gave no result, and why."""

    reason: str


def guarded_map(
    start: Callable[[], AbstractContextManager[Callable[[Item], Result]]],
    items: Sequence[Item],
    *,
    workers: int = 1,
    seconds: float = 60.0,
) -> Generator[tuple[int, Result | Failure], None, None]:
    """Results of all items with their index, in the order in which they get ready.

    Processes are spawned, not forked: native libraries don't survive a fork. A process that dies or takes too long
    is replaced by a fresh one, and its item gives a `Failure`; so does an exception. Whoever may leave early closes the
    generator (`contextlib.closing`), which ends the processes.

    Args:
        start: called once in each process; its `with` block gives the function that is called with every item. Has
            to be picklable, as items and results have.
        items: asked for by index, each once, when a process is free for it: they may be made on demand.
        workers: number of processes, ≥ 1.
        seconds: time limit of one item.

    Raises:
        ValueError: `workers` or `seconds` is out of range.
        DetectorError: a process died, failed or hung before its first item.

    """
    if workers < 1:
        raise ValueError(f"workers must be at least 1, not {workers}")
    if not seconds > 0:
        raise ValueError(f"seconds must be positive, not {seconds}")
    return _run(start, items, workers, seconds)


def guarded_results(
    start: Callable[[], AbstractContextManager[Callable[[Item], Result]]],
    pictures: Sequence[Item],
    *,
    workers: int = 1,
    seconds: float = 60.0,
) -> Generator[tuple[int, Result], None, None]:
    """`guarded_map` for pictures of which every one has to give a result.

    Raises:
        ValueError: `workers` or `seconds` is out of range.
        DetectorError: models can't be loaded, or a picture is refused, crashes them or takes too long: names it.

    """
    with closing(guarded_map(start, pictures, workers=workers, seconds=seconds)) as work:
        for index, result in work:
            if isinstance(result, Failure):
                raise DetectorError(f"picture {index} of {len(pictures)} (the first is 0): {result.reason}")
            yield index, result


def in_order(
    results: Iterable[tuple[int, Result]], count: int, progress: Callable[[int, int], None] | None = None
) -> list[Result]:
    """All `count` results by index; `progress` is called with (done, all) after every one."""
    found: dict[int, Result] = {}
    for index, result in results:
        found[index] = result
        if progress is not None:
            progress(len(found), count)
    return [found[index] for index in range(count)]


class Guarded(Generic[Item, Result]):
    """One process for many calls over a long time; when it dies, hangs or grows too large, the next call has a new one.

    To be used in a `with` block, by one thread. It can be opened in a daemonic process too, and its own process ends
    when the opening one does, however that happens.

    Args:
        start: called in each new process; its `with` block gives the function that is called with every item. Has to
            be picklable, as items and results have.
        seconds: time limit of one item.
        max_rss_mb: resident memory after an item, in MiB, above which the process is replaced; not known, so not
            looked at, where the system has no /proc.
        max_items: number of items after which the process is replaced; None = no limit.

    Raises:
        ValueError: an argument is out of range.
        DetectorError: by `with` or `call`, if a new process dies, fails or hangs before its first item.

    """

    def __init__(
        self,
        start: Callable[[], AbstractContextManager[Callable[[Item], Result]]],
        seconds: float = 60.0,
        *,
        max_rss_mb: float = 3000.0,
        max_items: int | None = None,
    ) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, not {seconds}")
        if not max_rss_mb > 0:
            raise ValueError(f"max_rss_mb must be positive, not {max_rss_mb}")
        if max_items is not None and max_items < 1:
            raise ValueError(f"max_items must be at least 1, not {max_items}")
        self._start, self._seconds, self._max_rss_mb, self._max_items = start, seconds, max_rss_mb, max_items
        self._worker: _Worker | None = None
        self._items = 0
        self._opened = False

    def call(self, item: Item) -> Result | Failure:
        """The result of an item; a failure if it raises, kills its process or takes too long.

        Raises:
            ValueError: outside of the `with` block.
            DetectorError: a new process was needed and didn't get ready.

        """
        if not self._opened:
            raise ValueError("Guarded must be open to call: use it in a `with` block")
        worker = self._ready_worker()
        try:
            worker.give(0, item, self._seconds)
            _with_news([worker])
            result: Result | Failure = worker.collect()
        except BaseException:  # a late result must not be taken for that of the next item
            self._end(worker.kill)
            raise
        self._items += 1
        if not worker.alive:
            self._end(worker.kill)
        elif self._items == self._max_items or resident_mb(worker.process.pid) > self._max_rss_mb:
            self._end(worker.stop)
        return result

    def _ready_worker(self) -> "_Worker":
        if self._worker is not None and self._worker.pipe.poll():  # nothing was asked, so this is the pipe's end
            self._end(self._worker.kill)
        if self._worker is None:
            worker = _Worker(self._start)
            try:
                _with_news([worker])
                worker.collect()
            except BaseException:
                worker.kill()
                raise
            self._worker, self._items = worker, 0
        return self._worker

    def _end(self, how: Callable[[], None]) -> None:
        self._worker = None
        how()

    def __enter__(self) -> Self:
        self._opened = True
        self._ready_worker()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._opened = False
        if self._worker is not None:
            self._end(self._worker.stop)


def resident_mb(pid: int | None) -> float:
    """Resident memory of a process in MiB; 0 where it, or /proc, isn't there."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    except (OSError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def _run(
    start: Callable[[], Any], items: Sequence[Any], workers: int, seconds: float
) -> Generator[tuple[int, Any], None, None]:
    waiting = deque(range(len(items)))
    crew: list[_Worker] = []
    try:
        while waiting or crew:
            idle = sum(worker.index is None for worker in crew)
            while len(crew) < workers and idle < len(waiting):
                crew.append(_Worker(start))
                idle += 1
            for worker in _with_news(crew):
                index, result = worker.index, worker.collect()
                if worker.alive and waiting:
                    following = waiting.popleft()
                    worker.give(following, items[following], seconds)
                else:
                    crew.remove(worker)
                    worker.stop()
                if index is not None:
                    yield index, result
    finally:
        for worker in crew:
            worker.kill()


class _Worker:
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
        """What came back: a result or a failure; or None, once, as the sign of being ready."""
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
            raise DetectorError(f"detectors must start before the first picture: {result.reason}")
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


def _with_news(crew: Sequence[_Worker]) -> list[_Worker]:
    """Wait until workers have said something, have died or are beyond their time; those."""
    left = min(worker.deadline for worker in crew) - time.monotonic()
    ready = wait([worker.pipe for worker in crew], timeout=max(left, 0.0))
    now = time.monotonic()
    return [worker for worker in crew if worker.pipe in ready or now >= worker.deadline]


@contextmanager
def _may_start_processes() -> Iterator[None]:
    """Let a daemonic process start one: multiprocessing forbids it because a killed one leaves its own behind.

    Those started here don't stay behind: each ends when the process that started it is gone (`_end_with`).
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
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()
    ready = False
    try:
        with start() as work:
            pipe.send(None)
            ready = True
            _answer(pipe, work)
    except Exception as error:
        if ready:
            raise
        pipe.send(_failure(error))


def _end_with(parent: multiprocessing.process.BaseProcess | None) -> None:
    """End this process when its parent is gone, also in the middle of an item; a fork may hold the pipe open."""
    while parent is not None and os.getppid() == parent.pid:
        time.sleep(ORPHAN_SECONDS)
    os._exit(1)


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
