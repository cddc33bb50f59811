"""The metrics of a run, read as they are written and thinned to what a page can show."""

import io
import math
import os
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.json
from numpy.typing import NDArray

from fairhuman.utils.parse import parse_json

Values = NDArray[np.float64]
BINS = 8192  # of each column; steps share a bin where there are more
CHUNK = 2**24  # bytes that are parsed at once
RECENT = 64  # last steps that speed is measured over
_KINDS = ("total", "low", "high")


class Series:
    """Columns of a growing file of metrics, such as `metrics.jsonl`, in at most `BINS` bins of 2^n steps each.

    `refresh` reads what was written since the last time. A file that was replaced, as a resumed run does, is read from
    its start; a step that comes again replaces what was there from that step on. Half a line at the end waits until
    it is whole. A damaged line is left out and counted in `damaged`.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self.version = -1  # grows with every change
        self._forget()

    def _forget(self) -> None:
        self._identity: tuple[int, int] | None = None
        self._read = 0
        self.version += 1
        self.width = 1  # steps in a bin
        self.damaged = 0
        self.last_step: int | None = None
        self.latest: dict[str, float] = {}
        self.recent: deque[dict[str, float]] = deque(maxlen=RECENT)
        self._bins: dict[str, dict[str, Values]] = {}
        self._counts: dict[str, NDArray[np.int64]] = {}

    @property
    def names(self) -> list[str]:
        """Names of the columns with a value, in the order of the file."""
        return [name for name in self._counts if name != "step"]

    def refresh(self) -> None:
        """Read what is new; a missing file has no steps."""
        try:
            file = self._file.open("rb")
        except OSError:
            if self._identity is not None:
                self._forget()
            return
        with file:
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) != self._identity or status.st_size < self._read:
                self._forget()
                self._identity = (status.st_dev, status.st_ino)
            file.seek(self._read)
            rest = b""
            while chunk := file.read(CHUNK):
                lines, newline, rest = (rest + chunk).rpartition(b"\n")
                if newline:
                    self._read += len(lines) + 1
                    self._take(lines + newline)

    def thinned(self, points: int, first: int | None = None, last: int | None = None) -> dict[str, Any]:
        """At most `points` means of each column over steps `first` to `last`, JSON-ready; null where there is no value.

        `low` and `high` are the extremes in each, left out where each is of one step. `steps` are mean steps.
        """
        if self.last_step is None:
            return {"steps": [], "every": 1, "columns": {}}
        start = 0 if first is None else max(0, first) // self.width
        end = self.last_step // self.width if last is None else min(last, self.last_step) // self.width
        together = max(1, math.ceil(max(1, end + 1 - start) / max(1, points)))
        taken = slice(start, max(start, end) + 1)
        counts_n = _together(self._counts["step"][taken], together, np.add)
        there = counts_n > 0
        steps = (_together(self._bins["step"]["total"][taken], together, np.add)[there] / counts_n[there]).round(1)
        columns = {}
        for name in self.names:
            counts = _together(self._counts[name][taken], together, np.add)[there]
            bins = self._bins[name]
            means = _together(bins["total"][taken], together, np.add)[there] / np.where(counts > 0, counts, np.nan)
            columns[name] = {"mean": _plain(means)}
            if self.width * together > 1:
                columns[name]["low"] = _plain(_together(bins["low"][taken], together, np.fmin)[there])
                columns[name]["high"] = _plain(_together(bins["high"][taken], together, np.fmax)[there])
        return {"steps": steps.tolist(), "every": self.width * together, "columns": columns}

    def _take(self, lines: bytes) -> None:
        steps, columns = self._columns(lines)
        if not len(steps):
            return
        back = np.flatnonzero(np.diff(steps) <= 0) + 1
        for part in np.split(np.arange(len(steps)), back):
            self._add(steps[part], {name: values[part] for name, values in columns.items()})
        self.version += 1

    def _columns(self, lines: bytes) -> tuple[NDArray[np.int64], dict[str, Values]]:
        """Steps and columns of whole lines; damaged lines are counted."""
        try:
            table = pyarrow.json.read_json(
                io.BytesIO(lines), pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines) + 1)
            )
            steps = table.column("step").to_numpy()
            if not np.issubdtype(steps.dtype, np.integer) or steps.min() < 0:
                raise ValueError("steps must be whole numbers")
        except (pyarrow.ArrowException, KeyError, ValueError, TypeError, OverflowError):
            return self._slowly(lines)
        return steps, {name: _numbers(table.column(name)) for name in table.column_names if name != "step"}

    def _slowly(self, lines: bytes) -> tuple[NDArray[np.int64], dict[str, Values]]:
        rows = []
        for line in filter(None, lines.split(b"\n")):
            row: Any = None
            with suppress(ValueError):
                row = parse_json(line.decode("utf-8"))
            if isinstance(row, dict) and type(row.get("step")) is int and 0 <= row["step"] < 2**53:
                rows.append(row)
            else:
                self.damaged += 1
                self.version += 1
        names = dict.fromkeys(name for row in rows for name in row if name != "step")
        columns = {name: np.array([_number(row.get(name)) for row in rows]) for name in names}
        return np.array([row["step"] for row in rows], dtype=np.int64), columns

    def _add(self, steps: NDArray[np.int64], columns: Mapping[str, Values]) -> None:
        if self.last_step is not None and steps[0] <= self.last_step:
            self._drop_from(int(steps[0]))
        while steps[-1] // self.width >= BINS:
            self._halve()
        at = steps // self.width
        for name, values in {"step": steps.astype(np.float64), **columns}.items():
            known = np.isfinite(values)
            if name not in self._counts:
                if not known.any():
                    continue
                self._counts[name] = np.zeros(BINS, dtype=np.int64)
                self._bins[name] = {kind: np.full(BINS, np.nan) for kind in _KINDS}
                self._bins[name]["total"][:] = 0.0
            where, found = at[known], values[known]
            np.add.at(self._counts[name], where, 1)
            np.add.at(self._bins[name]["total"], where, found)
            np.fmin.at(self._bins[name]["low"], where, found)
            np.fmax.at(self._bins[name]["high"], where, found)
        self.last_step = int(steps[-1])
        for number in range(max(0, len(steps) - RECENT), len(steps)):
            row = {name: float(values[number]) for name, values in columns.items()}
            self.latest |= {name: value for name, value in row.items() if math.isfinite(value)}
            self.recent.append({"step": float(steps[number]), **row})

    def _drop_from(self, step: int) -> None:
        """Forget bins from that of a step on, which comes again; of bins with several steps, the earlier ones too."""
        first = step // self.width
        for name, bins in self._bins.items():
            self._counts[name][first:] = 0
            bins["total"][first:] = 0.0
            bins["low"][first:] = bins["high"][first:] = np.nan
        kept = [row for row in self.recent if row["step"] < step]
        self.recent.clear()
        self.recent.extend(kept)

    def _halve(self) -> None:
        """Put every two bins together."""
        for name, bins in self._bins.items():
            counts = self._counts[name]
            counts[: BINS // 2], counts[BINS // 2 :] = counts.reshape(-1, 2).sum(axis=1), 0
            for kind, join, empty in (("total", np.add, 0.0), ("low", np.fmin, np.nan), ("high", np.fmax, np.nan)):
                values = bins[kind]
                values[: BINS // 2], values[BINS // 2 :] = join.reduce(values.reshape(-1, 2), axis=1), empty
        self.width *= 2


def _together(values: NDArray[Any], number: int, join: np.ufunc) -> NDArray[Any]:
    """Values in groups of `number`, each joined into one; the last may have fewer."""
    return values if number == 1 else join.reduceat(values, np.arange(0, len(values), number))


def _numbers(column: pyarrow.ChunkedArray) -> Values:
    """A column as numbers; NaN for null, and for what is no number."""
    kind = column.type
    if pyarrow.types.is_boolean(kind):
        column = column.cast(pyarrow.int8())
    elif not (pyarrow.types.is_integer(kind) or pyarrow.types.is_floating(kind)):
        return np.full(len(column), np.nan)
    return np.asarray(column.to_numpy(), dtype=np.float64)


def _number(value: object) -> float:
    with suppress(OverflowError):
        return float(value) if isinstance(value, int | float) else math.nan
    return math.nan


def _plain(values: Sequence[float] | Values) -> list[float | None]:
    """Numbers with five digits, null instead of NaN."""
    return [float(f"{value:.5g}") if math.isfinite(value) else None for value in np.asarray(values).tolist()]


def read_tail(file: Path, most: int) -> Iterator[str]:
    """Whole lines at the end of a text file, of at most `most` bytes."""
    try:
        with file.open("rb") as opened:
            size = opened.seek(0, os.SEEK_END)
            opened.seek(max(0, size - most))
            content = opened.read()
    except OSError:
        return
    if size > most:
        content = content.partition(b"\n")[2]
    yield from content.decode("utf-8", "replace").splitlines()
