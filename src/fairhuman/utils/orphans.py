"""Processes that end when the one that started them is gone."""

import multiprocessing
import os
import threading
import time

PARENT_SECONDS = 0.2  # how often a process checks that its parent is still there


def end_with_parent() -> None:
    """Start a thread that ends this process, in the middle of a task too, once its parent is gone, however that ended.

    Not for children of a fork server, whose parent is the server. The end of a pipe wouldn't tell: a fork may hold the
    pipe open.
    """
    started_by = multiprocessing.parent_process()  # known even if it has died meanwhile
    parent = os.getppid() if started_by is None else started_by.pid
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int | None) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(1)
