"""Tasks for the processes of a build."""

import os
import time
from contextlib import contextmanager

from fairhuman.errors import FairHumanError


@contextmanager
def squares():
    def do(task: int) -> int:
        if task < 0:
            raise ValueError(f"task must be at least 0, not {task}")
        return task * task

    yield do


@contextmanager
def broken():
    raise FairHumanError("weights.bin: no such file")
    yield


@contextmanager
def waiting():
    def wait(path):
        ends = time.monotonic() + 60
        while path is not None and not path.exists():
            assert time.monotonic() < ends, "nothing came before the first task's end"
            time.sleep(0.01)
        return path

    yield wait


@contextmanager
def seeing_gpus():
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")

    def look(_: int) -> tuple[int, str | None]:
        time.sleep(0.05)
        return os.getpid(), visible

    yield look
