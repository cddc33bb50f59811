"""`fairness.floor` and `steer`: what a recipe may say, what a steered run measures and does, and how it resumes."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from fairhuman import config
from fairhuman.data.pictures.notes import LoadReport
from fairhuman.errors import DataError, RecipeError
from fairhuman.fairness import MinimumPotentialDelay, RateFloor
from fairhuman.train.data import load_data
from fairhuman.train.fairness import build_strategy
from fairhuman.train.loop import train
from fairhuman.train.metrics import Metrics
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.resume import load_recipe
from fairhuman.train.run import Run, Watcher
from fairhuman.train.steering import Steering
from helpers.figures import write_figures
from helpers.runs import metrics_without_times
from train.conftest import MakeRecipe

RECIPE = {"data": "people", "out": "run", "steps": 1}


class Told(Watcher):
    def __init__(self, crash: int | None = None) -> None:
        self.crash = crash
        self.texts: list[str] = []

    def on_message(self, text: str) -> None:
        self.texts.append(text)

    def on_step(self, run: Run, metrics: Metrics) -> None:
        if run.step == self.crash:
            raise RuntimeError("crash")


def steering(at_most: float = 0.01, least: float = 0.0) -> Steering:
    return Steering(RateFloor(MinimumPotentialDelay()), at_most, least)


@pytest.mark.parametrize(
    ("loss", "floor"), [(2.0, 0.0), (1.9, 0.0), (2.005, 0.25), (2.01, 0.5), (2.02, 1.0), (3.0, 1.0)]
)
def test_the_floor_is_the_part_of_the_allowance_that_is_spent(loss: float, floor: float) -> None:
    one = steering()
    one.update(2.0)
    one.update(loss)
    assert one.rate.floor == pytest.approx(floor)
    assert one.change == pytest.approx(loss / 2.0 - 1.0)


def test_a_floor_of_the_recipe_stays_the_least() -> None:
    one = steering(least=0.6)
    one.update(2.0)
    assert one.rate.floor == 0.6
    one.update(2.015)
    assert one.rate.floor == pytest.approx(0.75)
    one.update(float("nan"))
    assert one.rate.floor == 1.0


def test_its_state_is_all_that_it_needs() -> None:
    one, other = steering(), steering()
    one.update(2.0)
    one.update(2.008)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    assert other.rate.floor == one.rate.floor > 0.0
    other.update(2.008)  # a resumed run measures again
    assert other.state_dict() == one.state_dict()


def test_what_was_asked_for_is_told() -> None:
    one = steering()
    one.update(2.0)
    one.update(2.01)
    assert one.line() == "steer.at_most=0.01: the whole picture's held-out loss changed by +0.500 %"
    one.update(2.03)
    assert one.line().endswith("changed by +1.500 %; a lower learning_rate or smaller steer.every keeps it")


def test_recipes_build_a_floor(tmp_path: Path) -> None:
    def built(*overrides: str) -> Any:
        return build_strategy(config.build(TrainRecipe, RECIPE, overrides), torch.device("cpu"))

    assert isinstance(built(), MinimumPotentialDelay)
    assert built("fairness.floor=0.9").floor == 0.9
    banded = built("objectives.bands=3", "batch_size=16", "fairness.mode=exact", "steer.at_most=0.001")
    assert (banded.floor, banded.guarded) == (0.0, 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["strategy=ls", "fairness.floor=0.5"], "fairness.floor=0.5 has no effect with strategy=ls"),
        (["strategy=uw", "steer.at_most=0.01"], "steer.at_most=0.01 has no effect with strategy=uw"),
        (["regions.names=[]", "fairness.floor=0.5"], "fairness.floor=0.5 has no effect with regions.names=[]"),
        (["steer.every=10"], "steer.every=10 has no effect with steer.at_most=null"),
        (["steer.at_most=0.01", "steer.count=9"], "steer.count=9 has no effect with steer.data=null"),
        (["steer.at_most=0"], "steer.at_most: input should be greater than 0"),
        (["fairness.floor=1.5"], "fairness.floor: input should be less than or equal to 1"),
        (["steer.at_most=0.01", "validation.every=0"], "steer.at_most needs held-out pictures: set validation.every"),
    ],
)
def test_what_a_recipe_may_not_say(tmp_path: Path, overrides: list[str], message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE), encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        load_recipe(path, overrides)
    assert message in str(error.value)


def test_what_is_measured(make_recipe: MakeRecipe, people: Path, tmp_path: Path) -> None:
    """The held-out pictures themselves, or up to `count` of another data set, which the run's own data don't change."""
    steered = {"validation": {"every": 4, "share": 0.3}, "steer": {"at_most": 0.01}}
    data = load_data(make_recipe(**steered), LoadReport())
    assert data.steering is data.held_out is not None
    assert data.datasets == [data.train, data.held_out]
    plain = load_data(make_recipe(validation={"every": 4, "share": 0.3}), LoadReport())
    assert plain.steering is None
    assert plain.fingerprint == data.fingerprint
    others = tmp_path / "others"
    write_figures(others, 5, 64, seed=2)
    own = {"validation": {"every": 0}, "steer": {"at_most": 0.01, "data": str(others), "count": 3}}
    data = load_data(make_recipe(**own), LoadReport())
    assert data.held_out is None
    assert data.steering is not None
    assert len(data.steering) == 3
    assert all(record.key.startswith("steering/") for record in data.steering.records)
    assert len(data.train) == 12
    with pytest.raises(DataError, match=r"needs held-out pictures, and none is held out of 12; a larger"):
        load_data(make_recipe(validation={"every": 4, "share": 0.01}, steer={"at_most": 0.01}), LoadReport())


@pytest.mark.parametrize("mode", ["exact", pytest.param("output", marks=pytest.mark.slow)])
def test_a_steered_run_turns_and_resumes_bit_equal(make_recipe: MakeRecipe, mode: str) -> None:
    """At a learning rate that harms the whole picture, the floor rises to 1 and the run follows that gradient alone."""
    values: dict[str, Any] = {
        "steps": 4,
        "learning_rate": 3e-2,
        "fairness": {"mode": mode},
        "validation": {"every": 4, "share": 0.2, "timesteps": [0.3]},
        "steer": {"at_most": 1e-6, "every": 2},
    }
    if mode == "output":
        values = {**values, "steps": 19, "checkpoint_every": 17, "steer": {"at_most": 1e-6, "every": 9}}
    whole, broken = make_recipe("whole", **values), make_recipe("broken", **values)
    told = Told()
    train(whole, [told])
    with pytest.raises(RuntimeError, match="crash"):
        train(broken, [Told(values["steps"] - 1)])
    assert train(broken).finished
    weights = [(recipe.out / "lora" / "pytorch_lora_weights.safetensors").read_bytes() for recipe in (whole, broken)]
    assert weights[0] == weights[1]
    rows = metrics_without_times(whole.out)
    assert rows == metrics_without_times(broken.out)
    assert [row["floor"] for row in rows[:2]] == [0.0, 0.0]
    assert [row["steer_change"] for row in rows[:2]] == [0.0, 0.0]
    last = rows[-1]
    assert last["steer_change"] > 0.0
    assert last["floor"] == 1.0
    assert last["floor_turn"] > 0.0
    assert last["rate/global"] == pytest.approx(1.0)
    assert last["exact"] is (mode == "exact")
    assert any(
        text.startswith("steer.at_most=1e-06: the whole picture's held-out loss changed by") for text in told.texts
    )


def test_a_floor_alone_needs_no_held_out_pictures(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(steps=1, fairness={"mode": "exact", "floor": 0.95})
    train(recipe)
    for row in metrics_without_times(recipe.out):
        assert row["rate/global"] >= 0.95 - 1e-6
        assert row["floor"] == 0.95
        assert "steer_change" not in row
