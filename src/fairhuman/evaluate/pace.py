"""How long an evaluation's kinds of work take, from their progress."""

import resource
import time

from fairhuman.evaluate.pictures import Progress
from fairhuman.utils.memory import peak_resident_bytes

PLANNED = 5000  # pictures of a test set, as in the paper


class TimedProgress:
    """A `Progress` that hands on what it is told, and keeps the time between two reports of one kind of work.

    What comes before the first report of a kind, such as loading a network, isn't in it.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last: dict[str, tuple[float, int]] = {}
        self._sums: dict[str, tuple[float, int]] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Take in that `done` of `total` pictures are done."""
        now = time.perf_counter()
        began, before = self._last.get(what, (now, done))
        seconds, pictures = self._sums.get(what, (0.0, 0))
        if done > before:  # else another method's pictures begin
            self._sums[what] = seconds + now - began, pictures + done - before
        self._last[what] = now, done
        self._progress(what, done, total)

    def seconds(self) -> dict[str, tuple[int, float]]:
        """Of each kind of work, the pictures that were timed and the seconds that one took."""
        return {what: (pictures, seconds / pictures) for what, (seconds, pictures) in self._sums.items()}


def peak_mb() -> float:
    """Highest resident memory so far, in MB: of this process and of the largest one that it started and that ended."""
    return peak_resident_bytes() / 1e6 + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
