"""Writes of several threads in one transaction: on SQLite a commit waits for the disk, and lets nobody else write."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
    """Threads that come while the disk is busy are written all at once by the first of them whose turn it is.

    Each is answered after the commit that holds what it wrote. On databases that take several writers each write has a
    transaction of its own.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._alone = engine.dialect.name == "sqlite"
        self._turn = threading.Lock()
        self._adding = threading.Lock()
        self._waiting: list[_Job] = []

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A transaction in turn: threads that wait here go on sooner than those that SQLite lets sleep."""
        if not self._alone:
            with transaction(self._engine) as connection:
                yield connection
            return
        with self._turn, transaction(self._engine) as connection:
            yield connection

    def run(self, write: Write) -> int:
        """Run `write` in a transaction, maybe a shared one; what it returns once that is committed.

        It may refuse (RefusedError) only before it has written anything: others in the same transaction go on. Any
        other error undoes them all, and is raised to all.
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
