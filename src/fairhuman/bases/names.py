"""Which base a pipeline is: the table from class names to base files, and what can't be trained. Needs no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from fairhuman.errors import ModelError
from fairhuman.utils.parse import parse_json
from fairhuman.utils.shipped import home

SDXL = "SDXL"
PATCH = 2  # latent cells per token and side of all flow bases


@dataclass(frozen=True, slots=True)
class BaseName:
    """An entry of the table.

    Attributes:
        title: what messages call the base.
        place: `module:class` of its `Base`, below `fairhuman.bases`.
        guidance: of sampling, where none is given: the default of its pipeline's `__call__` in diffusers; of SDXL, that
            of the published code.
        previews: of previews; None: `guidance`.
        recipe: for a LoRA on it that ships; None: none does.
    """

    title: str
    place: str
    guidance: float
    previews: float | None = None
    recipe: str | None = None

    @property
    def flow(self) -> bool:
        """Whether it is a flow-matching transformer: all but SDXL are."""
        return self.title != SDXL


# By `_class_name` of model_index.json.
BASES: Mapping[str, BaseName] = {
    "StableDiffusionXLPipeline": BaseName(SDXL, "sdxl:SDXL", 7.5, previews=5.0, recipe="lora-sdxl.yaml"),
    "StableDiffusion3Pipeline": BaseName("Stable Diffusion 3.5", "sd3:SD3", 7.0, recipe="lora-sd35.yaml"),
    "ZImagePipeline": BaseName("Z-Image", "z_image:ZImage", 5.0, recipe="lora-zimage.yaml"),
    "FluxPipeline": BaseName("FLUX.1", "flux:Flux", 3.5),
    "Flux2KleinPipeline": BaseName("FLUX.2 klein", "flux2:Flux2Klein", 4.0, recipe="lora-flux2-klein.yaml"),
    "Lumina2Pipeline": BaseName("Lumina Image 2", "lumina2:Lumina2", 4.0),
    "QwenImagePipeline": BaseName("Qwen-Image", "qwen_image:QwenImage", 4.0, recipe="lora-qwen-image.yaml"),
}
# What model_index.json says of pipelines on the hub, for those that aren't on this machine.
ON_THE_HUB: Mapping[str, Mapping[str, Any]] = {
    "stabilityai/stable-diffusion-xl-base-1.0": {"_class_name": "StableDiffusionXLPipeline"},
    **{
        f"stabilityai/stable-diffusion-{name}": {"_class_name": "StableDiffusion3Pipeline"}
        for name in ("3-medium-diffusers", "3.5-medium", "3.5-large", "3.5-large-turbo")
    },
    **{f"Tongyi-MAI/{name}": {"_class_name": "ZImagePipeline"} for name in ("Z-Image", "Z-Image-Turbo")},
    **{f"black-forest-labs/FLUX.1-{name}": {"_class_name": "FluxPipeline"} for name in ("dev", "schnell", "Krea-dev")},
    **{
        f"black-forest-labs/FLUX.2-klein-{name}": {
            "_class_name": "Flux2KleinPipeline",
            "is_distilled": "base" not in name,
        }
        for name in ("base-4B", "base-9B", "4B", "9B")
    },
    "Alpha-VLLM/Lumina-Image-2.0": {"_class_name": "Lumina2Pipeline"},
    **{f"Qwen/{name}": {"_class_name": "QwenImagePipeline"} for name in ("Qwen-Image", "Qwen-Image-2512")},
}
Z_IMAGE_TURBO_SHIFT = 3.0
_OF_FEW_STEPS = re.compile("(?<!de-)turbo|schnell|lightning", re.IGNORECASE)
DISTILLED = (
    "its few steps were distilled, and training on noise levels that it never sees undoes that: take the base model "
    "that it was made from"
)


def base_name(model: str, index: Mapping[str, Any], folder: Path) -> BaseName:
    """Return the table's entry for a pipeline.

    Args:
        model: as the user gave it, for messages.
        index: the content of model_index.json.
        folder: of the pipeline.

    Raises:
        ModelError: another class, or a variant that can't be trained; with the reason.
    """
    kind = str(index.get("_class_name"))
    if kind.startswith("StableDiffusionXL"):
        kind = "StableDiffusionXLPipeline"
    if kind not in BASES:
        raise ModelError(f"model {model!r}: expected a {', '.join(BASES)}, found {kind}")
    name = BASES[kind]
    if (why := _distilled(kind, model, index, folder)) is not None:
        raise ModelError(f"model {model!r}: is a step-distilled {name.title} ({why}); {DISTILLED}")
    return name


def _distilled(kind: str, model: str, index: Mapping[str, Any], folder: Path) -> str | None:
    """Return by what a step-distilled variant is recognised; None if it is none.

    FLUX.1 schnell, FLUX.2 klein and Z-Image-Turbo differ from their base models in one field of their published
    configurations. Stable Diffusion 3.5 Large Turbo doesn't, so it is recognised by its name.
    """
    if kind == "FluxPipeline" and component_config(folder, "transformer").get("guidance_embeds") is False:
        return "schnell: transformer/config.json has guidance_embeds=false"
    if kind == "Flux2KleinPipeline" and index.get("is_distilled"):
        return "model_index.json has is_distilled=true; the base models' names have 'base'"
    if kind == "ZImagePipeline" and component_config(folder, "scheduler").get("shift") == Z_IMAGE_TURBO_SHIFT:
        return f"Turbo: scheduler/scheduler_config.json has shift={Z_IMAGE_TURBO_SHIFT}, the base model has 6"
    for name in (model, str(index.get("_name_or_path", ""))):
        if kind != "StableDiffusionXLPipeline" and _OF_FEW_STEPS.search(PurePath(name).name):
            return f"by its name, {name}"
    return None


def latent_shape(folder: Path) -> tuple[int, int]:
    """Return pixels per latent cell and side, and channels, of the VAE in a pipeline's folder.

    Raises:
        OSError, ValueError, KeyError: it has no readable configuration.
    """
    vae = parse_json(Path(home(folder, "vae"), "vae", "config.json").read_text(encoding="utf-8"))
    if "z_dim" in vae:  # a video VAE, as Qwen-Image has
        return 2 ** len(vae["temperal_downsample"]), int(vae["z_dim"])
    return 2 ** (len(vae["block_out_channels"]) - 1), int(vae["latent_channels"])


def component_config(folder: Path, part: str) -> Mapping[str, Any]:
    """Return the configuration of a pipeline's component; empty if there is none, which loading names."""
    try:
        name = "scheduler_config.json" if part == "scheduler" else "config.json"
        found = parse_json((folder / part / name).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
