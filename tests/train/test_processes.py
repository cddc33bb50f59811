"""Two and three processes train like one on the whole batch; crashes of a process."""

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.errors import RecipeError
from fairhuman.train.data import load_data
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from helpers.figures import write_shapes
from helpers.launched import finish, start, train_in

MakeRecipe = Callable[..., TrainRecipe]
PROCESSES = ("one", "two")


def check_same_lora(one: Path, other: Path) -> None:
    """Within 1e-4 of the largest entry, and something was trained."""
    ours, theirs = (load_file(run / "lora" / "pytorch_lora_weights.safetensors") for run in (one, other))
    assert ours.keys() == theirs.keys()
    largest = max(float(tensor.abs().max()) for tensor in ours.values())
    moved = max(float(tensor.abs().max()) for name, tensor in ours.items() if "lora_B" in name)
    assert moved > 0.01 * largest
    for name in ours:
        assert torch.allclose(ours[name], theirs[name], rtol=0, atol=1e-4 * largest), name


@pytest.mark.parametrize(("strategy", "kept"), [pytest.param("mpd", False, marks=pytest.mark.slow), ("uw", True)])
def test_two_processes_train_as_one_on_the_joined_batch(
    people: Path, tmp_path: Path, strategy: str, kept: bool
) -> None:
    """Equal up to the rounding of a sum in another order: 3 steps of SGD, LoRA within 1e-4 of its largest entry.

    With caches both processes write into an empty one, and the single one into another; then the pictures are in
    buckets too.
    """
    shapes = [(96, 64)] * 5 + [(64, 96)] * 5 + [(64, 64)] * 2
    settings = {
        "data": str(write_shapes(tmp_path / "shapes", shapes) if kept else people),
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
    one = config.build(TrainRecipe, {**settings, "out": str(tmp_path / "one"), "batch_size": 4, "cache": caches["one"]})
    train(one)
    two = {**settings, "out": str(tmp_path / "two"), "batch_size": 2, "cache": caches["two"]}
    finish(train_in(config.build(TrainRecipe, two), tmp_path, 2))
    check_same_lora(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one" / "metrics.jsonl").read_text().count("\n") == 3
    assert (tmp_path / "two" / "metrics.jsonl").read_text().count("\n") == 3
    found = [set[str]() for _ in PROCESSES]
    for names, name in zip(found, PROCESSES, strict=True):
        for file in (tmp_path / "caches" / name).rglob("*.safetensors"):
            assert names.isdisjoint(load_file(file))
            names.update(load_file(file))
    assert found[0] == found[1]
    assert bool(found[0]) == kept


def steps_taken(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.read_text(encoding="utf-8").count("\n") if file.exists() else 0


def test_a_killed_process_ends_the_run_and_other_process_counts_resume(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """Two processes, then three, then one: 6 samples a step, the same ones as in a run of one process all along.

    The surviving process ends with an error that explains it.
    """
    settings: dict[str, Any] = {"optimizer": {"name": "sgd"}, "learning_rate": 0.05, "lora": {"rank": 2}}
    settings |= {"checkpoint_every": 1, "fairness": {"mode": "exact"}}  # the same with accumulation
    first = make_recipe("run", batch_size=3, steps=5000, processes={"timeout": 120}, **settings)
    workers = train_in(first, tmp_path, 2)
    while steps_taken(first.out) < 3 and all(worker.poll() is None for worker in workers):
        time.sleep(0.1)
    workers[1].send_signal(signal.SIGKILL)
    said, _ = finish(workers, [1, -signal.SIGKILL])
    assert "error: another process of the run ended, or didn't respond within processes.timeout = 120 s" in said
    assert "resume from the last complete checkpoint" in said

    at = int(max(path.name for path in (first.out / "checkpoints").iterdir()).removeprefix("step-"))
    with pytest.raises(
        RecipeError, match=r"samples per step: 6 there; batch_size 3 x accumulate 1 x 1 processes give 3 now"
    ):
        train(make_recipe("run", batch_size=3, steps=at + 2, **settings))
    finish(train_in(make_recipe("run", batch_size=2, steps=at + 2, **settings), tmp_path, 3))
    train(make_recipe("run", batch_size=2, accumulate=3, steps=at + 4, **settings))
    train(make_recipe("alone", batch_size=6, steps=at + 4, **settings))
    check_same_lora(tmp_path / "alone", first.out)


def test_pictures_lost_in_another_process_are_counted_and_end_all(
    make_recipe: MakeRecipe, people: Path, tmp_path: Path
) -> None:
    """The second process alone meets the picture that is cut behind its header."""
    data = shutil.copytree(people, tmp_path / "cut")
    source = {"check": "header", "max_reject_share": 0.0}
    recipe = make_recipe(data=str(data), steps=1, batch_size=1, lora={"rank": 2}, source=source)
    found = load_data(recipe, LoadReport()).train
    picture = found.records[found.order.index(1)].image
    assert isinstance(picture, Path)
    picture.write_bytes(picture.read_bytes()[:-200])
    for said in finish(train_in(recipe, tmp_path, 2), [1, 1]):
        assert "1 of 12 pictures have become unreadable" in said


def test_a_division_that_would_change_the_estimator_is_refused(make_recipe: MakeRecipe) -> None:
    """With accumulation, ema replaces mode output."""
    train(make_recipe(batch_size=4, steps=1, fairness={"mode": "output"}))
    with pytest.raises(
        RecipeError,
        match=r"holds a run with other settings.*\n  accumulate: 1 there, 2 now; above 1, mode output becomes ema",
    ):
        train(make_recipe(batch_size=2, accumulate=2, steps=2, fairness={"mode": "output"}))


def test_a_loss_weighting_may_begin_to_accumulate(make_recipe: MakeRecipe) -> None:
    """It estimates nothing, whatever the mode."""
    train(make_recipe(strategy="ls", batch_size=4, steps=1))
    assert train(make_recipe(strategy="ls", batch_size=2, accumulate=2, steps=2)).finished


def test_a_division_that_would_change_what_is_dropped_is_refused(make_recipe: MakeRecipe) -> None:
    settings: dict[str, Any] = {"lora": {"rank": 2, "dropout": 0.1}, "fairness": {"mode": "exact"}}
    train(make_recipe(batch_size=4, steps=1, **settings))
    with pytest.raises(RecipeError, match=r"batch_size: 4 there, 2 now\n  accumulate: 1 there, 2 now"):
        train(make_recipe(batch_size=2, accumulate=2, steps=2, **settings))
    assert train(make_recipe(batch_size=4, steps=2, **settings)).finished


@pytest.mark.slow
def test_pictures_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    """Nor does any byte of their files: processes take whole batches in turn."""
    common = ["--count", 5, "--batch-size", 2, "--steps", 2, "--height", 32, "--width", 32]
    for processes, out in enumerate(PROCESSES, start=1):
        outputs = finish(start(["sample", tmp_path / out, "--prompt", "a hand", *common], processes))
        assert all("a hand" in output for output in outputs), "each of them draws some"
    one, two = ({file.name: file.read_bytes() for file in (tmp_path / out).iterdir()} for out in PROCESSES)
    assert len(one) == 5
    assert one == two
