"""What a run consists of beside its data, built from its recipe: model, strategy, optimiser."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor
from diffusers.optimization import get_scheduler
from torch import nn

from fairhuman.errors import ModelError, TrainingError
from fairhuman.fairness import (
    STRATEGIES,
    AlphaFair,
    DynamicWeightAverage,
    EmaEstimator,
    Estimator,
    ExactEstimator,
    FairBackward,
    FallbackEstimator,
    MinimumPotentialDelay,
    NashMTL,
    OutputEstimator,
    PairwiseEstimator,
    RandomLossWeighting,
    SplitEstimator,
    Strategy,
    TailEstimator,
    UncertaintyWeighting,
)
from fairhuman.fairness.estimators.audited import Exact
from fairhuman.models import TrainableModel
from fairhuman.models.control import Control, ControlModel, ControlSettings
from fairhuman.models.controlnet import ControlNet
from fairhuman.models.full import FullModel
from fairhuman.models.lora import LoraModel
from fairhuman.models.mole import MoleModel
from fairhuman.models.sdxl import load_pipeline, networks, vae_factor
from fairhuman.models.t2i_adapter import Adapter
from fairhuman.randomness import Stream, mixed_seed
from fairhuman.train.recipe import TrainRecipe

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
CONTROLS: dict[str, type[Control]] = {"controlnet": ControlNet, "t2i_adapter": Adapter}


def build_model(recipe: TrainRecipe, device: torch.device) -> TrainableModel:
    """Load the pipeline and make it trainable, on `device`."""
    dtype = DTYPES[recipe.precision] if recipe.kind != "full" else None
    pipeline = load_pipeline(recipe.model, recipe.seed, dtype or torch.float32)
    factor = vae_factor(pipeline.vae)
    levels = 2 ** (len(pipeline.unet.config.block_out_channels) - 1)
    for size in recipe.sizes:
        if any(side % (factor * levels) for side in size):
            name = "resolution" if size == recipe.size else "view.bucket_step"
            raise ModelError(
                f"{name} must be a multiple of {factor * levels} (VAE factor {factor}, U-Net {levels}), found {size}"
            )
    for part in networks(pipeline):
        part.to(device)
    if recipe.precision == "bf16" and device.type == "cpu":
        # The fused attention is a quarter slower here, forward and backward.
        pipeline.unet.set_attn_processor(AttnProcessor())
    if recipe.compile:
        # Several backward passes through one graph can't give its buffers away.
        torch._functorch.config.donated_buffer = False
        pipeline.unet.compile_repeated_blocks()
    return trainable(recipe, pipeline)


def trainable(recipe: TrainRecipe, pipeline: StableDiffusionXLPipeline) -> TrainableModel:
    """Make some of a pipeline's weights trainable, as the recipe's kind says."""
    pipeline.vae.enable_slicing()  # a picture at a time: in float32 a batch could need more than all else
    if recipe.kind == "full":
        return FullModel(pipeline, recipe.full.text_encoders, recipe.gradient_checkpointing)
    if recipe.control is not None:
        return ControlModel(pipeline, build_control(recipe, recipe.control, pipeline), recipe.gradient_checkpointing)
    if recipe.kind == "mole":
        return MoleModel(pipeline, recipe.mole, recipe.seed, recipe.gradient_checkpointing)
    return LoraModel(pipeline, recipe.lora, recipe.seed, recipe.gradient_checkpointing)


def build_control(recipe: TrainRecipe, settings: ControlSettings, pipeline: StableDiffusionXLPipeline) -> Control:
    """Return the recipe's ControlNet or T2I-adapter, new or from its checkpoint."""
    kind = CONTROLS[recipe.kind]
    if settings.start is None:
        return kind.new(pipeline, settings.conditions, recipe.seed)
    return kind.load(settings.start, pipeline, settings.conditions)


def build_strategy(recipe: TrainRecipe, device: torch.device) -> Strategy:
    """Return the recipe's strategy, with its settings."""
    fairness = recipe.fairness
    kind = STRATEGIES[recipe.strategy]
    if kind is AlphaFair:
        return AlphaFair(fairness.alpha, fairness.ridge)
    if kind is MinimumPotentialDelay or kind is NashMTL:
        return kind(fairness.ridge)
    if kind is DynamicWeightAverage:
        return DynamicWeightAverage(fairness.dwa_temperature, fairness.dwa_window)
    if kind is RandomLossWeighting:
        return RandomLossWeighting(mixed_seed(recipe.seed, Stream.STRATEGY))
    if kind is UncertaintyWeighting:
        strategy = UncertaintyWeighting(len(recipe.regions.objectives))
        strategy.s.data = strategy.s.data.to(device)
        return strategy
    return kind()


def build_fair_backward(
    recipe: TrainRecipe, model: TrainableModel, strategy: Strategy, scaler: torch.amp.GradScaler | None
) -> FairBackward:
    """Return the run's `FairBackward`."""
    return FairBackward(
        model.trainable_parameters(),
        strategy,
        length=recipe.fairness.length,
        radius=recipe.fairness.radius,
        batched=batched(recipe),
        estimator=build_estimator(recipe, model),
        scaler=scaler,
        names=recipe.regions.objectives,
    )


def batched(recipe: TrainRecipe) -> bool:
    """Whether the K gradients of an exact step come in one batched pass.

    Under gradient checkpointing it recomputes activations once; it can't run compiled, with dropout or sharded.
    """
    dropout = recipe.kind == "lora" and recipe.lora.dropout > 0.0
    whole = recipe.processes.sharding == "none"
    return recipe.gradient_checkpointing and not recipe.compile and not dropout and whole


def build_estimator(recipe: TrainRecipe, model: TrainableModel) -> Estimator:
    """Return the recipe's estimator and, after it, the dearer ones that take over where its audits are bad."""
    fairness, parameters = recipe.fairness, model.trainable_parameters()
    mode, every = fairness.mode, fairness.every
    exact = ExactEstimator(parameters, batched(recipe))
    last: Exact = PairwiseEstimator(parameters) if fairness.pairwise else exact
    if mode == "exact":
        return last
    if mode == "ema" or recipe.accumulate > 1:
        return FallbackEstimator([EmaEstimator(parameters, every or 8, last), last], fairness.limit)
    ladder: list[Estimator] = [last]
    if not fairness.pairwise and recipe.processes.sharding == "none":
        kinds: dict[str, type[TailEstimator]] = {"tail": TailEstimator}
        if mode == "split":  # by name alone: it ends a run whose regions lie in one another
            kinds["split"] = SplitEstimator
        for name, kind in kinds.items():
            try:
                ladder.insert(0, kind(model.pipeline.unet, parameters, every or 200, exact))
            except ValueError as error:
                if mode == name:
                    raise ModelError(f"fairness.mode {mode}: {error}") from error
    if mode == "output":
        ladder.insert(0, OutputEstimator(parameters, every or 32, last))
    return FallbackEstimator(ladder, fairness.limit)


def build_optimizer(recipe: TrainRecipe, model: TrainableModel, strategy: Strategy) -> torch.optim.Optimizer:
    """Return the optimiser of the model's parameters and, in a group of their own, the strategy's."""
    settings = recipe.optimizer
    groups: list[dict[str, Any]] = [{"params": model.trainable_parameters(), "lr": recipe.learning_rate}]
    if strategy.parameters():
        groups.append({"params": strategy.parameters(), "lr": recipe.fairness.uw_learning_rate, "weight_decay": 0.0})
    if settings.name == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay)
    adam: dict[str, Any] = {
        "betas": settings.betas,
        "eps": settings.epsilon,
        "weight_decay": settings.weight_decay,
    }
    if settings.name == "adamw8bit":
        try:
            import bitsandbytes
        except ImportError as error:
            raise TrainingError(
                "optimizer.name is adamw8bit, but bitsandbytes isn't installed: pip install 'fairhuman[eightbit]'"
            ) from error
        optimizer: torch.optim.Optimizer = bitsandbytes.optim.AdamW8bit(groups, **adam)
        return optimizer
    # A LoRA is hundreds of small tensors: one kernel for all takes a fifth of the time on a CPU.
    fused = model.trainable_parameters()[0].device.type in ("cpu", "cuda")
    return (torch.optim.AdamW if settings.name == "adamw" else torch.optim.Adam)(groups, **adam, fused=fused or None)


def build_schedule(recipe: TrainRecipe, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    """Return the learning rate's schedule, stepped once an optimiser step."""
    schedule: torch.optim.lr_scheduler.LRScheduler = get_scheduler(
        recipe.schedule.name,
        optimizer,
        num_warmup_steps=recipe.schedule.warmup_steps,
        num_training_steps=recipe.steps,
    )
    return schedule


def advance(schedule: torch.optim.lr_scheduler.LRScheduler) -> None:
    """Step the schedule; after a step that the loss scale skipped, torch would warn that none was taken."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*", category=UserWarning)
        schedule.step()


def trained_count(parameters: Sequence[nn.Parameter]) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in parameters)
