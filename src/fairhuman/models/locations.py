"""Model locations: a name that ships with the package, a folder or a hub id; files of trained weights."""

import math
import re
from pathlib import Path

from fairhuman.errors import ModelError, RecipeError
from fairhuman.utils.parse import parse_json

SDXL = "sdxl"  # base 1.0, its shape without weights
SMALL = "small"
UNTRAINED = "small-untrained"
SMALL_FOLDER = Path(__file__).with_name("small")
DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
MOLE_FILE = "mole.safetensors"
SDXL_SIDE_MULTIPLE = 32  # pixels: the VAE's factor of 8, halved twice in the U-Net
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
EXPECTED = "a StableDiffusionXLPipeline folder (model_index.json, unet, vae, two text encoders, scheduler)"


def check_location(model: str) -> None:
    """Check `model` without loading it, with clearer messages than diffusers'.

    Raises:
        ModelError: neither an SDXL folder nor another location that `load_pipeline` accepts.
    """
    if model == UNTRAINED:
        return
    path = Path(location_of(model))
    if not path.exists():
        if not is_hub_id(model):
            raise ModelError(f"model {model!r}: expected {SMALL!r}, {EXPECTED} or a hub id, found no such folder")
        return
    if not (path / "model_index.json").is_file():
        kind = "a folder without model_index.json" if path.is_dir() else "a single file"
        raise ModelError(f"model {model!r}: expected {EXPECTED}, found {kind}")
    try:
        found = str(parse_json((path / "model_index.json").read_text(encoding="utf-8")).get("_class_name"))
    except (OSError, ValueError, AttributeError) as error:
        raise ModelError(f"model {model!r}: model_index.json can't be read: {error}") from error
    if not found.startswith("StableDiffusionXL"):
        raise ModelError(f"model {model!r}: expected {EXPECTED}, found {found}")


def is_hub_id(text: str) -> bool:
    """Whether a text has the form of a repository name, `OWNER/NAME`."""
    return HUB_ID.fullmatch(text) is not None


def location_of(model: str) -> str:
    """Return the location for diffusers: the folder of a model that ships with the package, or `model` unchanged."""
    return str(SMALL_FOLDER) if model == SMALL else model


def find_weights_file(kind: str, place: Path, name: str) -> Path:
    """Return the path of a weights file: `place` itself, or the file `name` in the folder `place`.

    Raises:
        ModelError: there is no such file.
    """
    file = place / name if place.is_dir() else place
    if not file.is_file():
        raise ModelError(f"{kind} {str(place)!r}: expected a file or a folder with {name}, found none")
    return file


def find_lora(path: Path) -> Path:
    """Return the path of a LoRA (a file, or a folder with `pytorch_lora_weights.safetensors`) without reading it.

    Raises:
        ModelError: there is no such file.
    """
    return find_weights_file("LoRA", path, DIFFUSERS_FILE)


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
        raise RecipeError(f"LoRA weight: expected a finite number, found {weight}")


def side_multiple(model: str) -> int:
    """Return the pixels of which a picture's sides must be multiples: the VAE's factor, halved in each U-Net level.

    It is read from a folder's configurations. Whatever has none here, such as a hub id, is taken for SDXL.
    """
    folder = SMALL_FOLDER if model in (SMALL, UNTRAINED) else Path(model)
    try:
        vae, unet = (
            len(parse_json((folder / part / "config.json").read_text(encoding="utf-8"))["block_out_channels"])
            for part in ("vae", "unet")
        )
    except (OSError, ValueError, KeyError, TypeError):
        return SDXL_SIDE_MULTIPLE
    return 1 << (vae - 1 + unet - 1)
