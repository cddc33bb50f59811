"""Display of a long job's messages and progress."""

from fairhuman.utils.closing import Closing


class Display(Closing):
    """Shows nothing; `fairhuman.cli.console.ConsoleDisplay` prints.

    As a context manager it removes the bars and the status line at the end.
    """

    def say(self, text: str) -> None:
        """Show a line that stays."""

    def progress(self, stage: str, done: int, total: int | None, text: str = "", left: float | None = None) -> None:
        """Show how much of a stage is done.

        Args:
            stage: its name.
            done, total: in the stage's own unit; `total` is None where it isn't known.
            text: the newest numbers, the most important first: a narrow terminal cuts the end.
            left: seconds until the stage ends; None: from the speed so far.
        """

    def status(self, text: str) -> None:
        """Replace the status line."""

    def close(self) -> None:
        """Remove the bars and the status line."""
