"""Commands of this package in processes of their own, some at a time, a thread each: runs and samples side by side."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from fairhuman.config import differences, load, save
from fairhuman.errors import FairHumanError
from fairhuman.report.run_folder import read_metrics
from fairhuman.report.text import duration
from fairhuman.train.recipe import TrainRecipe
from fairhuman.utils.display import Display
from fairhuman.utils.signals import signals

POLL_SECONDS = 0.5
TAIL = 1500  # characters of a log that an error shows


@dataclass(frozen=True)
class Command:
    """One command that goes on where it was stopped.

    Attributes:
        name: for the one who waits; each its own.
        arguments: of `fairhuman`.
        log: gets all that the command prints.
        done: tells how much is done, 0..1; 1 once nothing is left to do.
        cost: what the whole takes, in any unit that all jobs share; for the estimate of time.
        needs: must exist before it can start; what an earlier job makes.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    done: Callable[[], float]
    cost: float = 1.0
    needs: Path | None = None

    @property
    def ready(self) -> bool:
        """Whether it can start."""
        return self.needs is None or self.needs.exists()


def training_job(name: str, recipe: TrainRecipe, cost: float = 1.0) -> Command:
    """A training run; its recipe and log are written beside its folder."""
    file = recipe.out.with_name(f"{recipe.out.name}.yaml")
    save(recipe, file)
    finished = (recipe.product, recipe.out / "report.html")
    earlier = recipe.out / "recipe.yaml"

    def done() -> float:
        if all(path.exists() for path in finished):
            # the command itself says what is wrong with the folder of another run
            return 0.0 if differences(load(TrainRecipe, earlier), recipe) else 1.0
        steps_n = read_metrics(recipe.out).steps_n
        return min(0.99, steps_n[-1] / recipe.steps) if len(steps_n) else 0.0

    return Command(name, ("train", str(file)), recipe.out.with_name(f"{recipe.out.name}.log"), done, cost)


def sampling_options(model: str | Path, steps: int, guidance: float, size: tuple[int, int], seed: int) -> list[object]:
    """Options of `fairhuman sample` for quick pictures of (height, width)."""
    options: list[object] = ["--model", model, "--steps", steps, "--guidance", guidance, "--seed", seed]
    return [*options, "--height", size[0], "--width", size[1], "--batch-size", 8, "--precision", "bf16"]


def sampling_job(
    name: str,
    out: Path,
    prompts: Path,
    count: int,
    options: Sequence[object],
    lora: Path | None = None,
    cost: float = 1.0,
) -> Command:
    """One picture for each of the `count` lines of `prompts`; `options` are those of `fairhuman sample`."""
    arguments = ("sample", str(out), "--prompts", str(prompts), *map(str, options))
    if lora is not None:
        arguments += ("--lora", str(lora))
    log = out.with_name(f"{out.name}.log")
    return Command(name, arguments, log, lambda: len(list(out.glob("*.png"))) / count, cost, needs=lora)


def run_jobs(
    jobs: Sequence[Command],
    display: Display,
    at_once: int = 2,
    ended: Callable[[Command, FairHumanError | None], object] | None = None,
) -> int | None:
    """Run what isn't done yet, in order of readiness; return the number of the signal that ended it early, or None.

    Ctrl-C or SIGTERM is handed on once to the running commands, and their ends are waited for. `ended` is told of every
    command that ends by itself, and why it failed or None; the others go on.

    Raises:
        FairHumanError: a command failed and there is no `ended`; the others are ended in order.
    """
    caught: list[int] = []
    clock = _Clock(jobs, display)
    waiting = [job for job in jobs if clock.shares[job.name] < 1.0]
    running: dict[str, tuple[Command, subprocess.Popen[bytes]]] = {}
    with signals(lambda: bool(caught), caught.append), display:
        try:
            while (waiting or running) and not caught:
                for job in [job for job in waiting if job.ready][: at_once - len(running)]:
                    waiting.remove(job)
                    running[job.name] = job, _start(job)
                if not running:
                    raise FairHumanError(f"{waiting[0].name} needs {waiting[0].needs}, which no other command made")
                time.sleep(POLL_SECONDS)
                for job, process in list(running.values()):
                    code = process.poll()
                    if code is None:
                        clock.look(job)
                        continue
                    del running[job.name]
                    error = _error(job, code)
                    if ended is not None:
                        ended(job, error)
                    elif error is not None:
                        raise error
                    clock.end(job, failed=error is not None)
                display.status(clock.text(list(running)))
        finally:
            for _, process in running.values():
                process.terminate()
            for _, process in running.values():
                process.wait()
    return caught[0] if caught else None


class _Clock:
    """How far all jobs are, and how long the rest will take at the speed so far."""

    def __init__(self, jobs: Sequence[Command], display: Display) -> None:
        self._costs, self._display = {job.name: job.cost for job in jobs}, display
        self.shares = {job.name: job.done() for job in jobs}
        self._started = time.monotonic()
        self._first = self._spent()

    def look(self, job: Command) -> None:
        """Ask a job how far it is."""
        self.shares[job.name] = job.done()

    def end(self, job: Command, failed: bool) -> None:
        """Say that a job is over; what a failed one left undone isn't waited for any more."""
        if failed:
            self._costs[job.name] *= self.shares[job.name]
        self.shares[job.name] = 1.0
        self._display.say(f"{job.name} failed" if failed else f"{job.name} done, {self._whole()}")

    def text(self, running: Sequence[str]) -> str:
        """How far the running jobs and all of them are, in one line."""
        return ", ".join([*(f"{name} {self.shares[name]:.0%}" for name in running), self._whole()])

    def _whole(self) -> str:
        spent, whole = self._spent(), sum(self._costs.values())
        if not spent > self._first:
            return "time left not known yet"
        left = (whole - spent) * (time.monotonic() - self._started) / (spent - self._first)
        return f"{spent / whole:.0%} of all, about {duration(left)} left"

    def _spent(self) -> float:
        return sum(cost * self.shares[name] for name, cost in self._costs.items())


def _start(job: Command) -> "subprocess.Popen[bytes]":
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    with job.log.open("ab") as log:
        # A session of its own: Ctrl-C in a terminal reaches it once, through this process, and not twice.
        return subprocess.Popen(
            [sys.executable, "-m", "fairhuman.cli", *job.arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _error(job: Command, code: int) -> FairHumanError | None:
    if code == 0:
        return None
    tail = job.log.read_text(encoding="utf-8", errors="replace")[-TAIL:].strip()
    return FairHumanError(f"{job.name} ended with exit code {code}, {job.log} says:\n{tail}")
