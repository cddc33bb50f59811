"""The learning rates of a run: the schedule is the model's, a strategy's own parameters keep theirs."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers.training_utils import EMAModel
from torch import nn

from fairhuman.fairness import UncertaintyWeighting
from fairhuman.train.optimizer import build_optimizer, build_schedule
from fairhuman.train.recipe import TrainRecipe

STEPS = 40


def built(**values: Any) -> tuple[TrainRecipe, torch.optim.Optimizer]:
    """A recipe, and its optimiser of a group of the model's and one of UW's."""
    recipe = TrainRecipe.model_validate(
        {
            "data": "people",
            "out": "run",
            "steps": STEPS,
            "learning_rate": 1e-3,
            "strategy": "uw",
            "schedule": {"name": "cosine", "warmup_steps": 4},
            **values,
        }
    )
    weight = nn.Parameter(torch.ones(3))
    model: Any = SimpleNamespace(trainable_parameters=lambda: [weight])
    return recipe, build_optimizer(recipe, model, UncertaintyWeighting(3))


def rates(**values: Any) -> list[list[float]]:
    """Learning rates of both groups, step by step."""
    recipe, optimizer = built(**values)
    schedule = build_schedule(recipe, optimizer)
    found = []
    for _ in range(STEPS):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(("fairness", "rate"), [({}, 0.01), ({"uw_learning_rate": 0.003}, 0.003)])
def test_the_rate_of_uncertainty_weighting_is_constant(fairness: dict[str, float], rate: float) -> None:
    found = rates(fairness=fairness)
    assert {own for _, own in found} == {rate}
    assert found[0][0] == 0.0
    assert found[4][0] == 1e-3
    assert found[-1][0] < 1e-5


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_the_decay_of_weights_is_the_model_s_alone(name: str) -> None:
    _, optimizer = built(optimizer={"name": name, "weight_decay": 0.1})
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_a_polynomial_falls_to_its_end_rate_by_its_power(name: str) -> None:
    """η = (1e-4 - 1e-7) (1 - t / T)^p + 1e-7 after the warm-up."""
    schedule = {"name": "polynomial", "warmup_steps": 4, "power": 2.0}
    found = [rate for rate, _ in rates(learning_rate=1e-4, schedule=schedule, optimizer={"name": name})]
    expected = [(1e-4 - 1e-7) * (1 - step / (STEPS - 4)) ** 2 + 1e-7 for step in range(STEPS - 4)]
    assert found[4:] == pytest.approx(expected)


def test_the_most_that_the_decay_of_an_average_can_be() -> None:
    """As the description of `ema.decay` says it."""
    average = EMAModel([nn.Parameter(torch.ones(1))], decay=0.9999, use_ema_warmup=True)
    for step in (2, 100, 1_000, 10_000):
        assert average.get_decay(step) == pytest.approx(1 - step ** (-2 / 3))
