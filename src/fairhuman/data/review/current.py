"""A review that stays open while its data set changes on disk."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.review.pages import Review
from fairhuman.data.review.settings import ReviewSettings
from fairhuman.data.sources.edits import edits_file
from fairhuman.data.sources.imagefolder import metadata_files
from fairhuman.errors import FairHumanError
from fairhuman.web.app import RefusedError


class CurrentReview:
    """The review of a folder, loaded anew where its rows or the changes by hand beside it were written since.

    Attributes:
        token: as of `Review`.

    Raises:
        DataError, FairHumanError: as `Review`.
    """

    def __init__(self, folder: Path, settings: ReviewSettings, report: LoadReport) -> None:
        self._folder, self._settings, self._lock = folder, settings, threading.Lock()
        self._stamp = _stamp(folder)  # before reading, so that no change goes unnoticed
        self._review = Review(folder, settings, report)
        self.token = self._review.token

    def get(self) -> Review:
        """The review, with the prompts and regions that the data set has now.

        Raises:
            RefusedError: the data set can no longer be reviewed (409).
        """
        with self._lock:
            stamp = _stamp(self._folder)
            if stamp != self._stamp:
                with refusing():
                    review = Review(self._folder, self._settings, LoadReport())
                self._review.close()
                self._stamp, self._review = stamp, review
            return self._review

    def close(self) -> None:
        """Close the database."""
        self._review.close()


@contextmanager
def refusing() -> Iterator[None]:
    """Refuse a request whose review can't be opened.

    Raises:
        RefusedError: it can't (409).
    """
    try:
        yield
    except FairHumanError as error:
        raise RefusedError(409, f"This data set can't be reviewed: {error}.") from error


def _stamp(folder: Path) -> tuple[int, ...]:
    """When the rows of a data set and the changes beside it were last written."""
    files = (*(metadata_files(folder) or [folder]), edits_file(folder))
    return tuple(file.stat().st_mtime_ns if file.exists() else 0 for file in files)
