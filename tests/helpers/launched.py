"""Training runs of several processes, as `accelerate launch` starts them."""

import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import yaml

from fairhuman.train.recipe import TrainRecipe
from helpers.warm import PIPE, STDOUT, Popen

Workers = list[Popen]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(arguments: Sequence[object], processes: int) -> Workers:
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
            [sys.executable, "-m", "fairhuman.cli", *map(str, arguments)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=PIPE,
            stderr=STDOUT,
        )
        for rank in range(processes)
    ]


def train_in(recipe: TrainRecipe, folder: Path, processes: int) -> Workers:
    """Start a training run."""
    path = folder / f"{recipe.out.name}-{processes}.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")), encoding="utf-8")
    return start(["train", path], processes)


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
