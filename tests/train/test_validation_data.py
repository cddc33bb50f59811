"""Validation on a separate data set."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import collate
from fairhuman.errors import DataError
from fairhuman.report.changes import read_pair
from fairhuman.report.run_folder import read_validation
from fairhuman.report.training import write_training_report
from fairhuman.train.data import load_data, none_held_out
from fairhuman.train.loop import train
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import Objectives
from fairhuman.train.validation import _noise_draw, held_out_losses
from fairhuman.utils.digest import write_sums
from helpers.figures import write_figures
from helpers.runs import Stop, read_lines

MakeRecipe = Callable[..., TrainRecipe]


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """Other people under the same file names."""
    write_figures(tmp_path / "others", 5, 64, seed=9)
    return tmp_path / "others"


def test_it_is_held_out_completely_and_training_data_is_unchanged(make_recipe: MakeRecipe, others: Path) -> None:
    validation = {"every": 2, "data": str(others), "share": 0.5}
    data = load_data(make_recipe(validation=validation), LoadReport())
    assert data.held_out is not None
    assert (len(data.train), len(data.held_out)) == (12, 5)
    assert {record.key for record in data.held_out.records}.isdisjoint(record.key for record in data.train.records)
    fewer = load_data(make_recipe(validation={**validation, "count": 3}), LoadReport())
    other = load_data(make_recipe(seed=7, validation={**validation, "count": 3}), LoadReport())
    assert fewer.held_out is not None
    assert other.held_out is not None
    assert len(fewer.held_out) == 3
    keys = [[record.key for record in one.held_out.records] for one in (fewer, other)]
    assert keys[0] == keys[1], "runs of several seeds are compared"
    assert load_data(make_recipe(validation={"every": 0, "data": str(others)}), LoadReport()).held_out is None


@torch.no_grad()
def test_a_loss_is_the_mean_squared_error_over_its_region(make_recipe: MakeRecipe, others: Path) -> None:
    """Σ m e² / (C Σ m) over all samples and timesteps, each with noise of its own."""
    recipe, shares = make_recipe(validation={"every": 2, "data": str(others)}), (0.2, 0.8)
    held_out, cpu = load_data(recipe, LoadReport()).held_out, torch.device("cpu")
    assert held_out is not None
    objectives = Objectives(build_model(recipe, cpu), recipe.regions, recipe.noise, recipe.seed)
    batch = collate([held_out[position] for position in range(len(held_out))])
    masks_bkhw = objectives.masks(batch)
    draws = [_noise_draw(objectives, batch, masks_bkhw, t, share) for t, share in enumerate(shares)]
    assert not torch.equal(draws[0].noise_bchw, draws[1].noise_bchw)
    squares_tbhw = torch.stack([objectives.residual(batch, draw).square().sum(dim=1) for draw in draws])
    found = held_out_losses(objectives, held_out, shares, 2, cpu).losses()
    for k, name in enumerate(("global", "face", "hand")):
        mask_bhw = masks_bkhw[:, k]
        expected = (squares_tbhw * mask_bhw).sum() / (len(shares) * objectives.base.channels * mask_bhw.sum())
        assert found[name] == pytest.approx(float(expected), rel=1e-4)


def test_losses_are_measured_in_plain_boxes_whatever_is_trained_on(make_recipe: MakeRecipe, others: Path) -> None:
    validation = {"every": 2, "data": str(others)}
    soft = {"shape": "ellipse", "soft_edge": 3.0}

    def masks(**values: object) -> tuple[torch.Tensor, torch.Tensor]:
        data = load_data(make_recipe(view={"crop": "center", "flip_probability": 0.0}, **values), LoadReport())
        assert data.held_out is not None
        return data.train[0].masks_rhw, data.held_out[0].masks_rhw

    plain, changed = masks(validation=validation), masks(validation=validation, regions={"mask": soft})
    assert not torch.equal(plain[0], changed[0])
    assert torch.equal(plain[1], changed[1])
    asked = masks(validation={**validation, "mask": soft}, regions={"mask": soft})
    assert not torch.equal(plain[1], asked[1])


def test_the_training_data_s_own_held_out_rows_are_not_trained_on(
    make_recipe: MakeRecipe, people: Path, others: Path, tmp_path: Path
) -> None:
    shutil.copytree(people, tmp_path / "split")
    rows = [json.loads(line) for line in (people / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    rows[0]["split"] = "test"
    (tmp_path / "split" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    recipe = make_recipe(data=str(tmp_path / "split"), validation={"every": 2, "data": str(others)})
    data = load_data(recipe, LoadReport())
    assert (len(data.train), len(data.held_out or ())) == (11, 5)


def test_splits_are_held_out_by_any_usual_name_and_others_are_named(
    make_recipe: MakeRecipe, people: Path, tmp_path: Path
) -> None:
    held_out = ["Test", "validation_matched", "dev", "eval-2", "VAL", "test2017"]
    trained = ["train_clean", "Training", None, "device", "device", "gallery"]
    shutil.copytree(people, tmp_path / "split")
    rows = [json.loads(line) for line in (people / "metadata.jsonl").read_text(encoding="utf-8").splitlines()]
    for row, name in zip(rows, held_out + trained, strict=True):
        row["split"] = name
    (tmp_path / "split" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    data = load_data(make_recipe(data=str(tmp_path / "split"), validation={"every": 2}), LoadReport())
    assert data.held_out is not None
    assert {record.split for record in data.held_out.records} == set(held_out)
    assert {record.split for record in data.train.records} == set(trained)
    rule = "is trained on, as only val, valid, validation, test, dev and eval are held out; rename it if it should be"
    assert [line for line in data.lines() if "split" in line] == [
        f"warning: split device (2 pictures) {rule}",
        f"warning: split gallery (1 picture) {rule}",
    ]


def test_it_may_move_but_not_change_before_a_resume(make_recipe: MakeRecipe, others: Path, tmp_path: Path) -> None:
    values = {"view": {"crop": "center"}, "cache": {"latents": True}}
    train(make_recipe(steps=2, validation={"every": 2, "data": str(others)}, **values))
    shutil.move(others, tmp_path / "moved")
    moved = make_recipe(validation={"every": 2, "data": str(tmp_path / "moved")}, **values)
    assert train(moved).finished
    keys = [set(evaluation.keys) for evaluation in read_validation(moved.out)]
    assert len(keys) == 3
    assert keys[0] == keys[1] == keys[2]
    write_figures(tmp_path / "fewer", 4, 64, seed=9)
    with pytest.raises(DataError, match="records, or their mixture, differ from those of the run"):
        train(make_recipe(steps=6, validation={"every": 2, "data": str(tmp_path / "fewer")}, **values))


def test_a_run_says_why_nothing_is_held_out_and_what_would_change_it() -> None:
    recipe = TrainRecipe(data="a", out="b", steps=1)
    assert none_held_out(recipe, 12) == (
        "held-out losses are off: 5 % of 12 pictures is less than one; 8 more pictures, or validation.share=0.09, "
        "would hold one out"
    )
    assert none_held_out(recipe, 40) == (
        "held-out losses are off: all pictures are of one photo; add others, or set validation.data"
    )
    off = recipe.model_copy(update={"validation": recipe.validation.model_copy(update={"every": 0})})
    assert none_held_out(off, 12) is None


class Told(Stop):
    """Stops after a step, and keeps the run's messages in a list."""

    def __init__(self, step: int, told: list[str]) -> None:
        super().__init__(step)
        self.told = told

    def on_message(self, text: str) -> None:
        self.told.append(text)


def change_rows(folder: Path, **values: object) -> None:
    rows = [{**row, **values} for row in read_lines(folder / "metadata.jsonl")]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")


def test_losses_of_other_boxes_are_not_compared(make_recipe: MakeRecipe, others: Path) -> None:
    """Held-out boxes that were changed before a resume: told, noted with the start, and measured from there on."""
    told: list[str] = []
    recipe = make_recipe(steps=6, checkpoint_every=1, validation={"every": 2, "data": str(others)})
    train(recipe, [Stop(2)])
    train(recipe, [Told(4, told)])
    assert [one.step for one in read_validation(recipe.out)] == [0, 2]
    assert told == ["step 4 is done; saving a checkpoint and writing the report"], "nothing has changed"
    change_rows(others, faces=[[1, 1, 30, 30]])
    assert train(recipe, [Told(0, told)]).finished
    assert told[1:] == [
        "warning: sizes, captions, boxes or masks of the held-out records differ from those up to the checkpoint; the "
        "run goes on with what they are now; held-out losses from before are not compared with later ones"
    ]
    evaluations = read_validation(recipe.out)
    assert [one.step for one in evaluations] == [4, 6]
    assert evaluations[0].areas["face"].tolist() == evaluations[1].areas["face"].tolist()
    assert [row["step"] for row in read_lines(recipe.out / "validation.jsonl")] == [0, 2, 4, 6], "nothing is deleted"
    page = write_training_report(recipe.out).read_text(encoding="utf-8")
    assert "held-out records: as before → other sizes, captions, boxes or masks" in page
    with pytest.raises(DataError, match="were changed before step 4, so nothing was measured before training"):
        read_pair(recipe.out)


def test_other_captions_of_training_records_are_told(make_recipe: MakeRecipe, others: Path) -> None:
    """In a run of this version; one that an earlier version began goes on as it did."""
    told: list[str] = []
    recipe = make_recipe(data=str(others), steps=4)
    train(recipe, [Stop(2)])
    change_rows(others, caption="somebody")
    train(recipe, [Told(3, told)])
    assert told[0] == (
        "warning: sizes, captions, boxes or masks of the training records differ from those up to the checkpoint; the "
        "run goes on with what they are now"
    )
    file = recipe.out / "checkpoints" / "step-0000003" / "state.pt"
    state = torch.load(file, weights_only=True)
    assert state.pop("contents").keys() == {"training"}
    torch.save(state, file)
    write_sums(file.parent)
    told.clear()
    change_rows(others, caption="nobody")
    assert train(recipe, [Told(0, told)]).finished
    assert told == []
