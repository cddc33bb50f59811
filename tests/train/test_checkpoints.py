"""A checkpoint that isn't what was written is passed over, and the run says so."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fairhuman.errors import TrainingError
from fairhuman.train.checkpoint import Checkpoints
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.run import Run, Watcher
from fairhuman.utils.digest import SUMS
from helpers.damage import flip

MakeRecipe = Callable[..., TrainRecipe]
FILES = ("trainable.safetensors", "state.pt", SUMS)


@pytest.fixture
def saved(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path / "checkpoints", keep=2)
    for step in (2, 4, 6):
        checkpoints.save(step, {"w": torch.full((4,), float(step))}, {"optimizer": {"m": torch.ones(3)}})
    return checkpoints


def test_the_newest_checkpoint_is_read(saved: Checkpoints) -> None:
    loaded = saved.load()
    assert loaded is not None
    assert (float(loaded[0]["w"][0]), loaded[1]["step"], saved.notes) == (6.0, 6, [])
    assert [path.name for path in saved.list()] == ["step-0000004", "step-0000006"]
    assert sorted(path.name for path in saved.list()[-1].iterdir()) == sorted(FILES)
    assert Checkpoints(saved.folder.parent / "none", 1).load() is None


@pytest.mark.parametrize("file", FILES)
def test_a_flipped_bit_in_any_file_falls_back(saved: Checkpoints, file: str) -> None:
    flip(saved.list()[-1] / file)
    loaded = saved.load()
    assert loaded is not None
    assert (float(loaded[0]["w"][0]), loaded[1]["step"]) == (4.0, 4)
    (note,) = saved.notes
    assert "step-0000006/" in note
    assert "damaged" in note
    assert note.endswith("The run goes on from the checkpoint before: step-0000004")


@pytest.mark.parametrize("with_digests", [True, False])
def test_a_checkpoint_under_the_name_of_another_step_falls_back(saved: Checkpoints, with_digests: bool) -> None:
    copied = saved.folder / "step-0000008"
    shutil.copytree(saved.folder / "step-0000004", copied)
    if not with_digests:
        (copied / SUMS).unlink()
    loaded = saved.load()
    assert loaded is not None
    assert loaded[1]["step"] == 6
    assert saved.notes == [
        f"{copied}: is not what was written: it holds step 4, not 8. The run goes on from the checkpoint before: "
        "step-0000006"
    ]


def test_without_a_sound_checkpoint_the_run_is_refused_in_one_line(saved: Checkpoints) -> None:
    for folder in saved.list():
        flip(folder / "state.pt")
    (saved.list()[0] / "trainable.safetensors").unlink()
    with pytest.raises(TrainingError) as told:
        saved.load()
    (line,) = str(told.value).splitlines()
    assert line.startswith(f"no checkpoint of this run can be used: {saved.list()[1]}/state.pt: is damaged: differs ")
    assert line.endswith(f"Restore one from a backup, or delete {saved.folder} to start anew")


def test_what_has_no_digests_is_read_as_before_with_a_note(saved: Checkpoints) -> None:
    for folder in saved.list():
        (folder / SUMS).unlink()
    loaded = saved.load()
    assert loaded is not None
    assert loaded[1]["step"] == 6
    assert saved.notes == [f"{saved.list()[1]}: has no digests, as an earlier version wrote it; it is used unchecked"]
    (saved.list()[1] / "state.pt").write_bytes(b"no")
    saved.notes.clear()
    loaded = saved.load()
    assert loaded is not None
    assert (loaded[1]["step"], len(saved.notes)) == (4, 2)


def test_a_checkpoint_that_is_whole_and_unreadable_is_no_damage(
    saved: Checkpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("can't allocate memory\nat line 1")

    monkeypatch.setattr("fairhuman.train.checkpoint.torch.load", fail)
    with pytest.raises(
        TrainingError, match=r"step-0000006: can't be read \(RuntimeError: can't allocate memory\); delete"
    ):
        saved.load()


def test_saving_keeps_the_sound_ones_and_removes_damaged_ones_of_later_steps(saved: Checkpoints) -> None:
    saved.keep = 1
    saved.save(5, {"w": torch.zeros(4)}, {})  # after step 6 was damaged, the run went on from step 4
    assert [path.name for path in saved.list()] == ["step-0000005"]


class Listener(Watcher):
    def __init__(self) -> None:
        self.texts: list[str] = []
        self.began: list[int] = []

    def on_start(self, run: Run) -> None:
        self.began.append(run.step)

    def on_message(self, text: str) -> None:
        self.texts.append(text)


def test_a_run_goes_on_before_a_damaged_checkpoint_and_ends_with_the_same_bits(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=3, checkpoint_every=1)
    train(recipe)
    product = recipe.product / "pytorch_lora_weights.safetensors"
    whole = product.read_bytes()
    product.unlink()
    flip(recipe.out / "checkpoints" / "step-0000003" / "trainable.safetensors")
    listener = Listener()
    train(recipe, [listener])
    assert listener.began == [2]
    assert sum("step-0000003/trainable.safetensors: is damaged" in text for text in listener.texts) == 1
    assert product.read_bytes() == whole
    steps = [line.split(",")[0] for line in (recipe.out / "metrics.jsonl").read_text().splitlines()]
    assert steps == ['{"step": 1', '{"step": 2', '{"step": 3']
