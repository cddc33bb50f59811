"""Rows of the data set, rendered by several processes, in order."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.synchronize import Event
from typing import Any, Protocol

from fairhuman.errors import DataError
from fairhuman.synth.body import Body, prepare_body
from fairhuman.synth.cache import Say
from fairhuman.synth.cast import compile_kernel
from fairhuman.utils.orphans import end_with_parent

Row = dict[str, Any]
_TASK_ROWS = 16


class MakeRow(Protocol):
    """Renders the row of a number; must be picklable."""

    def __call__(self, body: Body, number: int) -> Row:
        """Return the row."""


def rendered_rows(make_row: MakeRow, numbers: Sequence[int], workers: int | None, say: Say) -> Iterator[Row]:
    """Yield the rows of `numbers` in order, rendered by `workers` processes (default: one a core).

    Raises:
        DataError: a worker was killed.
        FairHumanError: the body model can't be made.
    """
    tasks = [numbers[start : start + _TASK_ROWS] for start in range(0, len(numbers), _TASK_ROWS)]
    count = min(workers or _cores(), len(tasks))
    if count <= 1:
        if tasks:
            body = Body(say)
            yield from (make_row(body, number=number) for number in numbers)
        return
    # Made here, so that the workers find them: their messages and errors would reach nobody.
    prepare_body(say)
    compile_kernel()
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start, initargs=(stop,))
    try:
        for rows in pool.map(partial(_work, make_row), tasks):
            yield from rows
    except BrokenProcessPool as error:
        raise DataError(
            "a rendering process was killed (out of memory?); run the same command again to resume"
        ) from error
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


def _cores() -> int:
    """The cores that this process may use; all of them where the system doesn't tell, as macOS."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_body: Body | None = None
_stop: Event | None = None


def _start(stop: Event) -> None:
    """Set up a worker: it leaves Ctrl-C to its parent, and ends when its parent does."""
    import torch

    global _body, _stop
    _stop = stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
    torch.set_num_threads(1)
    _body = Body()


def _work(make_row: MakeRow, numbers: Sequence[int]) -> list[Row]:
    """Render rows; stop early when the results are no longer needed."""
    assert _body is not None
    assert _stop is not None
    rows = []
    for number in numbers:
        if _stop.is_set():
            break
        rows.append(make_row(_body, number=number))
    return rows
