"""Training runs as their folders tell them: state, curves, held-out losses, previews, log."""

import math
import os
import socket
import stat
import statistics
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fairhuman.errors import DataError
from fairhuman.report.outcome import paired_change, verdict
from fairhuman.report.run_folder import HeldOutEvaluation, read_json, read_validation
from fairhuman.report.text import estimate_text
from fairhuman.stats.bootstrap import pooled_ratio
from fairhuman.studio.series import Series, read_tail
from fairhuman.utils.files import is_held, touch
from fairhuman.utils.parse import parse_yaml
from fairhuman.web.app import RefusedError

STOP, LOCK = "stop", ".lock"
LOG_BYTES = 64 * 1024
MOST_POINTS = 2000
FRESH_SECONDS, FRESH_STEPS = 60.0, 20.0  # since the last step of a run elsewhere that counts as running
RECIPE_BYTES, HOST_BYTES = 2**20, 255


class RunView:
    """One run; its methods may be called by several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._series = Series(folder / "metrics.jsonl")
        self._lock = threading.Lock()
        self._measuring = threading.Lock()  # intervals take a moment, and curves don't wait for them
        self._held_out: tuple[tuple[float, int], dict[str, Any]] | None = None
        self._measured: dict[int, dict[str, Any]] = {}

    def state(self) -> dict[str, Any]:
        """What a list of runs says of it."""
        with self._lock:
            self._series.refresh()
            return self._state()

    def metrics(self, points: int, first: int | None, last: int | None, known: int | None) -> dict[str, Any]:
        """State and curves; without the curves if nothing has changed since version `known`."""
        with self._lock:
            self._series.refresh()
            found = {"state": self._state(), "version": self._series.version}
            if known != self._series.version:
                found["curves"] = self._series.thinned(min(points, MOST_POINTS), first, last)
            return found

    def _state(self) -> dict[str, Any]:
        recipe, series = self._recipe(), self._series
        summary = read_json(self.folder / "summary.json")
        wanted = recipe.get("steps")
        done = series.last_step or 0
        each = _seconds_a_step(list(series.recent), done)
        name = self._state_name(done, wanted, each)
        left = each * (wanted - done) if each is not None and isinstance(wanted, int) and wanted >= done else None
        memory = series.latest.get("peak_memory_mib", summary.get("peak_memory_mib"))
        rates = [row["images"] / row["step"] for row in series.recent if _seconds(row) is not None]
        return {
            "state": name,
            "host": other_host(self.folder),
            "step": done,
            "steps": wanted if isinstance(wanted, int) else None,
            "left": left if name in ("running", "stopping") else None,
            "seconds_a_step": each,
            "images_per_s": rates[-1] / each if rates and each else series.latest.get("images_per_s"),
            "peak_memory_mib": memory if isinstance(memory, int | float) else None,
            "changed": last_written(self.folder),
            "damaged": series.damaged,
            **{key: _text(recipe.get(key)) for key in ("model", "strategy")},
            "device": _text(summary.get("device")),
        }

    def _state_name(self, done: int, wanted: object, each: float | None) -> str:
        if is_running(self.folder, each):
            return "stopping" if (self.folder / STOP).exists() else "running"
        return "finished" if isinstance(wanted, int) and done >= wanted else "stopped"

    def _recipe(self) -> dict[str, Any]:
        try:
            recipe = parse_yaml(self.recipe_text())
        except ValueError:
            return {}
        return recipe if isinstance(recipe, dict) else {}

    def recipe_text(self) -> str:
        """`recipe.yaml`; empty if it is missing."""
        try:
            with (self.folder / "recipe.yaml").open("rb") as file:
                return file.read(RECIPE_BYTES).decode("utf-8", "replace")
        except OSError:
            return ""

    def held_out(self) -> dict[str, Any]:
        """Held-out losses with 95 % intervals, by objective, and each one's paired change since the first evaluation.

        `problem` says what is wrong with the file.
        """
        file = self.folder / "validation.jsonl"
        try:
            status = file.stat()
        except OSError:
            return {"steps": [], "objectives": {}}
        stamp = (status.st_mtime, status.st_size)
        with self._measuring:
            if self._held_out is None or self._held_out[0] != stamp:
                self._held_out = (stamp, _held_out(self.folder, self._measured))
            return self._held_out[1]

    def previews(self) -> list[dict[str, Any]]:
        """Rows of `previews/index.json`, JSON-ready, with the names of their files in the run's folder."""
        rows = []
        entries = read_json(self.folder / "previews" / "index.json").get("rows")
        for entry in entries if isinstance(entries, list) else ():
            if not isinstance(entry, dict):
                continue
            steps = entry.get("steps")
            shots = {
                int(step): {kind: name for kind, name in files.items() if isinstance(name, str)}
                for step, files in (steps.items() if isinstance(steps, dict) else ())
                if str(step).isdecimal() and isinstance(files, dict)
            }
            rows.append(
                {
                    "caption": str(entry.get("caption", "")),
                    "seed": entry.get("seed"),
                    "photo": entry["photo"] if isinstance(entry.get("photo"), str) else None,
                    "boxes": _boxes(entry.get("boxes")),
                    "steps": [{"step": step, **shots[step]} for step in sorted(shots)],
                }
            )
        return rows

    def picture(self, name: str) -> Path:
        """A preview that the run's index names, or its overlay sheet.

        Raises:
            RefusedError: it isn't there, or outside the run's folder (404).
        """
        named = {"overlay.png"}
        for row in self.previews():
            named |= {row["photo"], *(file for shot in row["steps"] for file in shot.values())}
        path = self.folder / name
        if name not in named or not path.is_file() or not path.resolve().is_relative_to(self.folder.resolve()):
            raise RefusedError(404, "There is no such picture in this run.")
        return path

    def log(self) -> list[str]:
        """Last lines of what the run said."""
        return list(read_tail(self.folder / "log.txt", LOG_BYTES))

    def notes(self) -> list[str]:
        """What was left out of the data, by reason."""
        counts = read_json(self.folder / "data_report.json").get("counts")
        return [
            f"{action}: {reason} ({count})"
            for action, reasons in (counts.items() if isinstance(counts, dict) else ())
            for reason, count in (reasons.items() if isinstance(reasons, dict) else ())
        ]

    def stop(self) -> None:
        """Ask the run to save a checkpoint and end after its current step.

        Raises:
            RefusedError: it isn't running (409), or its folder can't be written (403).
        """
        if self.state()["state"] not in ("running", "stopping"):
            raise RefusedError(409, "This run isn't running.")
        try:
            touch(self.folder / STOP)
        except OSError as error:
            raise RefusedError(403, f"The run's folder can't be written: {error.strerror}.") from error


class Runs:
    """The runs of a studio, by name; each folder's files are read once and then as they grow."""

    def __init__(self) -> None:
        self._views: dict[Path, RunView] = {}
        self._lock = threading.Lock()

    def of(self, folder: Path) -> RunView:
        """The view of a folder."""
        with self._lock:
            if folder not in self._views:
                self._views[folder] = RunView(folder)
            return self._views[folder]

    def states(self, folders: Mapping[str, Path]) -> list[dict[str, Any]]:
        """Name and state of each run, those that changed last first."""
        states = [{"name": name, **self.of(folder).state()} for name, folder in folders.items()]
        return sorted(states, key=lambda state: -(state["changed"] or 0.0))


def is_running(folder: Path, each: float | None = None) -> bool:
    """Whether a run goes on, here or on another machine that shares the disk; `each` is the time of a step."""
    changed = last_written(folder)
    fresh = changed is not None and time.time() - changed < max(FRESH_SECONDS, FRESH_STEPS * (each or 0.0))
    return is_held(folder / LOCK) or (fresh and other_host(folder) is not None)


def other_host(folder: Path) -> str | None:
    """The other machine that holds a run's lock, or held it when it died; None: there is none.

    A lock that is held elsewhere isn't seen on every shared disk, so its holder's name is in it.
    """
    try:
        handle = os.open(folder / LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        host = (
            file.read(HOST_BYTES).decode("utf-8", "replace").strip() if stat.S_ISREG(os.fstat(handle).st_mode) else ""
        )
    return host if host and host != socket.gethostname() else None


def last_written(folder: Path) -> float | None:
    """When a step was last written, in seconds since 1970."""
    for name in ("metrics.jsonl", "summary.json"):
        try:
            return (folder / name).stat().st_mtime
        except OSError:
            continue
    return None


def _held_out(folder: Path, measured: dict[int, dict[str, Any]]) -> dict[str, Any]:
    """Intervals of each evaluation; `measured` keeps them by what they are of, as a file of evaluations only grows."""
    try:
        evaluations = read_validation(folder)
    except (DataError, OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        return {"steps": [], "objectives": {}, "problem": str(error)}
    names = list(dict.fromkeys(name for one in evaluations for name in one.errors))
    objectives: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for name in names:
        for one in evaluations:
            parts = (each.errors[name].tobytes() for each in (evaluations[0], one) if name in each.errors)
            key = hash((name, one.step, *parts))
            if key not in measured:
                measured[key] = _evaluated(one, name) | {"change": _change(evaluations, one, name)}
            objectives[name].append(measured[key])
    return {"steps": [one.step for one in evaluations], "objectives": objectives}


def _evaluated(evaluation: HeldOutEvaluation, name: str) -> dict[str, Any]:
    errors, areas = (values.get(name, np.zeros(0)) for values in (evaluation.errors, evaluation.areas))
    try:
        return pooled_ratio(errors, areas).plain()
    except ValueError:
        return {"value": None, "low": None, "high": None, "n": 0}


def _change(evaluations: Sequence[HeldOutEvaluation], one: HeldOutEvaluation, name: str) -> dict[str, Any] | None:
    first = evaluations[0]
    if one is first or name not in first.errors or name not in one.errors:
        return None
    change = paired_change(first, one, name)
    if change is None:
        return None
    text = estimate_text(change, "{:.1f}", signed=True, percent=True)
    return change.plain() | {"verdict": verdict(change)[1], "text": text}


def _seconds_a_step(rows: Sequence[Mapping[str, float]], done: int) -> float | None:
    """Median time of a step over the last third of the `done` steps, as far as `rows` has them.

    The first steps are slower where the Gram matrix is measured in each of them, and say nothing of those to come.
    """
    last = [seconds for row in rows[-max(4, done // 3) :] if (seconds := _seconds(row)) is not None]
    return statistics.median(last) if last else None


def _seconds(row: Mapping[str, float]) -> float | None:
    """Seconds of a step, from its pictures and its speed."""
    images, rate, step = (row.get(name, math.nan) for name in ("images", "images_per_s", "step"))
    return images / step / rate if math.isfinite(images * rate) and rate > 0 and step > 0 else None


def _boxes(boxes: object) -> dict[str, list[list[float]]]:
    """Boxes of each region that has any."""
    found: dict[str, list[list[float]]] = {}
    for name, listed in boxes.items() if isinstance(boxes, dict) else ():
        whole = [box[:4] for box in listed or () if isinstance(box, list) and len(box) >= 4] if listed else []
        numbers = [box for box in whole if all(isinstance(value, int | float) for value in box)]
        if numbers:
            found[str(name)] = numbers
    return found


def _text(value: object) -> str | None:
    return None if value is None else str(value)
