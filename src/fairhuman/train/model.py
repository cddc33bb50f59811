"""Build the model of a run from its recipe."""

import torch
from diffusers import StableDiffusionXLPipeline
from diffusers.models.attention_processor import AttnProcessor

from fairhuman.bases.base import networks
from fairhuman.bases.latents import vae_factor
from fairhuman.errors import ModelError
from fairhuman.models.control import Control, ControlModel
from fairhuman.models.full import FullModel
from fairhuman.models.lora import LoraModel
from fairhuman.models.model import TrainableModel
from fairhuman.models.mole import MoleModel
from fairhuman.models.registry import CONTROLS, DTYPES
from fairhuman.models.sdxl import load_pipeline
from fairhuman.models.settings import ControlSettings
from fairhuman.train.recipe import TrainRecipe


def build_model(recipe: TrainRecipe, device: torch.device) -> TrainableModel:
    """Load the pipeline and make it trainable, on `device`."""
    dtype = DTYPES[recipe.precision] if recipe.kind != "full" else None
    pipeline = load_pipeline(recipe.model, recipe.seed, dtype or torch.float32, recipe.base)
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
        # Fused attention is about 25 % slower on a CPU, forward and backward.
        pipeline.unet.set_attn_processor(AttnProcessor())
    if recipe.compile:
        # Several backward passes through one graph need its buffers to stay.
        torch._functorch.config.donated_buffer = False
        pipeline.unet.compile_repeated_blocks()
    return make_trainable(recipe, pipeline)


def make_trainable(recipe: TrainRecipe, pipeline: StableDiffusionXLPipeline) -> TrainableModel:
    """Wrap a pipeline as the trainable model of the recipe's kind."""
    pipeline.vae.enable_slicing()  # one picture at a time: a float32 batch could need more memory than everything else
    if recipe.kind == "full":
        return FullModel(pipeline, recipe.full.text_encoders, recipe.gradient_checkpointing)
    if recipe.control is not None:
        return ControlModel(pipeline, build_control(recipe, recipe.control, pipeline), recipe.gradient_checkpointing)
    if recipe.kind == "mole":
        return MoleModel(pipeline, recipe.mole, recipe.seed, recipe.gradient_checkpointing)
    return LoraModel(pipeline, recipe.lora, recipe.seed, recipe.gradient_checkpointing, recipe.size)


def build_control(recipe: TrainRecipe, settings: ControlSettings, pipeline: StableDiffusionXLPipeline) -> Control:
    """Return the recipe's ControlNet or T2I-adapter, new or loaded from `start`."""
    kind = CONTROLS[recipe.kind]
    if settings.start is None:
        return kind.new(pipeline, settings.conditions, recipe.seed)
    return kind.load(settings.start, pipeline, settings.conditions)
