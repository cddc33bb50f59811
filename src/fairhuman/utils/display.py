"""Display of a long job's messages and progress."""

from types import TracebackType
from typing import Self


class Display:
    """Shows nothing; `fairhuman.cli.console.ConsoleDisplay` prints.

    As a context manager it removes the bars and the status line at the end.
    """

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def progress(self, stage: str, done: int, total: int | None, text: str = "") -> None:
        """Show how much of a stage is done; `total` None where it isn't known, `text` for its newest numbers."""

    def status(self, text: str) -> None:
        """Replace the status line."""

    def close(self) -> None:
        """Remove the bars and the status line."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
