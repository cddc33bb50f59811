"""The learning rates of a run: the schedule is the model's, a strategy's own parameters keep theirs."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

from fairhuman.fairness import UncertaintyWeighting
from fairhuman.train.optimizer import build_optimizer, build_schedule
from fairhuman.train.recipe import TrainRecipe

STEPS = 40


def rates(fairness: dict[str, float]) -> list[list[float]]:
    """Learning rates of the model's group and of UW's, step by step."""
    recipe = TrainRecipe.model_validate(
        {
            "data": "people",
            "out": "run",
            "steps": STEPS,
            "learning_rate": 1e-3,
            "strategy": "uw",
            "schedule": {"name": "cosine", "warmup_steps": 4},
            "fairness": fairness,
        }
    )
    weight = nn.Parameter(torch.ones(3))
    model: Any = SimpleNamespace(trainable_parameters=lambda: [weight])
    optimizer = build_optimizer(recipe, model, UncertaintyWeighting(3))
    schedule = build_schedule(recipe, optimizer)
    found = []
    for _ in range(STEPS):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("fairness", "rate"), [({}, 0.01), ({"uw_learning_rate": 0.003}, 0.003)])
def test_the_rate_of_uncertainty_weighting_is_constant(fairness: dict[str, float], rate: float) -> None:
    found = rates(fairness)
    assert {own for _, own in found} == {rate}
    assert found[0][0] == 0.0
    assert found[4][0] == 1e-3
    assert found[-1][0] < 1e-5
