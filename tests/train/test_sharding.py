"""Runs with sharded weights equal those of one process, on any number of processes, with the same files."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fairhuman.errors import RecipeError
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from helpers.launched import finish, train_in
from helpers.runs import metrics_without_times

MakeRecipe = Callable[..., TrainRecipe]
SHARDED = {"sharding": "fsdp", "timeout": 120}


@pytest.fixture
def posed(people: Path, tmp_path: Path) -> Path:
    """The drawn people, with a pose of 17 points each."""
    folder = tmp_path / "posed"
    shutil.copytree(people, folder)
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for row in rows:
        row["pose"] = np.linspace([5, 5, 1], [40, 60, 1], 17).round(2).tolist()
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return folder


def product(recipe: TrainRecipe) -> dict[str, torch.Tensor]:
    """The weights of the result that a run wrote."""
    folder = recipe.out / ("model/unet" if recipe.kind == "full" else recipe.kind)
    return load_file(folder / "diffusion_pytorch_model.safetensors")


def checkpoint(run: Path, step: int) -> Path:
    return run / "checkpoints" / f"step-{step:07d}"


def weights(run: Path, step: int) -> dict[str, torch.Tensor]:
    """The trained weights of a checkpoint."""
    return load_file(checkpoint(run, step) / "trainable.safetensors")


def furthest(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    """‖·‖ of the difference of all weights."""
    return float(torch.stack([(one[name] - other[name]).double().norm() for name in one]).norm())


@pytest.mark.slow
def test_full_fine_tuning_in_two_shards_is_that_of_one_process(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Weights within 1e-6 after two steps of length 0.05; held-out losses and product come from whole weights."""
    values: dict[str, Any] = {
        "kind": "full",
        "steps": 2,
        "optimizer": {"name": "sgd"},
        "learning_rate": 0.05,
        "validation": {"every": 2, "share": 0.3},
    }
    alone, parts = make_recipe("alone", batch_size=4, **values), make_recipe("parts", processes=SHARDED, **values)
    finish(train_in(parts, tmp_path, 2))
    train(alone)
    assert furthest(product(alone), product(parts)) < 1e-6
    for ours, theirs in zip(metrics_without_times(alone.out), metrics_without_times(parts.out), strict=True):
        numbers, others = ({k: math.nan if v is None else v for k, v in row.items()} for row in (ours, theirs))
        assert numbers == pytest.approx(others, rel=1e-3, abs=1e-5, nan_ok=True)
    lines = [(run.out / "validation.jsonl").read_text().splitlines() for run in (alone, parts)]
    for ours, theirs in zip(*(map(json.loads, each) for each in lines), strict=True):
        for name, values in ours["objectives"].items():
            assert values["error"] == pytest.approx(theirs["objectives"][name]["error"], rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("controlnet", {"gradient_checkpointing": True, "fairness": {"mode": "output"}}),
        ("t2i_adapter", {"accumulate": 2, "preview": {"count": 1, "steps": 2}}),
        ("full", {"precision": "bf16", "strategy": "uw"}),
    ],
)
def test_a_sharded_run_resumes(
    make_recipe: MakeRecipe, posed: Path, tmp_path: Path, kind: str, more: dict[str, Any]
) -> None:
    """From step 2: on the same number of processes with the same bits; on others up to rounding."""
    values: dict[str, Any] = {"kind": kind, "data": str(posed), "steps": 4, "processes": SHARDED, **more}
    whole = make_recipe("whole", batch_size=3, **values)
    finish(train_in(whole, tmp_path, 2))
    for out in ("same", "three", "one"):
        shutil.copytree(whole.out, tmp_path / out)
        shutil.rmtree(tmp_path / out / ("model" if kind == "full" else kind))
        shutil.rmtree(checkpoint(tmp_path / out, 4))
    same = make_recipe("same", batch_size=3, **values)
    finish(train_in(same, tmp_path, 2))
    finish(train_in(make_recipe("three", batch_size=2, **values), tmp_path, 3))
    train(make_recipe("one", batch_size=6, **values))
    start, expected = weights(whole.out, 2), weights(whole.out, 4)
    moved = furthest(start, expected)
    assert furthest(weights(same.out, 4), expected) == 0.0
    assert metrics_without_times(same.out) == metrics_without_times(whole.out)
    for other in ("three", "one"):
        if whole.precision == "fp32":
            assert furthest(weights(tmp_path / other, 4), expected) < 0.05 * moved
        else:  # Adam moves a weight whose gradient is all rounding as far as any other
            assert distance(weights(tmp_path / other, 4), expected) < 0.5 * distance(start, expected)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"kind": "lora"}, "needs kind to be full or controlnet or t2i_adapter, found lora"),
        ({"full": {"text_encoders": True}}, "needs full.text_encoders to be False, found True"),
        ({"fairness": {"mode": "tail"}}, "needs fairness.mode to be exact or output or ema, found tail"),
        ({"precision": "fp16"}, "needs precision to be fp32 or bf16, found fp16"),
        ({"compile": True}, "needs compile to be False, found True"),
        ({"optimizer": {"name": "adamw8bit"}}, "needs optimizer.name to be adam or adamw or sgd, found adamw8bit"),
        ({"ema": {"decay": 0.9}}, "needs ema.decay to be None, found 0.9"),
    ],
)
def test_unsupported_sharding_is_refused(make_recipe: MakeRecipe, values: dict[str, Any], text: str) -> None:
    with pytest.raises(RecipeError, match=f"processes.sharding=fsdp {text}"):
        make_recipe(**{"kind": "full", "processes": SHARDED, **values})
