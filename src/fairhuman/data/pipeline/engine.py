"""Run tasks in many processes with Daft, on this machine or on a Ray cluster; only tasks and outcomes are transferred.

https://docs.daft.ai: a stateful user-defined function on batches of one row streams, so a million tasks take no more
memory than a few. Outcomes arrive in the order of completion. With Daft's default, the order of the tasks, tasks are
assigned round-robin, and a process idles while its next task waits behind a long one of another process (10 % of the
time with two processes).
"""

import logging
import os
import pickle
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from fairhuman.errors import FairHumanError
from fairhuman.utils.orphans import end_with_parent
from fairhuman.utils.signals import held_back

# Switch off Daft's and Ray's telemetry, Daft's progress bars, which would appear beside ours, and ids of its queries.
QUIET = {"DO_NOT_TRACK": "1", "RAY_USAGE_STATS_ENABLED": "0", "DAFT_PROGRESS_BAR": "0", "DAFT_SHOW_QUERY_ID": "0"}
# Logs an error for each worker that takes over 5 seconds to end after its last task; errors of tasks are raised anyway.
NOISY = "daft_local_execution"

Task = TypeVar("Task")
Outcome = TypeVar("Outcome")


def run_tasks(
    start: Callable[[], AbstractContextManager[Callable[[Task], Outcome]]],
    tasks: Sequence[Task],
    workers: int,
    ray: str | None = None,
    gpu: str | None = None,
) -> Iterator[Outcome]:
    """Run all tasks and yield their outcomes in the order of completion.

    Args:
        start: called once per process; returns a context manager with the function that runs a task. It must be
            picklable, as must tasks and outcomes.
        tasks: a process gets the next one when it is free.
        workers: number of processes; 0: run in this process, without Daft.
        ray: address of a Ray cluster, or `local` to start one here; None: this machine, without Ray.
        gpu: CUDA device that each process computes on, `cuda`: one of its own; None: it needs none. There are no more
            processes than GPUs, if there is any.

    Raises:
        FairHumanError: Daft isn't installed; a task raised an error or its process died (the message says which).
    """
    if not tasks:
        return
    if workers == 0:
        with start() as run:
            yield from map(run, tasks)
        return
    with held_back() as deliver:  # Daft loses a Ctrl-C that comes while it calls Python
        for outcome in _run_by_daft(start, tasks, workers, ray, gpu):
            deliver()
            yield outcome


def _run_by_daft(
    start: Callable[[], AbstractContextManager[Callable[[Task], Outcome]]],
    tasks: Sequence[Task],
    workers: int,
    ray: str | None,
    gpu: str | None,
) -> Iterator[Outcome]:
    daft = _import_daft(ray)
    gpus = 0 if gpu is None else _gpus(gpu, ray)
    workers = min(workers, gpus) if gpus else workers

    @daft.cls(max_concurrency=workers, use_process=True, gpus=1 if gpus and ray else 0)
    class Worker:
        def __init__(self, pickled: bytes, claims: Path | None) -> None:
            self._runner = _TaskRunner(pickled, claims)

        @daft.method(return_dtype=daft.DataType.binary())  # type: ignore[untyped-decorator]
        def run(self, task: bytes) -> bytes:
            return self._runner(task)

    frame = daft.from_pydict({"task": [pickle.dumps(task) for task in tasks]}).into_batches(1)
    try:
        with tempfile.TemporaryDirectory() as claims, daft.execution_config_ctx(maintain_order=False):
            worker = Worker(pickle.dumps(start), Path(claims) if workers > 1 and gpus and not ray else None)
            rows = frame.select(worker.run(daft.col("task")).alias("outcome")).iter_rows()
            for row in rows:
                outcome = pickle.loads(row["outcome"])
                if isinstance(outcome, _Raised):
                    raise FairHumanError(outcome.text)
                yield outcome
    except FairHumanError:
        raise
    except Exception as error:
        raise FairHumanError(f"a worker process ended before its task was done: {error}") from error


def _import_daft(ray: str | None) -> Any:
    """Import Daft and, with the address of a cluster, connect it to Ray."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    try:
        import daft
    except ImportError as error:
        raise FairHumanError(f"building data sets needs daft: pip install 'fairhuman[data]' ({error})") from error
    logging.getLogger(NOISY).setLevel(logging.CRITICAL)
    if ray is not None:
        daft.set_runner_ray(None if ray == "local" else ray, noop_if_initialized=True)
    return daft


def _gpus(gpu: str, ray: str | None) -> int:
    """Return how many GPUs the processes can have: those of the cluster, or of this machine, or the one named."""
    if ray is not None:
        import ray as cluster

        return int(cluster.cluster_resources().get("GPU", 0))
    from fairhuman.utils.torch_device import visible_gpus

    count = len(visible_gpus())
    return count if gpu == "cuda" else min(count, 1)


@contextmanager
def _own_gpu(claims: Path) -> Iterator[None]:
    """Show CUDA one GPU alone, that no other process has claimed in the folder; Ray does so by itself."""
    import filelock

    number = 0
    while True:
        lock = filelock.FileLock(claims / str(number))
        try:
            lock.acquire(timeout=0)
            break
        except filelock.Timeout:
            number += 1
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    os.environ["CUDA_VISIBLE_DEVICES"] = shown.split(",")[number] if shown else str(number)
    try:
        yield
    finally:
        lock.release()


class _TaskRunner:
    """Runs tasks in one process; loads at the first task, because Daft creates the object in other processes too.

    `claims`: folder in which the processes claim a GPU each; None: they don't.
    """

    def __init__(self, pickled: bytes, claims: Path | None = None) -> None:
        self._pickled, self._claims = pickled, claims
        self._stack = ExitStack()
        self._run: Callable[[Any], Any] | None = None

    def __call__(self, task: bytes) -> bytes:
        try:
            if self._run is None:
                end_with_parent()  # workers of a killed run must not write into the folder of the next run
                if self._claims is not None:
                    self._stack.enter_context(_own_gpu(self._claims))
                self._run = self._stack.enter_context(pickle.loads(self._pickled)())
            return pickle.dumps(self._run(pickle.loads(task)))
        except Exception as error:
            return pickle.dumps(_Raised(error))


class _Raised:
    """An exception as text: the original may not be picklable."""

    def __init__(self, error: Exception) -> None:
        name = "" if isinstance(error, FairHumanError) else f"{type(error).__name__}: "
        self.text = f"{name}{error}"
