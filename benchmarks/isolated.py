"""Calls in a process of their own, which may crash, run out of memory or take too long."""

import contextlib
import multiprocessing
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol


class Failure(Exception):  # noqa: N818 - the outcome of a call, and no fault of this program
    """A call ended without a result; says why."""


class Caller(Protocol):
    """Makes a call, and gives its result later."""

    def send(self, argument: Any) -> None:
        """Begin the call."""

    def receive(self, limit: float) -> Any:
        """Return its result; or raise `Failure`, also after `limit` seconds."""

    def close(self) -> None:
        """End the process, if there is one."""


class Here:
    """Calls in this process, which know no limit."""

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function

    def send(self, argument: Any) -> None:
        self._argument = argument

    def receive(self, limit: float) -> Any:  # noqa: ARG002 - as of `Isolated`
        try:
            return self._function(self._argument)
        except Exception as error:
            raise Failure(f"{type(error).__name__}: {error}") from error

    def close(self) -> None:
        """Nothing is open."""


class Isolated:
    """Calls of a function in one other process, which is replaced after a call that failed.

    The function, its argument and its result are pickled. A process that imports much does so once.
    """

    def __init__(self, function: Callable[[Any], Any]) -> None:
        self._function = function
        self._context = multiprocessing.get_context("spawn")  # a forked process can't use CUDA
        self._process: Any = None
        self._ours: Connection | None = None

    def send(self, argument: Any) -> None:
        if self._ours is None:
            self._ours, theirs = self._context.Pipe()
            self._process = self._context.Process(target=_answer, args=(self._function, theirs))
            self._process.start()
            theirs.close()
        self._ours.send(argument)

    def receive(self, limit: float) -> Any:
        assert self._ours is not None, "send comes first"
        try:
            if not self._ours.poll(limit):
                raise Failure(f"not done in {limit:.0f} s")
            found, error = self._ours.recv()
        except EOFError:
            self._process.join()
            error = f"the process ended with exit code {self._process.exitcode}"
        except Failure:
            self.close()
            raise
        if error is None:
            return found
        self.close()
        raise Failure(error)

    def close(self) -> None:
        if self._ours is not None:
            self._ours.close()
            self._process.kill()
            self._process.join()
            self._ours = self._process = None


def _answer(function: Callable[[Any], Any], theirs: Connection) -> None:
    with contextlib.suppress(EOFError, KeyboardInterrupt):  # the other side has ended
        while True:
            argument = theirs.recv()
            try:
                found, error = function(argument), None
            except Exception as raised:
                found, error = None, f"{type(raised).__name__}: {raised}"
            theirs.send((found, error))
