"""`fairness.weights`: a fixed weight for each objective of strategy ls."""

from pathlib import Path

import pytest
import torch

from fairhuman import config
from fairhuman.errors import RecipeError
from fairhuman.fairness import FairBackward
from fairhuman.report.training import write_training_report
from fairhuman.train.fairness import build_strategy
from fairhuman.train.recipe import TrainRecipe
from helpers.run_folder import make_run

RECIPE = {"data": "people", "out": "run", "steps": 1, "strategy": "ls"}


def test_the_direction_is_the_weighted_sum_and_names_may_be_left_out() -> None:
    recipe = config.build(
        TrainRecipe, RECIPE, ["regions.names=[face, feet]", "fairness.weights={feet: 0.25, global: 2}"]
    )
    w = torch.nn.Parameter(torch.tensor([1.0, 2.0, 4.0]))
    fair = FairBackward([w], build_strategy(recipe, torch.device("cpu")), length="scalarized")
    step = fair(list(w.square()))
    assert step is not None
    assert step.weights.tolist() == [2.0, 1.0, 0.25]
    assert w.grad is not None
    assert w.grad.tolist() == [4.0, 4.0, 2.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("{face: -1}", "fairness.weights.face: input should be greater than or equal to 0, found -1"),
        ("{hand: .nan}", "fairness.weights.hand: input should be a finite number, found nan"),
        ("{hand: .inf}", "fairness.weights.hand: input should be a finite number, found inf"),
        ("{hands: 1}", "fairness.weights names 'hands', the objectives are global, face, hand"),
        ("{global: 0, face: 0, hand: 0}", "fairness.weights must have a weight above 0, found 0 for every objective"),
    ],
)
def test_a_wrong_weight_is_named(given: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        config.build(TrainRecipe, RECIPE, [f"fairness.weights={given}"])
    assert message in str(error.value)


def test_the_report_names_the_weights(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", steps=20)
    recipe = config.build(TrainRecipe, RECIPE, ["fairness.weights={global: 1, face: 0.35}"])
    config.save(recipe, run / "recipe.yaml")
    page = write_training_report(run).read_text(encoding="utf-8")
    assert "global 1, face 0.35" in page
    config.save(recipe.model_copy(update={"strategy": "mpd"}), run / "recipe.yaml")
    assert "global 1, face 0.35" not in write_training_report(run).read_text(encoding="utf-8")
