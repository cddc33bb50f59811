"""Console output of commands: lines, settings, tables and progress."""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from fairhuman.utils.display import Display
from fairhuman.utils.parse import escape_control

if TYPE_CHECKING:  # `--help` needs none of them
    from pydantic import BaseModel
    from rich.console import RenderableType
    from rich.live import Live
    from rich.status import Status
    from rich.table import Table

    from fairhuman.train.preflight import StartFinding

_SPACES = "\n\t\N{NO-BREAK SPACE}"  # that lines may hold
SECONDS = 30.0  # between two lines of a stage, or of the status, where the output isn't a terminal


@dataclass
class Stage:
    """How far a stage is, and since when.

    Attributes:
        first: what was done when it began here.
        left: seconds until it ends, as its command says; None: from the speed so far.
        told: when its last line was printed.
        ended: when all was done; its clock stops there.
    """

    name: str
    first: int
    done: int
    total: int | None
    text: str = ""
    left: float | None = None
    started: float = field(default_factory=lambda: time.monotonic())
    told: float = float("-inf")
    ended: float | None = None

    def line(self) -> str:
        """`NAME DONE/TOTAL  ELAPSED, LEFT left  TEXT`, times as H:MM:SS."""
        of = "" if self.total is None else f"/{self.total}"
        return "  ".join(filter(None, (f"{self.name} {self.done}{of}", self._times(), self.text)))

    def _times(self) -> str:
        spent = (time.monotonic() if self.ended is None else self.ended) - self.started
        left = self.left
        if left is None and self.total is not None and self.done > self.first:
            left = spent * (self.total - self.done) / (self.done - self.first)
        return clock(spent) if left is None or self.done == self.total else f"{clock(spent)}, {clock(left)} left"


def clock(seconds: float) -> str:
    """A duration as H:MM:SS."""
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class _Console(Console):
    """A console on which only the printing ends when nobody reads on, as in `| head`; the command goes on."""

    def on_broken_pipe(self) -> None:
        with suppress(SystemExit):
            super().on_broken_pipe()


class ConsoleDisplay(Display):
    """Prints to a console: a line for each stage that is rewritten on a terminal, otherwise a line now and then."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or _Console()
        self._stages: dict[str, Stage] = {}
        self._live: Live | None = None
        self._status: Status | None = None
        self._said = time.monotonic()

    @property
    def width(self) -> int:
        """Characters of a line."""
        return self._console.width

    def say(self, text: str) -> None:
        """Print a line without markup; control characters of names and values in it are escaped."""
        self._said = time.monotonic()
        self._console.print(escape_control(text, _SPACES), highlight=False, markup=False, soft_wrap=True)

    @property
    def is_terminal(self) -> bool:
        """Whether somebody reads along."""
        return self._console.is_terminal

    def settings(self, settings: "BaseModel", full: bool = True) -> None:
        """Print settings as YAML, and an empty line; not `full`: on a terminal without those at their default."""
        from fairhuman.config import to_short_yaml, to_yaml

        short = None if full or not self.is_terminal else to_short_yaml(settings)
        if short is None:
            self.say(to_yaml(settings))
        else:
            self.say(f"{short}# settings at their default are left out; --full prints all\n")

    def verdict(self, found: "Sequence[StartFinding]") -> int:
        """Return a dry run's exit code: 1 if something is missing; on a terminal say so in a last line."""
        missing = list(dict.fromkeys(finding.what for finding in found if finding.state == "missing"))
        if self.is_terminal:
            self.say(f"can't start here, missing: {', '.join(missing)}" if missing else "can start now")
        return 1 if missing else 0

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

    def progress(self, stage: str, done: int, total: int | None, text: str = "", left: float | None = None) -> None:
        """Rewrite the line of a stage; without a terminal print its first and last line, and one every 30 seconds."""
        known = self._stages.get(stage)
        if known is None or done < known.done:
            known = self._stages[stage] = Stage(stage, done, done, total)
        ended = done == total and known.done != done
        known.done, known.total, known.text, known.left = done, total, escape_control(text), left
        if done != total:
            known.ended = None
        elif known.ended is None:
            known.ended = time.monotonic()
        if self._console.is_terminal:
            self._show_stages()
        elif ended or time.monotonic() - known.told >= SECONDS:
            known.told = time.monotonic()
            self.say(known.line())

    def status(self, text: str) -> None:
        """Update the status line, or print it now and then."""
        text = escape_control(text)
        if self._console.is_terminal:
            if self._status is None:
                self.close()  # one live display at a time
                self._status = self._console.status(text)
                self._status.start()
            self._status.update(text)
        elif time.monotonic() - self._said >= SECONDS:
            self.say(text)

    def close(self) -> None:
        """End the lines of stages and the status line."""
        for live in (self._live, self._status):
            if live is not None:
                live.stop()
        self._live = self._status = None
        self._stages.clear()

    def _show_stages(self) -> None:
        if self._live is None:
            from rich.live import Live

            stages = dict(self._stages)
            self.close()
            self._stages = stages
            self._live = Live(get_renderable=self._lines, console=self._console, refresh_per_second=4)
            self._live.start()

    def _lines(self) -> "RenderableType":
        from rich.console import Group
        from rich.text import Text

        lines = [stage.line() for stage in list(self._stages.values())]
        return Group(*(Text(line) for line in lines))  # wrapped, so that the last region is seen too
