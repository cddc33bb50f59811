"""Which settings go with a base: those without sense for it are refused by name. Needs no torch."""

from collections.abc import Iterator

from fairhuman.errors import RecipeError
from fairhuman.models.locations import name_of
from fairhuman.models.settings import LoraSettings
from fairhuman.train.recipe import TrainRecipe


def check_settings(recipe: TrainRecipe) -> None:
    """Check that all settings have a meaning for the recipe's base.

    Raises:
        RecipeError: names the first that hasn't, and what to use.
    """
    name = name_of(recipe.model)
    for setting, found, use in _flow(recipe) if name.flow else _sdxl(recipe):
        raise RecipeError(f"{setting}={found} isn't for {name.title} ({recipe.model}): {use}")


def _flow(recipe: TrainRecipe) -> Iterator[tuple[str, object, str]]:
    """Yield setting, value and advice of what a flow-matching base doesn't have."""
    if recipe.kind not in ("lora", "full"):
        yield "kind", recipe.kind, "use lora or full; controls and MoLE are for SDXL"
    if recipe.kind == "full" and recipe.full.text_encoders:
        yield "full.text_encoders", "true", "its text encoders stay frozen; leave it out"
    if recipe.fairness.mode in ("tail", "split"):
        yield "fairness.mode", recipe.fairness.mode, "it cuts SDXL's U-Net; use output or exact"
    if recipe.precision == "fp16":
        yield "precision", "fp16", "its text encoders overflow in fp16; use bf16"
    if recipe.noise.offset:
        yield "noise.offset", recipe.noise.offset, "it sees pure noise in training and needs no offset; leave it out"
    kohya = recipe.lora.kohya_precision
    if recipe.kind == "lora" and kohya != LoraSettings().kohya_precision:
        yield "lora.kohya_precision", kohya, "it has one file, in fp32, for diffusers and ComfyUI; leave it out"
    if recipe.kind == "lora" and recipe.lora.targets == "attention+conv":
        yield "lora.targets", "attention+conv", "it has no convolutions; use attention, or names of layers"


def _sdxl(recipe: TrainRecipe) -> Iterator[tuple[str, object, str]]:
    """Yield setting, value and advice of what SDXL doesn't have."""
    for field, value in recipe.noise.times.model_dump(exclude_defaults=True).items():
        yield f"noise.times.{field}", value, "its timesteps are uniform; leave it out"
    if recipe.kind == "lora" and recipe.lora.targets == "attention+ff":
        yield "lora.targets", "attention+ff", "use attention or attention+conv, or names of layers"
