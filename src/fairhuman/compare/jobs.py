"""Run commands of this package in parallel subprocesses with one thread each, such as training and sampling."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from fairhuman.compare.drawn_weights import drawn_now
from fairhuman.config import save
from fairhuman.errors import FairHumanError
from fairhuman.models.settings import BaseSettings
from fairhuman.report.run_folder import read_metrics
from fairhuman.report.text import duration, percent, plural
from fairhuman.train.levels import changes
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import recipe_of_run
from fairhuman.utils.display import Display
from fairhuman.utils.journal import open_log, read_rows
from fairhuman.utils.shipped import SHIPPED, SMALL
from fairhuman.utils.signals import signals

POLL_SECONDS = 0.5
TAIL = 1500  # characters of a log that an error shows


@dataclass(frozen=True)
class Command:
    """One resumable command.

    Attributes:
        name: unique name for messages.
        arguments: command-line arguments of `fairhuman`.
        log: file that receives the command's output.
        done: returns the fraction done, 0..1.
        cost: total cost in any unit shared by all jobs; used to estimate the remaining time.
        needs: file that must exist before the command can start, written by an earlier job.
        redraw: returns whether it is to replace the results of other inputs, with `--redraw`; asked as it starts.
        large: whether its model may need a whole GPU: it isn't one that ships.
    """

    name: str
    arguments: tuple[str, ...]
    log: Path
    done: Callable[[], float]
    cost: float = 1.0
    needs: Path | None = None
    redraw: Callable[[], bool] = lambda: False
    large: bool = False

    @property
    def ready(self) -> bool:
        """Whether the command can start."""
        return self.needs is None or self.needs.exists()


def training_job(name: str, recipe: TrainRecipe, cost: float = 1.0) -> Command:
    """A training run; its recipe and log are written next to its folder."""
    file = recipe.out.with_name(f"{recipe.out.name}.yaml")
    save(recipe, file)
    finished = (recipe.product, recipe.out / "report.html")

    def done() -> float:
        if all(path.exists() for path in finished):
            # for the folder of another run, the command itself reports the error
            if changes(recipe_of_run(recipe.out), recipe):
                return 0.0
            evaluated = [row["step"] for row in read_rows(recipe.out / "validation.jsonl", step=int)]
            return 1.0 if not evaluated or evaluated[-1] >= recipe.steps else 0.99  # the last one was interrupted
        steps_n = read_metrics(recipe.out).steps_n
        return min(0.99, steps_n[-1] / recipe.steps) if len(steps_n) else 0.0

    log, large = recipe.out.with_name(f"{recipe.out.name}.log"), recipe.model not in SHIPPED
    return Command(name, ("train", str(file)), log, done, cost, large=large)


def sampling_options(
    model: str | Path,
    steps: int,
    guidance: float | None,
    size: tuple[int, int],
    seed: int,
    base: BaseSettings | None = None,
    batch_size: int = 8,
) -> list[object]:
    """Options of `fairhuman sample` for fast sampling at (height, width)."""
    options: list[object] = ["--model", model, "--steps", steps, "--seed", seed]
    options += [] if guidance is None else ["--guidance", guidance]
    given = (base or BaseSettings()).model_dump(exclude_defaults=True)
    options += ["--offload"] if given.pop("offload", False) else []
    for name, value in given.items():
        options += [f"--{name.replace('_', '-')}", str(value).lower() if isinstance(value, bool) else value]
    return [*options, "--height", size[0], "--width", size[1], "--batch-size", batch_size]


def sampling_job(
    name: str,
    out: Path,
    prompts: Path,
    count: int,
    options: Sequence[object],
    lora: Path | None = None,
    cost: float = 1.0,
) -> Command:
    """Sample `count` pictures in all for the lines of `prompts`; `options` are those of `fairhuman sample`.

    Pictures of other weights, as of a run that was deleted and trained anew, are drawn again.
    """
    arguments = ("sample", str(out), "--prompts", str(prompts), *map(str, options))
    if lora is not None:
        arguments += ("--lora", str(lora))

    def done() -> float:
        share = sum(drawn_now(out, arguments).values()) / count
        return share if lora is None or lora.exists() else min(share, 0.99)

    def redraw() -> bool:
        return not all(drawn_now(out, arguments).values())

    large = dict(pairwise(arguments)).get("--model", SMALL) not in SHIPPED
    return Command(name, arguments, out.with_name(f"{out.name}.log"), done, cost, lora, redraw, large)


def run_jobs(
    jobs: Sequence[Command],
    display: Display,
    at_once: int = 2,
    ended: Callable[[Command, FairHumanError | None], object] | None = None,
    stage: str = "total",
) -> int | None:
    """Run all unfinished commands as they become ready; return the signal that interrupted them, or None.

    Each command sees the one visible GPU on which the fewest run, if there is a GPU. If a command's model is large, no
    GPU has two commands at once, so that there are fewer than `at_once` where there are fewer GPUs.

    Ctrl-C or SIGTERM is forwarded once to the running commands, which are then awaited. `ended` is called with every
    command that finishes and its error or None; a failure doesn't stop the other commands. `stage` is what the commands
    are all of, for the line of progress.

    Raises:
        FairHumanError: a command failed and `ended` is None; the other commands are terminated.
    """
    caught: list[int] = []
    clock = _Clock(jobs, display, stage)
    waiting = [job for job in jobs if clock.shares[job.name] < 1.0]
    running: dict[str, tuple[Command, subprocess.Popen[bytes], str | None]] = {}
    gpus: list[str | None] = [*_gpus(waiting)]
    if any(job.large for job in waiting) and 0 < len(gpus) < min(at_once, len(waiting)):
        display.say(f"{at_once} at once were asked for; on {plural(len(gpus), 'GPU')} it is one on each")
        at_once = len(gpus)
    with signals(lambda: bool(caught), caught.append, "Ending after the steps that are running"), display:
        try:
            while (waiting or running) and not caught:
                for job in [job for job in waiting if job.ready][: at_once - len(running)]:
                    waiting.remove(job)
                    used = [gpu for *_, gpu in running.values()]
                    gpu = min(gpus, key=used.count, default=None)
                    running[job.name] = job, _start(job, gpu), gpu
                if not running:
                    raise FairHumanError(f"{waiting[0].name} needs {waiting[0].needs}, which no other command wrote")
                time.sleep(POLL_SECONDS)
                for job, process, _ in list(running.values()):
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
            for _, process, _ in running.values():
                process.terminate()
            for _, process, _ in running.values():
                process.wait()
    return caught[0] if caught else None


class _Clock:
    """Progress of all jobs, and the remaining time at the speed so far."""

    def __init__(self, jobs: Sequence[Command], display: Display, stage: str) -> None:
        self._costs, self._display, self._stage = {job.name: job.cost for job in jobs}, display, stage
        self.shares = {job.name: job.done() for job in jobs}
        self._started = time.monotonic()
        self._first = self._spent()

    def look(self, job: Command) -> None:
        """Update the progress of a job."""
        self.shares[job.name] = job.done()

    def end(self, job: Command, failed: bool) -> None:
        """Record the end of a job; the rest of a failed job is dropped from the estimate."""
        if failed:
            self._costs[job.name] *= self.shares[job.name]
        self.shares[job.name] = 1.0
        self._display.say(f"{job.name} failed" if failed else f"{job.name} done, {self._whole()}")

    def text(self, running: Sequence[str]) -> str:
        """How far the running jobs and all of them are, in one line."""
        return ", ".join([*(f"{name} {percent(self.shares[name])}" for name in running), self._whole()])

    def _whole(self) -> str:
        spent, whole = self._spent(), sum(self._costs.values())
        if not spent > self._first:
            return "remaining time unknown"
        left = (whole - spent) * (time.monotonic() - self._started) / (spent - self._first)
        return f"{percent(spent / whole)} of {self._stage}, about {duration(left)} left"

    def _spent(self) -> float:
        return sum(cost * self.shares[name] for name, cost in self._costs.items())


def _gpus(jobs: Sequence[Command]) -> list[str]:
    """The GPUs for the commands, without what this process no longer needs of them."""
    if not jobs:
        return []
    from fairhuman.utils.torch_device import free_gpu_memory, visible_gpus  # imports torch

    free_gpu_memory()  # as after an evaluation in this process
    return visible_gpus()


def _start(job: Command, gpu: str | None) -> "subprocess.Popen[bytes]":
    job.log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    environment |= {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
    with open_log(job.log) as log:
        # A new session, so that Ctrl-C in a terminal reaches the command only once, through this process.
        return subprocess.Popen(
            [sys.executable, "-m", "fairhuman.cli", *job.arguments, *(["--redraw"] if job.redraw() else [])],
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
    return FairHumanError(f"{job.name} failed with exit code {code}; end of {job.log}:\n{tail}")
