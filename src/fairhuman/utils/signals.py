"""Orderly stops."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def signals(stopped: Callable[[], bool], stop: Callable[[int], None]) -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into a stop after the step; a second one ends at once."""

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
