"""Console output of commands: lines, settings, tables and progress."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fairhuman.utils.display import Display

if TYPE_CHECKING:  # `--help` needs none of them
    from pydantic import BaseModel
    from rich.progress import Progress, TaskID
    from rich.status import Status
    from rich.table import Table

PARTS = 20  # lines of a stage where the output isn't a terminal
STATUS_SECONDS = 30.0  # between two status lines there


class ConsoleDisplay(Display):
    """Prints to a console: bars and a status line on a terminal, otherwise occasional lines."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console()
        self._bars: Progress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._parts: dict[str, int] = {}
        self._status: Status | None = None
        self._said = time.monotonic()

    def say(self, text: str) -> None:
        """Print a line without markup."""
        self._said = time.monotonic()
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def settings(self, settings: "BaseModel") -> None:
        """Print settings as YAML."""
        import yaml

        self.say(yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False))

    def table(self, table: "Table") -> None:
        """Print a table."""
        self._console.print(table)

    def counts(self, counts: Mapping[str, Mapping[str, int]], before: str = "") -> None:
        """Print the counts of `LoadReport.counts`: what was done to the data and why, one line per reason."""
        for action, reasons in counts.items():
            for reason, number in reasons.items():
                self.say(f"{before}{action}: {reason} ({number})")

    def would_write(self, out: Path, inputs: Mapping[str, Path]) -> None:
        """Print the inputs of a dry run, marking missing ones, and where it would write."""
        for name, path in inputs.items():
            self.say(f"{name}: {path}" + ("" if path.exists() else ", doesn't exist yet"))
        self.say(f"would write into {out}")

    def progress(self, stage: str, done: int, total: int | None, text: str = "") -> None:
        """Move the bar of a stage, or print a line for each twentieth of it."""
        if self._console.is_terminal:
            self._move_bar(stage, done, total, text)
            return
        part = PARTS * done // total if total else 0
        if self._parts.get(stage) != part:
            self._parts[stage] = part
            self.say(f"{stage}: {done}" + (f"/{total}" if total is not None else "") + (f"  {text}" if text else ""))

    def status(self, text: str) -> None:
        """Update the status line, or print it now and then."""
        if self._console.is_terminal:
            if self._status is None:
                self.close()  # one live display at a time
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif time.monotonic() - self._said >= STATUS_SECONDS:
            self.say(text)

    def close(self) -> None:
        """Remove the bars and the status line."""
        for live in (self._bars, self._status):
            if live is not None:
                live.stop()
        self._bars = self._status = None
        self._tasks.clear()
        self._parts.clear()

    def _move_bar(self, stage: str, done: int, total: int | None, text: str) -> None:
        if self._bars is None:
            self.close()
            self._bars = _bars(self._console)
            self._bars.start()
        if stage not in self._tasks:
            self._tasks[stage] = self._bars.add_task(stage, total=total, text=text)
        self._bars.update(self._tasks[stage], completed=done, total=total, text=text)


def _bars(console: Console) -> "Progress":
    from rich import progress as rich

    name, text = rich.TextColumn("{task.description}"), rich.TextColumn("{task.fields[text]}")
    times = rich.TimeElapsedColumn(), rich.TimeRemainingColumn()
    return rich.Progress(name, rich.BarColumn(), rich.MofNCompleteColumn(), *times, text, console=console)
