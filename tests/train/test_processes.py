"""Two processes train as one does on the joined batch."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from fairhuman import recipe
from fairhuman.train.loop import train
from fairhuman.train.settings import TrainRecipe

PROCESSES = ("one", "two")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(("strategy", "kept"), [("mpd", False), ("uw", True)])
def test_two_processes_train_as_one_on_the_joined_batch(
    people: Path, tmp_path: Path, strategy: str, kept: bool
) -> None:
    """Equal up to the rounding of a sum in another order: 3 steps of SGD, LoRA within 1e-4 of its largest entry.

    With caches both processes write into an empty one, and the single one into another.
    """
    settings = {
        "data": str(people),
        "steps": 3,
        "resolution": 32,
        "learning_rate": 0.5,
        "strategy": strategy,
        "optimizer": {"name": "sgd"},
        "lora": {"rank": 2},
        "validation": {"every": 3, "share": 0.3},
        "preview": {"count": 0},
        "view": {"crop": "center" if kept else "random"},
    }
    caches = {name: {"latents": kept, "text": kept, "folder": str(tmp_path / "caches" / name)} for name in PROCESSES}
    one = recipe.build(TrainRecipe, {**settings, "out": str(tmp_path / "one"), "batch_size": 4, "cache": caches["one"]})
    train(one)
    path = tmp_path / "two.yaml"
    two = {**settings, "out": str(tmp_path / "two"), "batch_size": 2, "cache": caches["two"]}
    path.write_text(yaml.safe_dump(two), encoding="utf-8")
    environment = {
        **os.environ,
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    workers = [
        subprocess.Popen(
            [sys.executable, "-m", "fairhuman.cli", "train", str(path)],
            env={**environment, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    outputs = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0], "\n".join(outputs)
    ours, theirs = (load_file(tmp_path / name / "lora" / "pytorch_lora_weights.safetensors") for name in PROCESSES)
    assert ours.keys() == theirs.keys()
    largest = max(float(tensor.abs().max()) for tensor in ours.values())
    moved = max(float(tensor.abs().max()) for name, tensor in ours.items() if "lora_B" in name)
    assert moved > 0.01 * largest
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-4 * largest), name
    assert (tmp_path / "one" / "metrics.jsonl").read_text().count("\n") == 3
    assert (tmp_path / "two" / "metrics.jsonl").read_text().count("\n") == 3
    found = [set[str]() for _ in PROCESSES]
    for names, name in zip(found, PROCESSES, strict=True):
        for file in (tmp_path / "caches" / name).rglob("*.safetensors"):
            assert names.isdisjoint(load_file(file))
            names.update(load_file(file))
    assert found[0] == found[1]
    assert bool(found[0]) == kept
