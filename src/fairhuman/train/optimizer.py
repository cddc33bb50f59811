"""Build the optimiser and the learning-rate schedule of a run from its recipe."""

import warnings
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from fairhuman.errors import TrainingError
from fairhuman.fairness import Strategy
from fairhuman.models.model import TrainableModel
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.settings import NO_EIGHTBIT


def build_optimizer(recipe: TrainRecipe, model: TrainableModel, strategy: Strategy) -> torch.optim.Optimizer:
    """Return the optimiser of the model's parameters and, in a separate group, the strategy's."""
    settings, rate = recipe.optimizer, recipe.learning_rate  # the schedule reads the rate that isn't a group's own
    groups: list[dict[str, Any]] = [{"params": model.trainable_parameters()}]
    if strategy.parameters():
        groups.append({"params": strategy.parameters(), "lr": recipe.fairness.uw_learning_rate, "weight_decay": 0.0})
    if settings.name == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=settings.momentum, weight_decay=settings.weight_decay)
    adam: dict[str, Any] = {
        "lr": rate,
        "betas": settings.betas,
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    if settings.name == "adamw8bit":
        try:
            import bitsandbytes
        except ImportError as error:
            raise TrainingError(NO_EIGHTBIT) from error
        optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(groups, **adam)
        return optimizer
    # A LoRA has hundreds of small tensors: one fused kernel takes a fifth of the time on a CPU.
    fused = model.trainable_parameters()[0].device.type in ("cpu", "cuda")
    return (torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam)(groups, **adam, fused=fused or None)


def build_schedule(recipe: TrainRecipe, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LambdaLR:
    """Return the learning-rate schedule of the model's parameters, advanced once per optimiser step.

    A strategy's parameters keep their rate: under the model's schedule UW's s would hardly move.
    """
    settings = recipe.schedule
    schedule = get_scheduler(
        settings.name,
        optimizer,
        num_warmup_steps=settings.warmup_steps,
        num_training_steps=recipe.steps,
        power=settings.power,
    )
    others = len(optimizer.param_groups) - 1
    return torch.optim.lr_scheduler.LambdaLR(optimizer, [schedule.lr_lambdas[0], *[_constant] * others])


def _constant(_step: int) -> float:
    return 1.0


def restore_schedule(schedule: torch.optim.lr_scheduler.LambdaLR, state: dict[str, Any]) -> None:
    """Go on at the step of a schedule's state, with this schedule's own shape and maximum.

    They are those of the state, unless a finished run goes on at a constant rate.
    """
    schedule.load_state_dict({**state, "base_lrs": schedule.base_lrs})
    rates = [
        base * rate(schedule.last_epoch) for base, rate in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


def advance(schedule: torch.optim.lr_scheduler.LambdaLR) -> None:
    """Advance the schedule, without torch's warning after a step that the loss scaler skipped."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*", category=UserWarning)
        schedule.step()
