"""The runs that this studio started, for as long as their folders don't tell how they go on."""

import os
import subprocess
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fairhuman.errors import DataError, RecipeError
from fairhuman.studio.places import place_name
from fairhuman.studio.runs import is_running, last_written
from fairhuman.studio.start import check_place, start

LOG_BYTES, MOST = 4096, 300  # of the end of a log that is looked at; characters of a line that is shown


@dataclass(frozen=True)
class Start:
    """A process that trains since `at`, in seconds since 1970, and what it prints: `log` from byte `since` on."""

    process: subprocess.Popen[bytes]
    log: Path
    since: int
    at: float

    def is_starting(self, changed: float | None) -> bool:
        """Whether the process goes on and has taken no step; the run's last one was written at `changed`."""
        return self.process.poll() is None and (changed is None or changed < self.at)

    def last_line(self) -> str:
        """The last line that isn't empty; empty if there is none yet."""
        try:
            with self.log.open("rb") as file:
                file.seek(max(self.since, file.seek(0, os.SEEK_END) - LOG_BYTES))
                lines = file.read().decode("utf-8", "replace").splitlines()  # a carriage return ends a line, too
        except OSError:
            return ""
        return next((line.strip()[:MOST] for line in reversed(lines) if line.strip()), "")


class Starts:
    """Starts runs below the given folders; its methods may be called by several threads."""

    def __init__(self, folders: Sequence[Path]) -> None:
        self._folders = folders
        self._started: dict[Path, Start] = {}
        self._lock = threading.Lock()

    def problem(self, out: Path) -> str | None:
        """Why no run can be started in a folder; None: it can."""
        try:
            check_place(out, self._folders)
        except DataError as error:
            return str(error)
        begun = self._started.get(out.resolve())
        if is_running(out) or (begun is not None and begun.is_starting(last_written(out))):
            return f"out is {out}, into which a run is writing already"
        return None

    def start(self, words: Sequence[str], out: Path) -> None:
        """Start a run; see `start.start`.

        Raises:
            RecipeError: there is a `problem`.
            DataError: its folder can't be written.
        """
        with self._lock:
            problem = self.problem(out)
            if problem is not None:
                raise RecipeError(problem)
            place = out.resolve()
            log = place.with_name(f"{place.name}.log")
            since = log.stat().st_size if log.is_file() else 0
            self._started[place] = Start(start(words, log), log, since, time.time())

    def added(self, folder: Path, state: str, changed: float | None) -> dict[str, Any]:
        """What to add to a run's state: that it is starting, or why it ended. Else empty.

        Args:
            folder: of the run.
            state: what the folder says.
            changed: when a step was last written, in seconds since 1970.
        """
        begun = self._started.get(folder)
        if begun is None or state in ("running", "stopping"):
            return {}
        if begun.is_starting(changed):
            return {"state": "starting", "says": begun.last_line()}
        code = begun.process.poll()
        return {"says": f"It ended with {code}: {begun.last_line()}"} if code else {}

    def unlisted(self, known: Collection[Path]) -> list[dict[str, Any]]:
        """States of runs whose folders aren't among those `known` as runs: they are starting, or failed to."""
        empty = dict.fromkeys(("steps", "left", "host", "strategy", "model"))
        rows = []
        for folder in [place for place in list(self._started) if place not in known]:
            found = self.added(folder, "", None)
            if found:
                name = place_name(folder, self._folders)
                rows.append({"name": name, "state": "failed", "step": 0, "listed": False, **empty, **found})
        return rows
