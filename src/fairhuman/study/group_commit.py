"""Group commit: writes of several threads in one transaction, since an SQLite commit waits for the disk."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from fairhuman.web.app import RefusedError
from fairhuman.web.database import transaction

Write = Callable[[Connection], int]


@dataclass
class _Job:
    write: Write
    result: int = 0
    error: Exception | None = None
    done: bool = False


class GroupCommit:
    """Batches writes that arrive during a commit; the first waiting thread commits all of them together.

    Each call returns after the commit of its write. On databases with concurrent writers, each write has its own
    transaction.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._alone = engine.dialect.name == "sqlite"
        self._turn = threading.Lock()
        self._adding = threading.Lock()
        self._waiting: list[_Job] = []

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction; on SQLite under a lock, whose waiting threads continue sooner than those in its busy loop."""
        with self._turn if self._alone else nullcontext(), transaction(self._engine) as connection:
            yield connection

    def run(self, write: Write) -> int:
        """Run `write` in a transaction, possibly shared with other writes; returns its result after the commit.

        `write` may raise RefusedError only before it has written anything; other writes in the transaction are not
        affected. Any other error rolls back all of them and is raised in every call.
        """
        if not self._alone:
            with transaction(self._engine) as connection:
                return write(connection)
        job = _Job(write)
        with self._adding:
            self._waiting.append(job)
        with self._turn:
            if not job.done:
                with self._adding:
                    batch, self._waiting = self._waiting, []
                self._commit(batch)
        if job.error is not None:
            raise job.error
        return job.result

    def _commit(self, batch: list[_Job]) -> None:
        try:
            with transaction(self._engine) as connection:
                for job in batch:
                    try:
                        job.result = job.write(connection)
                    except RefusedError as refused:
                        job.error = refused
        except Exception as error:
            for job in batch:
                job.error = error
        finally:
            for job in batch:
                job.done = True
