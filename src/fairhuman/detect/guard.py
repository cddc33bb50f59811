"""Work in separate processes, so that native code that crashes or hangs costs one item and not the run."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from fairhuman.detect.detection import DetectorError
from fairhuman.detect.worker import Failure, Worker, with_news
from fairhuman.utils.memory import resident_mb

Item = TypeVar("Item")
Result = TypeVar("Result")


def guarded_map(
    start: Callable[[], AbstractContextManager[Callable[[Item], Result]]],
    items: Sequence[Item],
    *,
    workers: int = 1,
    seconds: float = 60.0,
) -> Generator[tuple[int, Result | Failure], None, None]:
    """Results of all items with their index, in the order of completion.

    Processes are spawned, not forked: native libraries don't survive a fork. A process that dies or takes too long
    is replaced by a fresh one, and its item gives a `Failure`; so does an exception. To stop early, close the generator
    (`contextlib.closing`), which ends the processes.

    Args:
        start: called once in each process; its `with` block gives the function that is called with every item. Must
            be picklable, like items and results.
        items: each is read once, when a process is free for it, so they may be made on demand.
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

    Use it in a `with` block, from one thread. It can also be opened in a daemonic process. Its process ends with the
    one that opened it, however that ends.

    Args:
        start: called in each new process; its `with` block gives the function that is called with every item. Must
            be picklable, like items and results.
        seconds: time limit of one item.
        max_rss_mb: resident memory after an item, in MiB, above which the process is replaced; ignored on
            systems without /proc.

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
    ) -> None:
        if not seconds > 0:
            raise ValueError(f"seconds must be positive, not {seconds}")
        if not max_rss_mb > 0:
            raise ValueError(f"max_rss_mb must be positive, not {max_rss_mb}")
        self._start, self._seconds, self._max_rss_mb = start, seconds, max_rss_mb
        self._worker: Worker | None = None
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
            with_news([worker])
            result: Result | Failure = worker.collect()
        except BaseException:  # a late result must not be taken for that of the next item
            self._end(worker.kill)
            raise
        if not worker.alive:
            self._end(worker.kill)
        elif resident_mb(worker.process.pid) > self._max_rss_mb:
            self._end(worker.stop)
        return result

    def _ready_worker(self) -> "Worker":
        if self._worker is not None and self._worker.pipe.poll():  # nothing was asked, so this is the pipe's end
            self._end(self._worker.kill)
        if self._worker is None:
            worker = Worker(self._start)
            try:
                with_news([worker])
                worker.collect()
            except BaseException:
                worker.kill()
                raise
            self._worker = worker
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


def _run(
    start: Callable[[], Any], items: Sequence[Any], workers: int, seconds: float
) -> Generator[tuple[int, Any], None, None]:
    waiting = deque(range(len(items)))
    crew: list[Worker] = []
    try:
        while waiting or crew:
            idle = sum(worker.index is None for worker in crew)
            while len(crew) < workers and idle < len(waiting):
                crew.append(Worker(start))
                idle += 1
            for worker in with_news(crew):
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
