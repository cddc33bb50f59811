"""A run's model and its step, without a trainer around it."""

from collections.abc import Callable
from dataclasses import replace

import torch

from fairhuman.data.pictures.notes import LoadReport
from fairhuman.data.samples.batch import collate
from fairhuman.fairness import FairStep
from fairhuman.models.model import TrainableModel
from fairhuman.models.registry import DTYPES
from fairhuman.train.data import load_data
from fairhuman.train.fairness import build_fair_backward, build_strategy
from fairhuman.train.model import build_model
from fairhuman.train.recipe import TrainRecipe
from fairhuman.train.step import Objectives, fair_step


def prepared(recipe: TrainRecipe, device: torch.device) -> tuple[TrainableModel, Callable[[], FairStep]]:
    """A model and its step, taken once already, so that one-time allocations are done."""
    model = build_model(recipe, device)
    data = load_data(recipe.model_copy(update={"kind": "lora"}), LoadReport())  # needs no pose
    objectives = Objectives(model, recipe.regions, recipe.noise, recipe.seed, DTYPES[recipe.precision])
    fair = build_fair_backward(recipe, model, build_strategy(recipe, device), None)
    pose = {"pose": torch.rand(4, 3, 64, 64)}
    batch = replace(collate([data.train[k] for k in range(4)]), conditions=pose).to(device)
    micro_batches = [batch] * recipe.accumulate
    fair_step(objectives, fair, micro_batches)
    for parameter in model.trainable_parameters():
        parameter.grad = None
    return model, lambda: fair_step(objectives, fair, micro_batches)[0]
