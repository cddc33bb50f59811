"""Room in main memory for the pictures that the threads of a process decode at the same time."""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class DecodingRoom:
    """Lets threads hold up to `size` bytes together. A thread that needs more waits until it is alone, and gets it."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._empty()
        os.register_at_fork(after_in_child=self._empty)  # the parent's threads, which hold some, aren't in the child

    def _empty(self) -> None:
        self._held = 0
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, amount: int) -> Iterator[None]:
        """Hold `amount` bytes, once there is room for them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + amount <= self.size)
            self._held += amount
        try:
            yield
        finally:
            with self._changed:
                self._held -= amount
                self._changed.notify_all()
