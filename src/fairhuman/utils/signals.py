"""Graceful shutdown on Ctrl-C and SIGTERM."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NoReturn

_STDERR = 2


@contextmanager
def signals(stopped: Callable[[], bool], stop: Callable[[int], None], ending: str = "") -> Iterator[None]:
    """Call `stop` on the first Ctrl-C or SIGTERM; raise KeyboardInterrupt on the second.

    Args:
        stopped: whether a stop has been requested already.
        stop: receives the signal number.
        ending: what happens after the first signal, such as `Ending after this step`; told on standard error at once.
    """

    def handle(number: int, _frame: object) -> None:
        if stopped():
            raise KeyboardInterrupt
        stop(number)
        if ending:
            tell(f"{ending}; {'Ctrl-C again' if number == signal.SIGINT else 'another signal'} stops at once")

    before = {number: signal.signal(number, handle) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def announced(text: str) -> Iterator[None]:
    """Tell `text` on standard error as soon as Ctrl-C comes, which otherwise does what it does without this."""
    process = os.getpid()

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, before)
        if os.getpid() == process:  # a forked child has this handler too
            tell(text)
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:  # ignored, or another's
        yield
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def held_back() -> Iterator[Callable[[], None]]:
    """Let the first Ctrl-C wait for the end of the block, or for a call of what is yielded; a second one doesn't.

    Some native modules panic if it comes while they are imported, or lose it while they call Python.
    """
    before = signal.getsignal(signal.SIGINT)
    main = threading.current_thread() is threading.main_thread()  # Python gives signals to the main thread only
    came: list[tuple[int, FrameType | None]] = []

    def deliver() -> None:
        if came and callable(before):
            before(*came.pop())

    def hold(number: int, frame: FrameType | None) -> None:
        again = bool(came)
        came[:] = [(number, frame)]
        if again:
            deliver()

    if main:
        signal.signal(signal.SIGINT, hold)
    try:
        yield deliver
    finally:
        if main:
            signal.signal(signal.SIGINT, before)
        deliver()


def tell(text: str) -> None:
    """Write a line to standard error from a signal's handler, where a stream may be in use."""
    with suppress(OSError):
        os.write(_STDERR, f"{text}\n".encode())


def end_at_once(code: int) -> NoReturn:
    """End this process without the interpreter's own end, during which threads of native libraries may abort it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)
