"""Tasks on many processes, on this machine or on a Ray cluster, by Daft; nothing but tasks and outcomes travels.

https://docs.daft.ai: a stateful user-defined function on batches of one row streams: a million tasks need no more
memory than a few. Outcomes come as they end: where Daft keeps the order (its default), it deals tasks out in turn, and
a process waits while its next task queues behind a long one of another's (a tenth of the time, with two processes).
"""

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, TypeVar

from fairhuman.errors import FairHumanError
from fairhuman.utils.orphans import end_with_parent

# Daft's and Ray's telemetry, and bars of their own beside ours.
QUIET = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0"}

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def run_tasks(
    start: Callable[[], AbstractContextManager[Callable[[Task], Outcome]]],
    tasks: Sequence[Task],
    workers: int,
    ray: str | None = None,
) -> Iterator[Outcome]:
    """Outcomes of all tasks, as they end.

    Args:
        start: called once in each process; its `with` block gives the function that is called with every task.
            Picklable, as tasks and outcomes are.
        tasks: a process gets the next one when it is free.
        workers: number of processes; 0: in this one, without Daft.
        ray: address of a Ray cluster, `local` for one that is started here; None: this machine, without Ray.

    Raises:
        FairHumanError: Daft isn't installed; a task raised, or its process died: says which error.

    """
    if not tasks:
        return
    if workers == 0:
        with start() as do:
            yield from map(do, tasks)
        return
    daft = _daft(ray)

    @daft.cls(max_concurrency=workers, use_process=True)
    class Worker:
        def __init__(self, pickled: bytes) -> None:
            self._work = _Work(pickled)

        @daft.method(return_dtype=daft.DataType.binary())  # type: ignore[untyped-decorator]
        def do(self, task: bytes) -> bytes:
            return self._work(task)

    worker = Worker(pickle.dumps(start))
    frame = daft.from_pydict({"task": [pickle.dumps(task) for task in tasks]}).into_batches(1)
    try:
        with daft.execution_config_ctx(maintain_order=False):
            rows = frame.select(worker.do(daft.col("task")).alias("outcome")).iter_rows()
            for row in rows:
                outcome = pickle.loads(row["outcome"])
                if isinstance(outcome, _Raised):
                    raise FairHumanError(outcome.text)
                yield outcome
    except FairHumanError:
        raise
    except Exception as error:
        raise FairHumanError(f"a worker ended before its task did: {error}") from error


def _daft(ray: str | None) -> Any:
    """Daft's module, quiet, with the runner that is asked for."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import daft
    except ImportError as error:
        raise FairHumanError(f"building data sets needs daft: pip install 'fairhuman[data]' ({error})") from error
    if ray is not None:
        daft.set_runner_ray(None if ray == "local" else ray, noop_if_initialized=True)
    return daft


class _Work:
    """What one process does; loads at the first task, as Daft makes the object in other places too."""

    def __init__(self, pickled: bytes) -> None:
        self._pickled = pickled
        self._stack = ExitStack()
        self._do: Callable[[Any], Any] | None = None

    def __call__(self, task: bytes) -> bytes:
        try:
            if self._do is None:
                end_with_parent()  # a killed run must not go on writing where the next one is at work
                self._do = self._stack.enter_context(pickle.loads(self._pickled)())
            return pickle.dumps(self._do(pickle.loads(task)))
        except Exception as error:
            return pickle.dumps(_Raised(error))


class _Raised:
    """An exception as text: the original may not be picklable."""

    def __init__(self, error: Exception) -> None:
        name = "" if isinstance(error, FairHumanError) else f"{type(error).__name__}: "
        self.text = f"{name}{error}"
