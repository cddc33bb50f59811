"""Model locations: a name that ships with the package, a folder, a file or a hub id; files of trained weights."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fairhuman.bases.names import BASES, ON_THE_HUB, PATCH, BaseName, base_name, component_config, latent_shape
from fairhuman.bases.published import PUBLISHED
from fairhuman.errors import ModelError, RecipeError
from fairhuman.models.checkpoint_file import check_lora_file, is_checkpoint_name, read_checkpoint
from fairhuman.models.settings import BaseSettings
from fairhuman.utils.hub import loading, refuse_pickles
from fairhuman.utils.parse import parse_json
from fairhuman.utils.shipped import RANDOM, SHIPPED, SMALL, home

SDXL = "sdxl"  # base 1.0, its shape without weights
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
MOLE_FILE = "mole.safetensors"
SDXL_SIDE_MULTIPLE = 32  # pixels: the VAE's factor of 8, halved twice in the U-Net
FLOW_FACTOR = 8  # pixels per latent cell and side of the published flow bases
NETWORKS = ("unet", "vae", "text_encoder", "text_encoder_2")  # folders of a pipeline that hold weights
FLOW_NETWORKS = ("transformer", "text_encoder_3")  # of other bases, besides
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
PIPELINE = f"a pipeline's folder (model_index.json) of {', '.join(base.title for base in BASES.values())}"
EXPECTED = "a StableDiffusionXLPipeline folder (model_index.json, unet, vae, two text encoders, scheduler)"


def check_location(model: str, own_vae: bool = False) -> None:
    """Check `model` without loading it, with clearer messages than diffusers'.

    Args:
        model: as for `load_pipeline`.
        own_vae: a VAE is given apart, so a single file needs none.

    Raises:
        ModelError: neither an SDXL folder or file nor another location that `load_pipeline` accepts.
    """
    if model in RANDOM:
        return
    path = Path(location_of(model))
    if is_file(model):
        read_checkpoint(path, model, own_vae)
        return
    if not path.exists():
        if is_checkpoint_name(model) or not is_hub_id(model):
            kind = "file" if is_checkpoint_name(model) else "folder"
            raise ModelError(
                f"model {model!r}: expected {SMALL!r}, {PIPELINE}, a .safetensors file or a hub id, "
                f"found no such {kind}"
            )
        if model in ON_THE_HUB:
            base_name(model, ON_THE_HUB[model], path)
        return
    if not (path / "model_index.json").is_file():
        lora = (
            "; it holds a LoRA: give it as --lora, or in a recipe as lora.start"
            if (path / DIFFUSERS_FILE).is_file()
            else ""
        )
        raise ModelError(f"model {model!r}: expected {PIPELINE}, found a folder without model_index.json{lora}")
    try:
        found = dict(parse_json((path / "model_index.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"model {model!r}: model_index.json can't be read: {error}") from error
    for part in (*NETWORKS, *FLOW_NETWORKS):
        refuse_pickles(f"model {model!r}", path / part)
    if not base_name(model, found, path).flow:
        check_ddpm(model, component_config(path, "scheduler"), component_config(path, "vae"))


def check_ddpm(model: str, schedule: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    """Check an SDXL's configurations of scheduler and VAE; what is empty isn't checked.

    Raises:
        ModelError: the noise schedule isn't DDPM's, or the VAE's latents have a mean: as those of Playground v2.5.
    """
    kind = schedule.get("_class_name")
    if schedule and "beta_schedule" not in schedule:
        raise ModelError(
            f"model {model!r}: expected a scheduler with a beta_schedule, found {kind}: it is for another base"
        )
    if vae.get("latents_mean") is not None:
        raise ModelError(f"model {model!r}: has a VAE with latents_mean in its configuration, which isn't supported")


def name_of(model: str) -> BaseName:
    """Return which base a model is, without loading it; what ships and files are SDXL's.

    A hub id that is neither on this machine nor in `ON_THE_HUB` is taken for SDXL, and so is a folder that can't be
    read: loading says what is wrong.
    """
    folder = Path(location_of(model))
    try:
        index = parse_json((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        index = ON_THE_HUB.get(model, {})
    try:
        return base_name(model, dict(index), folder)
    except (ValueError, TypeError, ModelError):
        return BASES["StableDiffusionXLPipeline"]


def is_whole(model: str) -> bool:
    """Whether the weights of a flow-matching base are on this machine, and not its configurations alone."""
    folder = Path(location_of(model))
    return all(any((folder / part).glob("*.safetensors")) for part in ("transformer", "vae", "text_encoder"))


def flow_to_download(model: str) -> bool:
    """Whether a model is the hub id of a flow-matching base whose weights aren't on this machine."""
    return is_hub_id(model) and not Path(model).exists() and name_of(model).flow and not is_whole(model)


def fetch_configurations(model: str) -> None:
    """Download the configurations of a hub id that isn't on this machine, which say what shapes it has.

    Those of models in `PUBLISHED` are known.

    Raises:
        ModelError: they can't be had.
    """
    if not is_hub_id(model) or model in PUBLISHED or (Path(location_of(model)) / "vae" / "config.json").exists():
        return
    from huggingface_hub import snapshot_download

    with loading(f"model {model!r}", model, "a pipeline"):
        snapshot_download(model, allow_patterns=["*.json", "*/*.json"])


def require_sdxl(model: str, what: str) -> None:
    """Check that a model is an SDXL; `what` needs one.

    Raises:
        ModelError: it is another base.
    """
    name = name_of(model)
    if name.flow:
        raise ModelError(f"{what} is for SDXL alone, but model {model!r} is {name.title}")


def check_half(model: str, precision: str) -> None:
    """Check that a model works in a precision.

    Raises:
        RecipeError: fp16 for another base than SDXL, whose text encoders overflow.
    """
    if precision == "fp16" and (name := name_of(model)).flow:
        raise RecipeError(f"--precision fp16: the text encoders of {name.title} overflow in fp16; use bf16")


def check_base(model: str, base: BaseSettings) -> None:
    """Check a model and the VAE of `base` without loading them.

    Raises:
        ModelError: as of `check_location` and `check_vae`; or settings of `base` for a model other than SDXL.
    """
    check_location(model, base.vae is not None)
    for name in base.model_dump(exclude_defaults=True, exclude={"quantize", "offload"}):
        require_sdxl(model, f"base.{name}")
    if base.vae is not None:
        check_vae(base.vae)


def check_vae(place: str) -> None:
    """Check that something is at `base.vae`, without loading it.

    Raises:
        ModelError: no such folder or file, and not a hub id; or a folder of something else.
    """
    if not Path(place).exists() and (is_checkpoint_name(place) or not is_hub_id(place)):
        raise ModelError(f"base.vae {place!r}: expected a folder, a .safetensors file or a hub id, found none there")
    folder = Path(place) / "vae" if (Path(place) / "vae").is_dir() else Path(place)
    refuse_pickles(f"base.vae {place!r}", folder)
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ModelError(f"base.vae {place!r}: expected the folder of a VAE, found none with config.json in it")


def is_file(model: str) -> bool:
    """Whether a model is a single file."""
    return Path(location_of(model)).is_file()


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a repository name, `OWNER/NAME`."""
    return HUB_ID.fullmatch(text) is not None


def location_of(model: str) -> str:
    """Return the location for diffusers: the folder of a model that ships with the package, or `model` unchanged.

    For the hub id of a base other than SDXL it is the folder in the hub's cache, once it is there.
    """
    if model in SHIPPED:
        return str(SHIPPED[model])
    return model if Path(model).exists() or not is_hub_id(model) else _cached(model) or model


def _cached(model: str) -> str | None:
    """Return the folder of a flow-matching base in the hub's cache on this machine; None: there is none."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        index = try_to_load_from_cache(model, "model_index.json")
        if not isinstance(index, str):
            return None
        kind = parse_json(Path(index).read_text(encoding="utf-8")).get("_class_name")
    except (HFValidationError, OSError, ValueError, AttributeError):
        return None
    return str(Path(index).parent) if kind in BASES and BASES[kind].flow else None


def find_weights_file(kind: str, place: Path, name: str) -> Path:
    """Return the path of a weights file: `place` itself, or the file `name` in the folder `place`.

    Raises:
        ModelError: there is no such file.
    """
    file = place / name if place.is_dir() else place
    if not file.is_file():
        product = place / kind.lower()
        hint = f"; did you mean {product}?" if (product / name).is_file() else ""
        raise ModelError(f"{kind} {str(place)!r}: expected a file or a folder with {name}, found none{hint}")
    return file


def find_lora(path: Path) -> Path:
    """Return the path of a LoRA (a file, or a folder with `pytorch_lora_weights.safetensors`), checked by its header.

    Raises:
        ModelError: there is no such file, or it is no LoRA.
    """
    file = find_weights_file("LoRA", path, DIFFUSERS_FILE)
    check_lora_file(file)
    return file


def find_mole(path: Path) -> Path:
    """Return the path of a MoLE (a file, or a folder with `mole.safetensors`) without reading it.

    Raises:
        ModelError: there is no such file.
    """
    return find_weights_file("MoLE", path, MOLE_FILE)


def check_lora_weight(weight: float) -> None:
    """Check the weight of a LoRA.

    Raises:
        RecipeError: it isn't finite.
    """
    if not math.isfinite(weight):
        raise RecipeError(f"LoRA weight: expected a finite number, found {weight}; set --lora-weight (lora_weight)")


def side_multiple(model: str) -> int:
    """Return the pixels of which a picture's sides must be multiples: the VAE's factor, halved in each U-Net level.

    For other bases it is the VAE's factor times 2, the cells of a token.

    It is read from a folder's configurations or a file's header. Whatever has none here, such as a hub id, is taken for
    SDXL.
    """
    if is_file(model):
        try:
            model = SMALL if read_checkpoint(Path(model), model, own_vae=True).architecture == "small" else SDXL
        except ModelError:  # named when the model is checked
            return SDXL_SIDE_MULTIPLE
    folder = Path(location_of(model))
    try:
        if name_of(model).flow:
            known = Path(home(folder, "vae"), "vae").exists()
            return PATCH * (latent_shape(folder)[0] if known else FLOW_FACTOR)
        vae, unet = (
            len(parse_json((folder / part / "config.json").read_text(encoding="utf-8"))["block_out_channels"])
            for part in ("vae", "unet")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return SDXL_SIDE_MULTIPLE
    return 1 << (vae - 1 + unet - 1)


def largest_side(model: str) -> int | None:
    """Return the pixels of the longest side for which a transformer's table has positions; None: it has no table.

    It is read from a folder's configurations; of what has none here, such as a hub id, nothing is known.
    """
    folder = Path(location_of(model))
    try:
        config = parse_json((folder / "transformer" / "config.json").read_text(encoding="utf-8"))
        return int(config["pos_embed_max_size"]) * side_multiple(model)
    except (OSError, ValueError, KeyError, TypeError):
        return None
