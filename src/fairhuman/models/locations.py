"""Model locations: a name that ships with the package, a folder or a hub id."""

import json
import re
from pathlib import Path

from fairhuman.errors import ModelError

SDXL = "sdxl"  # base 1.0, its shape without weights
SMALL = "small"
UNTRAINED = "small-untrained"
SMALL_FOLDER = Path(__file__).with_name("small")
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
        found = str(json.loads((path / "model_index.json").read_text(encoding="utf-8")).get("_class_name"))
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
