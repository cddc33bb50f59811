"""Build the model of a run from its recipe."""

from typing import Any

import torch
from torch import nn

from fairhuman.bases.base import base_of, networks
from fairhuman.errors import ModelError
from fairhuman.models.control import Control, ControlModel
from fairhuman.models.frozen_linear import freeze_linear_
from fairhuman.models.full import FullModel
from fairhuman.models.lora import LoraModel
from fairhuman.models.model import TrainableModel
from fairhuman.models.mole import MoleModel
from fairhuman.models.registry import CONTROLS, DTYPES
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import ControlSettings
from fairhuman.train.bases import check_settings
from fairhuman.train.recipe import TrainRecipe

FP8_SINCE = (8, 9)  # compute capability


def build_model(recipe: TrainRecipe, device: torch.device) -> TrainableModel:
    """Load the pipeline and make it trainable, on `device`; what the recipe caches the results of is in main memory."""
    check_settings(recipe)
    if problem := fp8_misfit(recipe, device):
        raise ModelError(problem)
    dtype = DTYPES[recipe.precision] if recipe.kind != "full" else None
    pipeline = load_pipeline(recipe.model, recipe.seed, dtype or torch.float32, recipe.base.whole)
    base = base_of(pipeline)
    step = base.factor * base.patch
    for size in recipe.sizes:
        if any(side % step for side in size):
            name = "resolution" if size == recipe.size else "view.bucket_step"
            raise ModelError(
                f"{name} must be a multiple of {step} (VAE factor {base.factor}, {base.called} {base.patch}), "
                f"found {size}"
            )
        base.check_largest(size, "resolution" if size == recipe.size else "view.bucket_aspect")
    control = prepare(recipe, pipeline)
    cached = [*(base.text_encoders if recipe.cache.text else ()), *([base.vae] if recipe.cache.latents else ())]
    for part in networks(pipeline):
        if all(part is not other for other in cached):
            part.to(device)
    if recipe.compile:
        # Several backward passes through one graph need its buffers to stay.
        torch._functorch.config.donated_buffer = False
        base.compile_blocks()
    model = make_trainable(recipe, pipeline, control)
    if recipe.base.offload:
        base.network.to(device)  # new layers begin where the weight beside them is
    return model


def fp8_misfit(recipe: TrainRecipe, device: torch.device) -> str | None:
    """Say what to change if torch can't compile fp8 weights for this GPU: Triton reads them from `FP8_SINCE` on."""
    if not recipe.compile or recipe.base.quantize != "fp8" or device.type != "cuda":
        return None
    found = torch.cuda.get_device_capability(device)
    if found >= FP8_SINCE:
        return None
    return (
        "base.quantize=fp8 with compile=true needs a GPU of compute capability {}.{} or higher, found {}.{}: take "
        "base.quantize=int8, or compile=false"
    ).format(*FP8_SINCE, *found)


def prepare(recipe: TrainRecipe, pipeline: Any) -> Control | None:
    """Quantise and offload a loaded pipeline as the recipe has it; return its control, which may copy whole weights."""
    control = None if recipe.control is None else build_control(recipe, recipe.control, pipeline)
    freeze_linear_(pipeline, recipe.base)
    return control


def make_trainable(recipe: TrainRecipe, pipeline: Any, control: Control | None) -> TrainableModel:
    """Wrap a pipeline, and the control from `prepare`, as the trainable model of the recipe's kind."""
    if recipe.kind == "full":
        return FullModel(pipeline, recipe.full.text_encoders, recipe.gradient_checkpointing)
    if control is not None:
        return ControlModel(pipeline, control, recipe.gradient_checkpointing)
    if recipe.kind == "mole":
        return MoleModel(pipeline, recipe.mole, recipe.seed, recipe.gradient_checkpointing)
    return LoraModel(pipeline, recipe.lora, recipe.seed, recipe.gradient_checkpointing, recipe.size)


def networks_of_step(model: TrainableModel) -> list[nn.Module]:
    """Return the network of a model's base, and its control's."""
    return [base_of(model.pipeline).network, *([model.control.network] if isinstance(model, ControlModel) else [])]


def build_control(recipe: TrainRecipe, settings: ControlSettings, pipeline: Any) -> Control:
    """Return the recipe's ControlNet or T2I-adapter, new or loaded from `start`."""
    kind = CONTROLS[recipe.kind]
    if settings.start is None:
        return kind.new(pipeline, settings.conditions, recipe.seed)
    return kind.load(settings.start, pipeline, settings.conditions)
