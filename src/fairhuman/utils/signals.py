"""Graceful shutdown on Ctrl-C and SIGTERM."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signals(stopped: Callable[[], bool], stop: Callable[[int], None]) -> Iterator[None]:
    """Call `stop` on the first Ctrl-C or SIGTERM; raise KeyboardInterrupt on the second.

    Args:
        stopped: whether a stop has been requested already.
        stop: receives the signal number.
    """

    def handle(number: int, _frame: object) -> None:
        if stopped():
            raise KeyboardInterrupt
        stop(number)

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
