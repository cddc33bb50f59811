"""Time per picture of each task of an evaluation, measured from progress reports."""

import resource
import time

from fairhuman.evaluate.pictures import Progress
from fairhuman.utils.memory import peak_resident_bytes

PLANNED = 5000  # pictures in the paper's test set


# What tasks are called in front of users, by how their names begin.
_WORDS = {
    "check": "reading pictures",
    "findings": "finding faces and hands",
    "official": "finding faces and hands (official confidences)",
    "pose": "finding poses",
    "depth": "estimating depth",
    "efficientnet": "looking at pictures (EfficientNet)",
    "inception": "looking at pictures (Inception)",
    "clip-score": "scoring pictures (CLIPScore)",
    "hps": "scoring pictures (HPS)",
    "image-reward": "scoring pictures (ImageReward)",
}


def task_words(task: str) -> str:
    """Return the name of a task for users; that of a task of another package is its own."""
    return next((words for start, words in _WORDS.items() if task.startswith(start)), task)


class TimedProgress:
    """A `Progress` that forwards each report and measures the time between two reports of the same task.

    Work before the first report of a task, such as loading a network, is not counted.
    """

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._last: dict[str, tuple[float, int]] = {}
        self._sums: dict[str, tuple[float, int]] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        """Report that `done` of `total` pictures are done."""
        now = time.perf_counter()
        began, before = self._last.get(what, (now, done))
        seconds, pictures = self._sums.get(what, (0.0, 0))
        if done > before:  # otherwise the pictures of the next method start
            self._sums[what] = seconds + now - began, pictures + done - before
        self._last[what] = now, done
        self._progress(task_words(what), done, total)

    def seconds(self) -> dict[str, tuple[int, float]]:
        """By task: number of pictures timed, and seconds per picture."""
        return {what: (pictures, seconds / pictures) for what, (seconds, pictures) in self._sums.items()}


def peak_mb() -> float:
    """Peak resident memory so far in MB: of this process plus its largest terminated child process."""
    return peak_resident_bytes() / 1e6 + resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000
