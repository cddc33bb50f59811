"""Models that ship with the package, by name: where their files are. Needs no torch."""

from collections.abc import Mapping
from pathlib import Path

SMALL, UNTRAINED = "small", "small-untrained"
SMALL_FLOW, FLOW_UNTRAINED = "small-flow", "small-flow-untrained"
SMALL_FOLDER, SMALL_FLOW_FOLDER = (Path(__file__).parents[1] / "models" / name for name in ("small", "small_flow"))
SHIPPED: Mapping[str, Path] = {
    SMALL: SMALL_FOLDER,
    UNTRAINED: SMALL_FOLDER,
    SMALL_FLOW: SMALL_FLOW_FOLDER,
    FLOW_UNTRAINED: SMALL_FLOW_FOLDER,
}
RANDOM = (UNTRAINED, FLOW_UNTRAINED)  # with the architecture of the trained one and random weights
# Components that the small flow base has from the small SDXL; they are stored once.
SHARED = ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")


def home(folder: str | Path, part: str) -> str:
    """Return the folder that holds a component of a pipeline's folder: the folder itself, unless it is shared."""
    return str(SMALL_FOLDER if part in SHARED and Path(folder) == SMALL_FLOW_FOLDER else folder)
