"""Training runs of several processes, as `accelerate launch` starts them."""

import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import yaml

from fairhuman.train.recipe import TrainRecipe
from helpers.warm import PIPE, STDOUT, Popen

Workers = list[Popen]
# Takes a step, and hangs before it is saved, to be killed there.
HANGS = """
import sys, time
from fairhuman.cli import main
from fairhuman.train import loop
step, save = int(sys.argv.pop(1)), loop.save_checkpoint
loop.save_checkpoint = lambda run: time.sleep(600) if run.step == step else save(run)
main()
"""


def free_port() -> int:
    """A port for a process that is about to start; below those that the system gives to whoever asks meanwhile."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def command(*arguments: object, hangs_at: int | None = None) -> list[str]:
    """A command of fairhuman; `hangs_at`: of a run, the step that it takes and doesn't save."""
    program = ["-m", "fairhuman.cli"] if hangs_at is None else ["-c", HANGS, hangs_at]
    return [sys.executable, *map(str, (*program, *arguments))]


def wait_for_step(process: "Popen | subprocess.Popen[str]", run: Path, step: int) -> None:
    """Wait until a run has taken a step."""
    deadline = time.monotonic() + 200
    while not (run / "metrics.jsonl").is_file() or (run / "metrics.jsonl").read_text().count("\n") < step:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def start(arguments: Sequence[object], processes: int, hangs_at: int | None = None) -> Workers:
    """Start a command of fairhuman in so many processes of one thread each."""
    environment = {
        **os.environ,
        "WORLD_SIZE": str(processes),
        "LOCAL_WORLD_SIZE": str(processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    return [
        Popen(
            command(*arguments, hangs_at=hangs_at),
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=PIPE,
            stderr=STDOUT,
        )
        for rank in range(processes)
    ]


def train_in(recipe: TrainRecipe, folder: Path, processes: int, hangs_at: int | None = None) -> Workers:
    """Start a training run."""
    path = folder / f"{recipe.out.name}-{processes}.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    return start(["train", path], processes, hangs_at)


def finish(workers: Workers, codes: Sequence[int] | None = None) -> list[str]:
    """Wait for all; return what they printed. They must end with these exit codes; None: 0."""
    try:
        outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    expected = [0] * len(workers) if codes is None else list(codes)
    assert [worker.returncode for worker in workers] == expected, "\n".join(outputs)[-4000:]
    return outputs
