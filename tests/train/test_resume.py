"""Which settings may change on resuming, and runs that go on after their end."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.torch import load_file

from fairhuman import config
from fairhuman.errors import DataError, RecipeError
from fairhuman.train.loop import train
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import check_resumable, check_resumable_early, load_recipe, note_start
from fairhuman.train.run import Run, Watcher
from helpers.runs import Crash, read_lines

MakeRecipe = Callable[..., TrainRecipe]


class Killed(Watcher):
    """Ends a process at its start."""

    def on_start(self, run: Run) -> None:
        raise RuntimeError("killed")


def test_all_settings_that_differ_are_listed_and_which_may(make_recipe: MakeRecipe) -> None:
    schedule = {"name": "cosine"}
    train(make_recipe(steps=2, schedule=schedule))
    other = make_recipe(steps=3, schedule=schedule, lora={"rank": 8}, keep_checkpoints=1, regions={"names": ["face"]})
    with pytest.raises(RecipeError) as told:
        train(other)
    assert str(told.value).splitlines() == [
        f"{other.out} holds a run with other settings, which can't change on resuming:",
        "  lora.rank: 4 there, 8 now",
        "  regions.names: ['face', 'hand'] there, ['face'] now",
        f"{other.out} holds a run of 2 steps, after which the cosine schedule ends. To go on to step 3 at a constant "
        f"rate: `fairhuman train {other.out / 'recipe.yaml'} steps=3 schedule.name=constant keep_checkpoints=1`; "
        "learning_rate may change then too.",
        "These differ too, and may: keep_checkpoints.",
        "Choose another out, or lora.rank=4 regions.names=[face,hand] to resume; "
        f"`fairhuman train {other.out / 'recipe.yaml'}` goes on with the run's own settings.",
    ]
    with pytest.raises(RecipeError) as early:
        check_resumable_early(other)
    assert str(early.value) == str(told.value)


def test_a_folder_that_is_named_in_another_way_does_not_differ(
    make_recipe: MakeRecipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = make_recipe(steps=2, schedule={"name": "cosine"})
    config.save(first, first.out / "recipe.yaml")
    monkeypatch.chdir(first.out.parent)
    longer = make_recipe(steps=3, schedule={"name": "cosine"}).model_copy(update={"out": Path(first.out.name)})
    with pytest.raises(RecipeError) as told:
        check_resumable(longer, 2, None, 1)
    assert str(told.value).startswith(f"{first.out.name} holds a run of 2 steps")
    assert "differ too" not in str(told.value)


def test_a_run_that_measures_at_its_end_has_other_steps(make_recipe: MakeRecipe) -> None:
    """As a comparison has it: nobody gave `validation.every`."""
    first = make_recipe(steps=2, validation={"every": 2})
    config.save(first, first.out / "recipe.yaml")
    with pytest.raises(RecipeError) as told:
        check_resumable(make_recipe(steps=3, validation={"every": 3}), 2, None, 1)
    own = f"fairhuman train {first.out / 'recipe.yaml'}"
    assert str(told.value).splitlines()[1:] == [
        "  steps: 2 there, 3 now",
        f"Choose another out, or steps=2 to resume; `{own}` goes on with the run's own settings.",
    ]


def test_a_finished_run_goes_on_at_a_constant_rate(make_recipe: MakeRecipe) -> None:
    """As the error offers; a stop after that changes nothing."""
    settings = {"schedule": {"name": "cosine"}, "checkpoint_every": 1}
    first = make_recipe(steps=2, **settings)
    train(first)
    longer = {"steps": 4, "schedule": {"name": "constant"}, "learning_rate": 5e-4, "checkpoint_every": 1}
    assert check_resumable_early(make_recipe(**longer)) == 2
    run = train(make_recipe(**longer))
    assert (run.step, run.finished) == (4, True)
    rates = [row["lr"] for row in read_lines(first.out / "metrics.jsonl")]
    assert rates == pytest.approx([1e-3, 5e-4, 5e-4, 5e-4], rel=1e-12), "two of the cosine"
    assert yaml.safe_load((first.out / "recipe.yaml").read_text())["schedule"]["name"] == "constant"


def test_each_step_is_logged_with_its_own_rate(make_recipe: MakeRecipe) -> None:
    """Also after a resume: a warm-up begins at 0, and the last step has the rate that it was taken with."""
    settings = {"steps": 4, "schedule": {"name": "linear", "warmup_steps": 2}, "learning_rate": 1e-3}
    with pytest.raises(RuntimeError, match="crash"):
        train(make_recipe(**settings), [Crash(3)])
    out = train(make_recipe(**settings)).recipe.out
    assert [row["lr"] for row in read_lines(out / "metrics.jsonl")] == pytest.approx([0.0, 5e-4, 1e-3, 5e-4])


def test_a_finished_run_writes_its_files_again_where_their_settings_changed(make_recipe: MakeRecipe) -> None:
    """Also where the start that changed them was killed before it wrote them; the trained weights are the same."""
    first = make_recipe(steps=1, lora={"rank": 1, "title": "Ann"})
    train(first)
    files = [first.product / f"pytorch_lora_weights{name}.safetensors" for name in ("_kohya", "")]
    trained = load_file(files[1])
    changed = make_recipe(steps=1, lora={"rank": 1, "title": "Maria", "kohya_precision": "fp32"})
    with pytest.raises(RuntimeError, match="killed"):
        train(changed, [Killed()])
    train(changed)
    with safe_open(files[0], "pt") as kohya:
        assert kohya.metadata()["modelspec.title"] == "Maria"
    assert {tensor.dtype for name, tensor in load_file(files[0]).items() if "alpha" not in name} == {torch.float32}
    assert all(torch.equal(tensor, trained[name]) for name, tensor in load_file(files[1]).items())


def test_more_steps_alone_are_a_command_to_type(make_recipe: MakeRecipe) -> None:
    """The command that is named is taken as it stands; before the end, the one that ends the run comes first."""
    first = make_recipe(steps=2, schedule={"name": "cosine"})
    train(first)
    with pytest.raises(RecipeError) as told:
        check_resumable_early(make_recipe(steps=3, schedule={"name": "cosine"}))
    (line,) = str(told.value).splitlines()
    assert "can't change" not in line
    typed = line.partition("`")[2].partition("`")[0].split()
    recipe = load_recipe(Path(typed[2]), typed[3:])
    assert (recipe.steps, recipe.out, check_resumable_early(recipe)) == (3, first.out, 2)
    (first.out / "checkpoints" / "step-0000002").rename(first.out / "checkpoints" / "step-0000001")
    with pytest.raises(RecipeError, match=r"`fairhuman train \S+/recipe.yaml` to finish them, then `fairhuman train "):
        check_resumable_early(make_recipe(steps=3, schedule={"name": "cosine"}))


def test_fewer_steps_than_the_run_has_are_refused(make_recipe: MakeRecipe) -> None:
    first = make_recipe(steps=4)
    config.save(first, first.out / "recipe.yaml")
    with pytest.raises(RecipeError, match=r"^steps is 2, but the run in .* is at step 4 already: set more steps$"):
        check_resumable(make_recipe(steps=2), 4, None, 1)


def test_a_new_lora_is_named_after_its_recipe(make_recipe: MakeRecipe, tmp_path: Path) -> None:
    """One that has begun keeps its name; a comparison's recipes say that they have none."""
    recipe = make_recipe()
    values = recipe.model_dump(mode="json", exclude_defaults=True)
    (tmp_path / "maria.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    named = load_recipe(tmp_path / "maria.yaml")
    assert named.lora.title == "maria"
    assert load_recipe(tmp_path / "maria.yaml", ["lora.title=Ann"]).lora.title == "Ann"
    (recipe.out / "checkpoints" / "step-0000002").mkdir(parents=True)
    config.save(named, recipe.out / "recipe.yaml")
    (tmp_path / "maria.yaml").rename(tmp_path / "other.yaml")
    assert load_recipe(tmp_path / "other.yaml").lora.title == "maria"
    assert load_recipe(recipe.out / "recipe.yaml").lora.title == "maria"
    (recipe.out / "checkpoints" / "step-0000002").rmdir()
    config.save(recipe, tmp_path / "cell.yaml")
    assert load_recipe(tmp_path / "cell.yaml").lora.title is None


def test_a_schedule_must_end_first(make_recipe: MakeRecipe) -> None:
    train(make_recipe(steps=4, schedule={"name": "linear"}))
    (make_recipe().out / "checkpoints" / "step-0000004").rename(make_recipe().out / "checkpoints" / ".gone")
    with pytest.raises(RecipeError, match=r"\n  schedule.name: 'linear' there, 'constant' now\n"):
        train(make_recipe(steps=6, schedule={"name": "constant"}))


def test_starts_are_noted_with_the_settings_that_changed(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=2)
    recipe.out.mkdir(parents=True, exist_ok=True)
    for at, steps in ((0, 2), (0, 2), (2, 4), (2, 4), (3, 4)):
        recipe = make_recipe(steps=steps)
        starts = note_start(recipe, at)
        config.save(recipe, recipe.out / "recipe.yaml")
        (recipe.out / "summary.json").write_text(json.dumps({"starts": starts}), encoding="utf-8")
    found = [(start["step"], start["changed"]) for start in json.loads(json.dumps(starts))]
    assert found == [(0, {}), (2, {"steps": [2, 4]}), (2, {}), (3, {})]  # a start without progress is dropped


@pytest.mark.parametrize("summary", ["[]", "{", '{"starts": 5}', '{"starts": [{}]}', '{"starts": [{"step": "1"}]}'])
def test_a_damaged_list_of_starts_is_named(make_recipe: MakeRecipe, summary: str) -> None:
    recipe = make_recipe(steps=2)
    recipe.out.mkdir(parents=True, exist_ok=True)
    (recipe.out / "summary.json").write_text(summary, encoding="utf-8")
    with pytest.raises(DataError, match=r"summary.json: can't be read as this program wrote it .*; delete it"):
        note_start(recipe, 1)
