"""Processes that end when the one that started them is gone."""

import os
import threading
import time

PARENT_SECONDS = 0.2  # how often a process checks that its parent is still there


def end_with(parent: int) -> None:
    """Start a thread that ends this process once `parent`, a process id, isn't its parent any more.

    Also in the middle of a task, and however the parent ended: a pipe doesn't tell, as a fork may hold it open.
    """
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)
